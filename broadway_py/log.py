"""The library's loggers: structlog on top of the standard library, so that any application can place the output.

Every line is bounded in length and, by kind and minute, in number; the texts of errors are shown only where
:func:`show_error_texts` says so.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from itertools import islice
from typing import Any, Final, cast

import structlog

from broadway_py.error_text import clipped, described, error_texts_are_shown, show_error_texts
from broadway_py.limit import OTHER, PerMinute

__all__ = [
    "ALL",
    "MOST_LINE",
    "Fields",
    "LineLimit",
    "bounded",
    "carried_setup",
    "carry_setup",
    "error_texts_are_shown",
    "line_limit",
    "logger",
    "show_error_texts",
]

#: Bytes of a line, about.
MOST_LINE: Final = 8_192
_MOST_FIELDS: Final = 40
_MOST_ITEMS: Final = 30
_MOST_DEPTH: Final = 2
#: Characters that a value gets in any case, and the fields that are there in any case.
_LEAST: Final = 20
_ALWAYS: Final = frozenset({"event", "level", "logger", "timestamp", "worker"})
#: Characters of one value; of those that may hold a stack more.
_MOST_VALUE: Final = 1_000
_MOST_EVENT: Final = 4_096
_LONG: Final = frozenset({"event", "exception", "stack", "stacks", "reason"})

#: A field of this name takes a line out of the limit: it is limited already, or somebody has asked for all of it.
ALL: Final = "_all"
#: Lines of a kind in each minute, and how many kinds are told apart.
_LINES_PER_MINUTE: Final = 20
_MOST_KINDS: Final = 500
#: What tells two lines of the same sentence apart.
_KIND_FIELDS: Final = (
    "pipeline", "producer", "stage", "queue", "index", "worker", "exception", "at", "cause", "becomes", "action",
)  # fmt: skip


class _Carried:
    setup: Callable[[], None] | None = None


def carry_setup(setup: Callable[[], None]) -> None:
    """Have worker processes of callbacks call *setup*, which pickles, before anything else: it places their lines."""
    _Carried.setup = setup


def carried_setup() -> Callable[[], None] | None:
    """What :func:`carry_setup` was given last; None where the application places the output itself."""
    return _Carried.setup


_EventDict = MutableMapping[str, Any]
_Kind = tuple[str, str, tuple[str, ...]]


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger under the standard library's *name*.

    Level and handlers are the standard library's. ``structlog.stdlib.ProcessorFormatter`` on a handler renders the
    fields (``broadway run`` installs one); any other shows them behind the sentence.
    """
    wrapped = structlog.wrap_logger(
        logging.getLogger(name),
        wrapper_class=structlog.stdlib.BoundLogger,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_error,
            _limit,
            _bound,
            _hand_over,
        ],
    )
    return cast("structlog.stdlib.BoundLogger", wrapped)


class Fields(dict[str, Any]):
    """What a line says, by name; as text it is one readable line."""

    def __str__(self) -> str:
        rest = " ".join(f"{key}={_word(value)}" for key, value in self.items() if key not in _SAID_ELSEWHERE)
        return f"{self.get('event', '')}{' ' if rest else ''}{rest}"


# The record has its own time and level.
_SAID_ELSEWHERE: Final = frozenset({"event", "timestamp", "level"})


def _word(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    return repr(text) if not text.isprintable() or not text or any(sign in text for sign in " =\"'") else text


class LineLimit:
    """The lines of each kind in a minute: the first few are let through, the others told as a number.

    Safe to use from any thread.

    Args:
        now: the time, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.forget()

    def forget(self) -> None:
        """Begin anew; also for a forked child, whose threads are gone with whatever they held."""
        self._lock = threading.RLock()
        self._minutes: PerMinute[_Kind] = PerMinute(_LINES_PER_MINUTE, _MOST_KINDS, (__name__, OTHER, ()))

    def lets_through(self, name: str, event: str, place: tuple[str, ...]) -> bool:
        """True when one more line of logger *name*, saying *event*, about *place*, is to be written."""
        with self._lock:
            sums = list(self._minutes.over(self._now()))
            shown = self._minutes.note((name, event, place), self._now()) == "show"
        _tell(sums)
        return shown

    def sum_up(self, *, at_the_end: bool = False) -> None:
        """Write how many lines were left out in the minutes that are over, or *at_the_end*, in all."""
        with self._lock:
            sums = list(self._minutes.close() if at_the_end else self._minutes.over(self._now()))
        _tell(sums)


def _tell(sums: Iterable[tuple[_Kind, int]]) -> None:
    for (name, event, place), count in sums:
        fields: dict[str, Any] = {ALL: True, "line": event, "not_shown": count}
        if place:
            fields["about"] = " ".join(place)
        logger(name).warning("more lines of this kind were left out", **fields)


#: The one of this process.
line_limit: Final = LineLimit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=line_limit.forget)


def bounded(event: _EventDict, most: int = MOST_LINE) -> _EventDict:
    """Cut the values of *event* so that a line of them has about *most* characters."""
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
    """*value* as something small that any renderer can show."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is int:
        # Longer ones take the square of their length to write.
        return value if value.bit_length() < 1024 else "(a very long number)"  # type: ignore[attr-defined]  # an int
    if isinstance(value, str):
        return clipped(value, room)
    try:
        if depth < 3 and isinstance(value, Mapping):  # deeper is nothing for a line
            pairs = list(islice(value.items(), min(_MOST_ITEMS, room // _LEAST)))
            share = max(_LEAST, room // max(len(pairs), 1))
            return {clipped(str(key), 100): _cut(one, share, depth + 1) for key, one in pairs}
        if depth < 3 and isinstance(value, list | tuple):  # as above
            items = value[: min(_MOST_ITEMS, room // _LEAST)]
            share = max(_LEAST, room // max(len(items), 1))
            return [_cut(one, share, depth + 1) for one in items]
        if isinstance(value, Collection):
            # Bytes are payload; the others would be written whole before they are cut.
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
        raise structlog.DropEvent
    return event


def _bound(_logger: Any, _name: str, event: _EventDict) -> _EventDict:
    return bounded(event)


def _hand_over(target: Any, name: str, event: _EventDict) -> tuple[tuple[Fields], dict[str, Any]]:
    # As structlog's wrap_for_formatter, with fields that read well where no formatter of structlog is installed.
    return (Fields(event),), {"extra": {"_logger": target, "_name": name}}
