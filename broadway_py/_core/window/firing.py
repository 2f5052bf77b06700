"""The result of a window, as users see it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from broadway_py._core.window.shape import Kind
from broadway_py._core.window.times import EventTime

__all__ = ["MISSING", "Firing"]


class _Missing(Enum):
    """What stands for an accumulator that is not there."""

    MISSING = "MISSING"


MISSING: Final = _Missing.MISSING


@dataclass(frozen=True, slots=True)
class Firing:
    """One result of a window: which window it is, and why its result comes now."""

    #: The kind of the window.
    kind: Kind
    #: The bounds in event time, in the kind that came in. The end is exclusive. A periodic window has its bounds by the
    #: clock, in seconds. Count windows and global ones have none.
    start: EventTime | None
    end: EventTime | None
    #: The number of a count window or periodic window, from 0; else None.
    index: int | None
    #: The key of a session in Flow, and of each window in aggregators; else None.
    key: Any
    #: Why it fires. ``every``, ``periodic`` and the names of a trigger function: before its end. In Flow also
    #: ``watermark`` (on time) and ``done`` (closed). In aggregators ``watermark``, ``gap``, ``count``, ``periodic`` or
    #: ``end``, by what ended the window, and ``late`` for a repetition with events that came after that.
    trigger: str
    #: Counts the firings of the window from 1.
    number: int
    #: True if the window is closed with this firing.
    final: bool
    #: How many events are in the window.
    count: int
