"""The library's loggers: structlog on top of the standard library, so that any application can direct the output.

The length of a line is limited, and so is the number of lines of each kind in a minute. The texts of errors are shown
only if :func:`show_error_texts` was called.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from broadway_py.error_text import clipped, described, error_texts_are_shown, show_error_texts
from broadway_py.limit import OTHER, PerMinute

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

__all__ = [
    "ALL",
    "MOST_LINE",
    "Fields",
    "LineLimit",
    "Logger",
    "add_carried_fields",
    "bounded",
    "carried_setup",
    "carry_fields",
    "carry_setup",
    "error_texts_are_shown",
    "line_limit",
    "logger",
    "show_error_texts",
]

#: The most characters of a line, approximately.
MOST_LINE: Final = 8_192
_MOST_FIELDS: Final = 40
_MOST_ITEMS: Final = 30
_MOST_DEPTH: Final = 3
#: The characters that each value gets, however long the line is, and the fields that are never left out.
_LEAST: Final = 20
_ALWAYS: Final = frozenset({"event", "level", "logger", "timestamp", "worker"})
#: The most characters of one value, and of the values that may hold a stack.
_MOST_VALUE: Final = 1_000
_MOST_EVENT: Final = 4_096
_LONG: Final = frozenset({"event", "exception", "stack", "stacks", "reason"})

#: A line with a field of this name is not limited: it is limited elsewhere, or the user has asked for all of it.
ALL: Final = "_all"
#: How many lines of one kind are shown in each minute, and how many kinds are distinguished.
_LINES_PER_MINUTE: Final = 20
_MOST_KINDS: Final = 500
#: The fields that distinguish two lines with the same sentence.
_KIND_FIELDS: Final = (
    "pipeline", "producer", "stage", "queue", "index", "worker", "exception", "at", "cause", "becomes", "action",
)  # fmt: skip


class _Carried:
    setup: Callable[[], None] | None = None
    fields: Callable[[MutableMapping[str, Any]], None] | None = None


def carry_setup(setup: Callable[[], None]) -> None:
    """Makes worker processes for callbacks call *setup* first, to direct their log lines. *setup* must pickle."""
    _Carried.setup = setup


def carried_setup() -> Callable[[], None] | None:
    """Returns what :func:`carry_setup` was given last; None if the application directs the output itself."""
    return _Carried.setup


def carry_fields(add: Callable[[MutableMapping[str, Any]], None]) -> None:
    """Lets *add* put fields into each line of this process, such as the ids of the current span."""
    _Carried.fields = add


def add_carried_fields(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the fields of :func:`carry_fields` to *event*. A processor of structlog."""
    if _Carried.fields is not None:
        _Carried.fields(event)
    return event


_EventDict = MutableMapping[str, Any]
_Kind = tuple[str, str, tuple[str, ...]]


class Logger:
    """A logger with fields that are in each of its lines. It loads structlog when it writes its first line.

    Level and handlers are those of the standard library's logger of this name. A
    ``structlog.stdlib.ProcessorFormatter`` on a handler renders the fields (``broadway run`` installs one); any other
    formatter shows them after the sentence.
    """

    __slots__ = ("_fields", "_target", "_writer")

    def __init__(self, target: logging.Logger, fields: Mapping[str, Any]) -> None:
        self._target = target
        self._fields = fields
        self._writer: BoundLogger | None = None

    def bind(self, **fields: Any) -> Logger:
        """Returns a logger whose lines have *fields* too."""
        return Logger(self._target, {**self._fields, **fields})

    def debug(self, event: str, **fields: Any) -> None:
        """Writes a line about what a search for an error needs."""
        if (writer := self._writer_for(logging.DEBUG)) is not None:
            writer.debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Writes a line about what happens as it should."""
        if (writer := self._writer_for(logging.INFO)) is not None:
            writer.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Writes a line about what should not happen, and what the program can deal with."""
        if (writer := self._writer_for(logging.WARNING)) is not None:
            writer.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Writes a line about what somebody must look at."""
        if (writer := self._writer_for(logging.ERROR)) is not None:
            writer.error(event, **fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Writes a line about what ends the program."""
        if (writer := self._writer_for(logging.CRITICAL)) is not None:
            writer.critical(event, **fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Writes a line as :meth:`error`, with the exception that is being handled."""
        if (writer := self._writer_for(logging.ERROR)) is not None:
            writer.exception(event, **fields)

    def _writer_for(self, level: int) -> BoundLogger | None:
        if not self._target.isEnabledFor(level):
            return None
        if self._writer is None:
            self._writer = _writer(self._target, self._fields)
        return self._writer


def logger(name: str) -> Logger:
    """Returns a logger for the standard library's logger *name*."""
    return Logger(logging.getLogger(name), {})


def _writer(target: logging.Logger, fields: Mapping[str, Any]) -> BoundLogger:
    import structlog  # noqa: PLC0415  # it takes 0.1 s to load, and most processes that run stages write no line

    wrapped = structlog.wrap_logger(
        target,
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.contextvars.merge_contextvars,
            add_carried_fields,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_error,
            _limit,
            _bound,
            _hand_over,
        ],
    )
    return cast("BoundLogger", wrapped.bind(**fields))


class Fields(dict[str, Any]):
    """The fields of a log line, by name. As text they are one readable line."""

    def __str__(self) -> str:
        rest = " ".join(f"{key}={_word(value)}" for key, value in self.items() if key not in _SAID_ELSEWHERE)
        return f"{self.get('event', '')}{' ' if rest else ''}{rest}"


# The fields that are not repeated: the sentence comes first, and the log record has its own time and level.
_SAID_ELSEWHERE: Final = frozenset({"event", "timestamp", "level"})


def _word(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return repr(text) if not text.isprintable() or not text or any(sign in text for sign in " =\"'") else text


class LineLimit:
    """Limits the lines of each kind in a minute. The first few are let through; the others are only counted.

    It is safe to use from any thread.

    Args:
        now: returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.forget()

    def forget(self) -> None:
        """Starts again with no counts and a new lock. A forked child needs this: its other threads no longer exist."""
        self._lock = threading.RLock()
        self._minutes: PerMinute[_Kind] = PerMinute(_LINES_PER_MINUTE, _MOST_KINDS, (__name__, OTHER, ()))

    def lets_through(self, name: str, event: str, place: tuple[str, ...]) -> bool:
        """Returns whether to write one more line of logger *name* with the sentence *event* about *place*."""
        with self._lock:
            sums = list(self._minutes.over(self._now()))
            shown = self._minutes.note((name, event, place), self._now()) == "show"
        _tell(sums)
        return shown

    def sum_up(self, *, at_the_end: bool = False) -> None:
        """Logs how many lines were left out in the minutes that are over; with *at_the_end*, in all minutes."""
        with self._lock:
            sums = list(self._minutes.close() if at_the_end else self._minutes.over(self._now()))
        _tell(sums)


def _tell(sums: Iterable[tuple[_Kind, int]]) -> None:
    for (name, event, place), count in sums:
        fields: dict[str, Any] = {ALL: True, "line": event, "not_shown": count}
        if place:
            fields["about"] = " ".join(place)
        logger(name).warning("more lines of this kind were left out", **fields)


#: The line limit of this process.
line_limit: Final = LineLimit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=line_limit.forget)


def bounded(event: _EventDict, most: int = MOST_LINE) -> _EventDict:
    """Cuts the values of *event* so that the line has about *most* characters, and returns *event*."""
    left = most
    for number, (key, value) in enumerate(list(event.items())):
        if number >= _MOST_FIELDS or (left <= 0 and key not in _ALWAYS):
            del event[key]
            continue
        cut = _cut(value, min(_MOST_EVENT if key in _LONG else _MOST_VALUE, max(left, _LEAST)))
        left -= len(cut) if isinstance(cut, str) else len(str(cut))
        event[key] = cut
    return event


def _cut(value: object, room: int, depth: int = 0) -> Any:
    """Returns *value* as something small that any renderer can show."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        # Writing a long number takes time that grows with the square of its length.
        return value if value.bit_length() < 1024 else "(a very long number)"  # type: ignore[attr-defined]  # an int
    if isinstance(value, str):
        return clipped(value, room)
    try:
        if depth < _MOST_DEPTH and isinstance(value, Mapping):  # a deeper value is not useful in a log line
            pairs = list(islice(value.items(), min(_MOST_ITEMS, room // _LEAST)))
            share = max(_LEAST, room // max(len(pairs), 1))
            return {clipped(str(key), 100): _cut(one, share, depth + 1) for key, one in pairs}
        if depth < _MOST_DEPTH and isinstance(value, list | tuple):  # as above
            items = value[: min(_MOST_ITEMS, room // _LEAST)]
            share = max(_LEAST, room // max(len(items), 1))
            return [_cut(one, share, depth + 1) for one in items]
        if isinstance(value, Collection):
            # Bytes are payload. The other collections would be written in full before they are cut.
            return f"({clipped(kind.__name__, 100)} of {len(value):,})"
        return clipped(repr(value), room)
    except Exception:  # noqa: BLE001  # an object that cannot be shown
        return f"({clipped(kind.__name__, 100)}: cannot be shown)"


def _describe_error(_logger: Any, _name: str, event: _EventDict) -> _EventDict:
    raised = event.pop("exc_info", None)
    if raised is True:
        raised = sys.exc_info()
    error = raised[1] if isinstance(raised, tuple) else raised
    if isinstance(error, BaseException):
        event["exception"] = described(error, with_text=error_texts_are_shown())
    return event


def _limit(target: Any, _name: str, event: _EventDict) -> _EventDict:
    if event.pop(ALL, False):
        return event
    place = tuple(clipped(str(event[key]), 300) for key in _KIND_FIELDS if event.get(key) is not None)
    sentence = clipped(str(event.get("event")), 200)
    if event.get("level") != "debug" and not line_limit.lets_through(target.name, sentence, place):
        from structlog import DropEvent  # noqa: PLC0415  # it is loaded: this is called for a line

        raise DropEvent
    return event


def _bound(_logger: Any, _name: str, event: _EventDict) -> _EventDict:
    return bounded(event)


def _hand_over(target: Any, name: str, event: _EventDict) -> tuple[tuple[Fields], dict[str, Any]]:
    # As structlog's wrap_for_formatter, but the fields are readable also without a formatter of structlog.
    return (Fields(event),), {"extra": {"_logger": target, "_name": name}}
