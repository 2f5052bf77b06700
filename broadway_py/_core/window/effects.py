"""What the engine tells: which events go into which windows, which windows fire, merge and close. All in order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from broadway_py._core.window.firing import MISSING
from broadway_py._core.window.times import EventTime

__all__ = [
    "Add",
    "Close",
    "Effect",
    "Fire",
    "FireKeys",
    "FireLast",
    "FireOnTime",
    "KeyRecord",
    "Merge",
    "OpenWindow",
    "Peek",
    "SharedKeys",
    "SideOutput",
]


class KeyRecord:
    """What is kept of one key in a window that keys share. The shell keeps its accumulator in :attr:`state`.

    All of it is in one object. If there are very many keys, the look that finds the object takes longer than all else.
    """

    __slots__ = ("count", "key", "number", "state", "told")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        #: How many events it has.
        self.count = 0
        #: Of the shell: the accumulator; MISSING: it was not set yet.
        self.state: Any = MISSING
        #: The number of the last firing, and how many events it had then.
        self.number = 0
        self.told = 0


class _Records(dict[Hashable, KeyRecord]):
    """The records by key. One is made for a key that is not there."""

    __slots__ = ()

    def __missing__(self, key: Hashable) -> KeyRecord:
        record = self[key] = KeyRecord(key)
        return record


class SharedKeys:
    """What is kept of the keys that share a window, if each firing is for one of them."""

    __slots__ = ("changed", "firing", "is_early", "records")

    def __init__(self) -> None:
        #: The trigger of results on time that are left. They are of the keys that have never fired and have no news.
        self.firing: str | None = None
        #: True if a key has fired, or had news for a trigger, before the window was on time. It was perhaps in an
        #: earlier process.
        self.is_early = False
        #: The keys with events, in the order of their first ones.
        self.records = _Records()
        #: Those with events since their last firing, in the order of these events; kept only where it is needed.
        self.changed: dict[KeyRecord, None] = {}

    def count(self, keys: Sequence[Hashable]) -> list[KeyRecord]:
        """Counts an event for each of *keys*. Returns the record of each."""
        # Each record is looked up once, in a loop that the interpreter does not see.
        records = list(map(self.records.__getitem__, keys))
        for record in records:
            record.count += 1
        return records


class OpenWindow:
    """A window that is open. The shell keeps its accumulator in :attr:`state`."""

    __slots__ = (
        "changed",
        "closed",
        "count",
        "end",
        "first_start",
        "index",
        "key",
        "number",
        "on_time",
        "replaces",
        "serial",
        "shared",
        "since_trigger",
        "start",
        "state",
        "trigger_state",
    )

    def __init__(
        self, serial: int, start: int | None, end: int | None, *, key: Hashable, index: int | None, is_shared: bool
    ) -> None:
        #: Counts the windows of an engine in the order in which they were opened.
        self.serial = serial
        #: The bounds in microseconds. Those of a session move.
        self.start = start
        self.end = end
        #: The start of a session when it was opened; None for other kinds.
        self.first_start: int | None = None
        self.key = key
        self.index = index
        #: Of the shell: the accumulator. Of a shared window, the records of the keys have it.
        self.state: Any = None
        #: How many events it has, and how many came since the last count trigger.
        self.count = 0
        self.since_trigger = 0
        self.trigger_state: Any = None
        #: The number of the last firing.
        self.number = 0
        #: The ids of the sessions that have fired and then went into this one.
        self.replaces: tuple[str, ...] = ()
        #: True if events came since the last firing. Of a shared window, the keys say it.
        self.changed = False
        #: True if the watermark has passed the end.
        self.on_time = False
        self.closed = False
        #: None if the window is not shared by keys.
        self.shared = SharedKeys() if is_shared else None

    @property
    def id(self) -> str:
        """What names the window among all of its engine and its key. It never changes, also not over restarts."""
        if self.first_start is not None:
            return f"{self.first_start}.{self.serial}"
        if self.start is not None:
            return f"{self.start}_{self.end}"
        return str(self.serial if self.index is None else self.index)

    @property
    def order(self) -> tuple[int, int, int]:
        """The order in which windows that close together do so: by end, by start, as they were opened."""
        return self.end or 0, self.start or 0, self.serial


@dataclass(slots=True, eq=False)
class Add:
    """Each of *events*, one after the other, goes into each of *windows*."""

    windows: tuple[OpenWindow, ...]
    events: Sequence[Any]
    #: The key of each event; None if the engine was not given any.
    keys: Sequence[Hashable] | None
    #: For each of the windows, the record of each event's key. Empty if keys do not share the windows.
    records: tuple[Sequence[KeyRecord], ...] = ()


@dataclass(slots=True, eq=False)
class Fire:
    """The result of *window*, which keys do not share, is due. ``Engine.describe`` makes it a Firing."""

    window: OpenWindow
    key: Hashable
    trigger: str
    number: int
    final: bool
    count: int
    #: The bounds in microseconds. Those of the window may have moved since.
    start: int | None
    end: int | None
    #: The ids of the windows of this key that have fired and then went into this one.
    replaces: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class FireKeys:
    """Results of keys that share *window* are due. It stays open."""

    window: OpenWindow
    trigger: str
    #: The record of each key, with its events and the number of this firing. By now the record may have more of both.
    fired: list[tuple[KeyRecord, int, int]]


@dataclass(slots=True, eq=False)
class FireOnTime:
    """The results on time of the keys that share *window* are due. The shell takes them with :meth:`take`, in parts.

    The window stays open. A key that gets an event before its turn fires at once, with a :class:`FireKeys`. So do those
    that are left when the window closes: forget this then.
    """

    window: OpenWindow
    trigger: str
    #: The keys that have not fired before.
    records: list[KeyRecord]
    _taken: int = 0

    def __len__(self) -> int:
        """Returns how many results are left, with those that were given meanwhile."""
        return len(self.records) - self._taken

    def take(self, most: int) -> list[KeyRecord]:
        """Goes on by *most* keys. Returns the records of those that had not fired meanwhile; they fire now."""
        shared = self.window.shared
        if shared is None:
            raise TypeError("only a window that keys share gives its results on time in parts")
        part = self.records[self._taken : self._taken + most]
        self._taken += len(part)
        taken = [record for record in part if not record.number]
        for record in taken:
            record.number = 1
            record.told = record.count
        if not self:
            shared.firing = None
        return taken


@dataclass(slots=True, eq=False)
class FireLast:
    """The last results of the keys that share *window* are due. The shell takes them with :meth:`take`, in parts.

    The window is closed before the first part: nothing about it changes any more. With the last part it is forgotten,
    with its accumulators: no :class:`Close` follows.
    """

    window: OpenWindow
    trigger: str
    #: Only keys with events since their last firing have a result.
    only_news: bool

    def __len__(self) -> int:
        """Returns how many results are left."""
        shared = self._shared()
        return len(shared.changed if self.only_news else shared.records)

    def take(self, most: int) -> list[KeyRecord]:
        """Takes out the records of the next keys, at most so many. Their numbers are those of this firing."""
        shared = self._shared()
        taken: list[KeyRecord]
        # What is taken out is not freed all at once at the end.
        if self.only_news:
            taken = list(islice(shared.changed, most))
            for record in taken:
                del shared.changed[record], shared.records[record.key]
        else:
            taken = list(map(shared.records.pop, list(islice(shared.records, most))))
        for record in taken:
            record.number += 1
        return taken

    def skip(self, keys: Sequence[Hashable]) -> None:
        """Takes out *keys*, whose results were there before."""
        shared = self._shared()
        for key in keys:
            record = shared.records.pop(key, None)
            if record is not None:
                shared.changed.pop(record, None)

    def _shared(self) -> SharedKeys:
        if self.window.shared is None:
            raise TypeError("only a window that keys share gives its last results in parts")
        return self.window.shared


@dataclass(slots=True, eq=False)
class Merge:
    """The accumulator of the session *absorbed*, which is the later one, goes into that of *window*."""

    window: OpenWindow
    absorbed: OpenWindow


@dataclass(slots=True, eq=False)
class Close:
    """*window* is forgotten, with its accumulator. Nothing more follows for it."""

    window: OpenWindow


@dataclass(slots=True, eq=False)
class SideOutput:
    """*event* goes into no window: it is late, or lies too far ahead of the clock."""

    event: Any
    time: EventTime
    cause: Literal["late", "future_event_time"]


@dataclass(frozen=True, slots=True)
class Peek:
    """What an event would do to the windows of its key."""

    #: Why it would go to the side; None if it would not.
    cause: Literal["late", "future_event_time"] | None = None
    #: The open windows into which it would go, by their start. It merges sessions if there are several: the later ones
    #: go into the first one, and then the event does.
    joins: tuple[OpenWindow, ...] = ()
    #: How many windows would be opened for it.
    opens: int = 0


Effect = Add | Fire | FireKeys | FireOnTime | FireLast | Merge | Close | SideOutput
