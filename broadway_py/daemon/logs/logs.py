"""One handler for all loggers: console lines on a terminal, JSON elsewhere, never a payload or a password."""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from types import TracebackType
from typing import Any, Final, Literal, TextIO

import structlog

from broadway_py.daemon.logs.log_writer import LogWriter, keep_standard_streams
from broadway_py.daemon.settings.settings import Log
from broadway_py.error_text import clipped, described, error_texts_are_shown, how_to_see_texts, text_of
from broadway_py.log import (
    MOST_LINE,
    add_carried_fields,
    bounded,
    carry_setup,
    line_limit,
    logger,
    show_error_texts,
)

__all__ = ["configure", "dropped_lines", "flush", "mask_credentials"]

#: Loggers of the libraries that we use. Their lines may quote a message or a URL, so they are shown without texts, and
#: limited like our own. The user's own loggers are not changed: what they log is the user's decision.
_LIBRARIES: Final = frozenset(
    {
        "aio_pika", "aiobotocore", "aiohttp", "aiormq", "asyncio", "boto3", "botocore", "broadway_py", "concurrent",
        "multiprocessing", "opentelemetry", "pamqp", "prometheus_client", "py", "urllib3", "uvloop",
    }
)  # fmt: skip

#: Warnings about code. They quote no data.
_ABOUT_CODE: Final = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, SyntaxWarning, ImportWarning)

_AUTHORITY: Final = re.compile(r"(?<=://)[^/\s]+")
_EXAMPLES: Final = frozenset({"user:password"})
_CONTROL: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}

_NOWHERE: Final = logger("broadway_py.daemon")
_WARNINGS: Final = logger("py.warnings")

_EventDict = MutableMapping[str, Any]


def mask_credentials(text: str) -> str:
    """Returns *text* with the user and password of every URL replaced by ``***``."""
    return _AUTHORITY.sub(_without_login, text) if "://" in text else text


def _without_login(found: re.Match[str]) -> str:
    login, at, host = found[0].rpartition("@")
    if not at or ":" not in login.partition("@")[0] or login in _EXAMPLES:
        return found[0]
    return f"***@{host}"


def configure(settings: Log, *, stream: TextIO | None = None, worker: int | None = None) -> None:
    """Sends every logger of this process to *stream* (default: standard error), in the form that *settings* ask for.

    A thread writes the lines, so that no code waits for the reader.

    *worker* is this process's number among the workers. It is added to each line.
    """
    keep_standard_streams()
    stream = sys.stderr if stream is None else stream
    is_terminal = stream is not None and stream.isatty()
    console = settings.format == "console" or (settings.format == "auto" and is_terminal)
    render = _for_people(colors=is_terminal and not os.environ.get("NO_COLOR")) if console else _for_machines
    show_error_texts(settings.errors == "text", how="log.errors: text shows it")
    handler = LogWriter(stream)
    handler.addFilter(_limit)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                add_carried_fields,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.add_logger_name,
                _bind_worker(worker),
                _render_exception,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda _logger, _name, event: _rendered(event, render),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.captureWarnings(capture=True)
    warnings.showwarning = _log_warning
    _take_over_hooks()
    # Worker processes of callbacks use the same stream and form: "auto" means the same for them as it does here.
    form: Literal["console", "json"] = "console" if console else "json"
    carry_setup(partial(configure, settings.model_copy(update={"format": form}), worker=worker))
    atexit.unregister(_sum_up)
    atexit.register(_sum_up)


def flush() -> None:
    """Waits a short time until the logged lines are written."""
    _sum_up()
    for handler in logging.getLogger().handlers:
        handler.flush()


def dropped_lines() -> int:
    """Returns how many lines of this process were dropped because nobody read them in time or there was no room."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, LogWriter))


def _sum_up() -> None:
    line_limit.sum_up(at_the_end=True)


# --- what libraries log


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """The formatter of structlog, but without the texts in the lines of libraries."""

    def format(self, record: logging.LogRecord) -> str:
        if record.args and _is_of_library(record) and not error_texts_are_shown():
            record = logging.makeLogRecord(record.__dict__)
            record.args = _without_texts(record.args)
            try:
                record.getMessage()
            except (TypeError, ValueError, KeyError):
                record.args = ()
        return super().format(record)


def _is_of_library(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in _LIBRARIES and not isinstance(record.msg, dict)


def _without_texts(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_text(value) for key, value in values.items()}
    return tuple(map(_without_text, values))


def _without_text(value: object) -> object:
    return value if value is None or type(value) in (int, float, bool) else _Hidden(type(value).__name__)


class _Hidden:
    """Replaces a value in a line of a library that may be, or may quote, a message."""

    def __init__(self, name: str) -> None:
        self._name = clipped(name, 100)

    def __repr__(self) -> str:
        return f"({self._name})"


def _limit(record: logging.LogRecord) -> bool:
    """Returns False for a library's line if there were too many in this minute. Our own lines were counted before."""
    if not _is_of_library(record) or record.levelno <= logging.DEBUG:
        return True
    place = f"{clipped(record.filename, 100)}:{record.lineno}"
    sentence = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    return line_limit.lets_through(record.name, clipped(sentence, 200), (place,))


def _log_warning(  # noqa: PLR0917  # the signature of warnings.showwarning
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001  # as above
    line: str | None = None,  # noqa: ARG001  # as above
) -> None:
    shown = error_texts_are_shown() or issubclass(category, _ABOUT_CODE)
    text = (text_of(message, 1000) if isinstance(message, Warning) else clipped(message, 1000)) if shown else None
    place = f"{clipped(filename, 300)}:{lineno}"
    _WARNINGS.warning(f"{category.__name__}: {how_to_see_texts() if text is None else text}", at=place)


# --- a line


def _for_machines(event: _EventDict) -> str:
    return json.dumps(event, ensure_ascii=False, default=str)


def _for_people(*, colors: bool) -> Callable[[_EventDict], str]:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def render(event: _EventDict) -> str:
        # A name that a publisher gave to its message must not move the cursor.
        safe = {key: value.translate(_CONTROL) if isinstance(value, str) else value for key, value in event.items()}
        return renderer(None, "", safe)

    return render


def _rendered(event: _EventDict, render: Callable[[_EventDict], str]) -> str:
    most = MOST_LINE
    while True:
        line = render(_mask(bounded(dict(event), most)))
        # A renderer may write one character as six characters.
        if len(line) <= 2 * MOST_LINE or most < 100:  # nothing is left to cut
            return line
        most //= 4


def _bind_worker(worker: int | None) -> Callable[[Any, str, _EventDict], _EventDict]:
    def bind(_logger: Any, _name: str, event: _EventDict) -> _EventDict:
        if worker is not None:
            event["worker"] = worker
        return event

    return bind


def _render_exception(_logger: Any, _name: str, event: _EventDict) -> _EventDict:
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        is_users = str(event.get("logger", "")).partition(".")[0] not in _LIBRARIES
        event["exception"] = described(error, with_text=is_users or error_texts_are_shown())
    return event


def _mask(event: _EventDict) -> _EventDict:
    return {key: _masked(value) for key, value in event.items()}


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask_credentials(value)
    if isinstance(value, dict):
        return {key: _masked(one) for key, one in value.items()}
    return list(map(_masked, value)) if isinstance(value, list) else value


def _take_over_hooks() -> None:
    """Makes errors that nobody handles go to the log, instead of being printed with their text."""

    def of_main(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
        _NOWHERE.critical("an error ended the program", exc_info=(kind, error, stack))

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and failed.exc_type is not SystemExit:
            name = failed.thread.name if failed.thread is not None else "?"
            _NOWHERE.error("an error ended a thread", thread=clipped(name, 100), exc_info=failed.exc_value)

    def of_nobody(failed: Any) -> None:
        if failed.exc_value is not None:
            _NOWHERE.error("an error was ignored, because no code could catch it", exc_info=failed.exc_value)

    sys.excepthook = of_main
    threading.excepthook = of_thread
    sys.unraisablehook = of_nobody
