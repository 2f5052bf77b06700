"""One handler for everything that logs: console lines on a terminal, JSON elsewhere, never a payload or a password."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from broadway_py.daemon.settings import Log
from broadway_py.errors import BatchFailed, BroadwayError, HandlerVerdict, MessageFailed

__all__ = ["configure", "describe_exception", "mask_credentials"]

#: Loggers of libraries under us. The text of what they raise may quote a message or a URL, so only its type and its
#: stack are shown. The user's own loggers are not cut: what they log is their decision.
_QUIET: Final = ("broadway_py", "asyncio", "aio_pika", "aiormq", "aiohttp", "concurrent", "multiprocessing")

_CREDENTIALS: Final = re.compile(r"(?<=://)(?!user:password@)[^/\s@]*:[^/\s]*@")

_EventDict = MutableMapping[str, Any]


def mask_credentials(text: str) -> str:
    """*text* with the user and password of every URL replaced by ``***``."""
    return _CREDENTIALS.sub("***@", text) if "://" in text else text


def configure(settings: Log, *, stream: TextIO | None = None, worker: int | None = None) -> None:
    """Send every logger of this process to *stream* (standard error), in the form that *settings* ask for.

    *worker*: this process's number among the workers, bound to each line.
    """
    stream = sys.stderr if stream is None else stream
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    renderer: Any
    if console:
        colors = stream.isatty() and not os.environ.get("NO_COLOR")
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
            ],
            processors=[
                structlog.stdlib.add_logger_name,
                _bind_worker(worker),
                _render_exception,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _mask,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    logging.captureWarnings(capture=True)
    _take_over_hooks()


def describe_exception(error: BaseException, *, with_text: bool) -> str:
    """The stack of *error* and of what caused it, without local variables; our own errors always with their text."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        parts.append(_one(current, with_text=with_text))
        if isinstance(current, BaseExceptionGroup):
            parts.extend(describe_exception(inner, with_text=with_text) for inner in current.exceptions)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\ncaused by:\n".join(parts)


def _one(error: BaseException, *, with_text: bool) -> str:
    stack = "".join(traceback.format_tb(error.__traceback__))
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    # Ours speak of settings and sources, but those that a handler raises, or that tell of its message, quote the user.
    is_ours = isinstance(error, BroadwayError) and not isinstance(error, HandlerVerdict | MessageFailed | BatchFailed)
    text = f": {error}" if with_text or is_ours else ""
    return f"{stack}{name}{text}"


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
        name = str(event.get("logger", ""))
        event["exception"] = describe_exception(error, with_text=name.partition(".")[0] not in _QUIET)
    return event


def _mask(_logger: Any, _name: str, event: _EventDict) -> Mapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = mask_credentials(value)
    return event


def _take_over_hooks() -> None:
    """What ends up nowhere is logged like the rest, instead of being printed with its text."""
    nowhere = logging.getLogger("broadway_py.daemon")

    def of_main(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
        nowhere.critical("the program ended by an error", exc_info=(kind, error, stack))

    def of_thread(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is not None and failed.exc_type is not SystemExit:
            name = failed.thread.name if failed.thread is not None else "?"
            nowhere.error("the thread %s ended by an error", name, exc_info=failed.exc_value)

    def of_nobody(failed: Any) -> None:
        if failed.exc_value is not None:
            nowhere.error("an error that nobody could take", exc_info=failed.exc_value)

    sys.excepthook = of_main
    threading.excepthook = of_thread
    sys.unraisablehook = of_nobody
