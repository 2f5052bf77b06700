"""What an aggregation tells: what became of events, which results are due, what a checkpoint must store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broadway_py._core.aggregation.changes import Entry, Part
from broadway_py._core.window.times import EventTime, Stamped

__all__ = ["Added", "Checkpoint", "Results"]


@dataclass(slots=True, eq=False)
class Results:
    """What a window has to say of one key or of several, as it was when the window fired."""

    #: The number of the first of them among the results of the aggregator, from 1. The others follow it.
    sequence: int
    #: Names the window among those of a key, for ever. The id of a result is made of it and the key.
    window: str
    #: The bounds in microseconds; None for count windows.
    start: int | None
    end: int | None
    trigger: str
    is_last: bool
    #: The windows of the key that had fired before they went into this one.
    replaces: tuple[str, ...]
    #: Each key, how many events are in its value, the number of this result among those of the window and key, from 1,
    #: and the value.
    entries: list[Entry]


@dataclass(slots=True, eq=False)
class Added:
    """What became of a list of events."""

    #: Those that are in windows now.
    added: list[Any]
    #: Those for which a function of the user raised. Nothing else has changed.
    failed: list[tuple[Any, BaseException]] = field(default_factory=list)
    #: Those whose windows have closed.
    late: list[Any] = field(default_factory=list)
    #: Those that lie too far ahead of the clock, with their times.
    ahead: list[tuple[Any, EventTime]] = field(default_factory=list)
    #: Those that are in windows now, with their times; None if windows have no event time.
    stamped: Stamped | None = None


@dataclass(slots=True, eq=False)
class Checkpoint:
    """What must be stored together, so that a restart goes on from here."""

    number: int
    #: What :meth:`Aggregation.restore` needs besides the parts.
    memory: dict[str, Any]
    parts: list[Part]
    #: Buckets, each with the number of the checkpoint before which its parts are needed no more.
    dropped: list[tuple[int, int]]
    results: list[Results]
