"""Keeps what an aggregator must store with its next checkpoint, and decides which stored parts are needed no more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice, repeat
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

from broadway_py._core.window.effects import KeyRecord, OpenWindow
from broadway_py._core.window.firing import MISSING
from broadway_py._core.window.keyed import KeyedEngine
from broadway_py._core.window.saved import SavedWindow, WindowFacts

__all__ = ["BUCKETS", "Changes", "Entry", "Part"]

#: A key, how many events it has, the number of its last firing, and its accumulator.
Entry = tuple[Any, int, int, Any]

#: Windows of one key each are stored in so many buckets, by a hash of their key.
BUCKETS: Final = 64

#: How many entries of a bucket one checkpoint stores again.
_MOST_REWRITTEN: Final = 2_000


@dataclass(slots=True, eq=False)
class Part:
    """Accumulators of one bucket that one checkpoint stores. A bucket is a window, or a share of the keys."""

    bucket: int
    entries: list[Entry] = field(default_factory=list)
    #: The window of the entries, if the keys share it, else the window of each entry.
    facts: list[WindowFacts] = field(default_factory=list)
    #: The places of the entries with events since their last firing. It is for windows that keys share.
    news: list[int] = field(default_factory=list)
    #: The serial numbers of windows of one key that have closed.
    closed: list[int] = field(default_factory=list)
    #: The end of the last closed session of a key.
    ended: list[tuple[Any, int]] = field(default_factory=list)
    #: The keys of a closed window, which they share, whose last results stand in this checkpoint. Others follow later.
    fired: list[Any] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How much there is to store."""
        return len(self.entries) + len(self.closed) + len(self.ended) + len(self.fired)


@dataclass(slots=True, eq=False)
class _Cycle:
    """A bucket that is stored again, a bounded part with each checkpoint."""

    bucket: int
    #: The number of the checkpoint with which it began. What earlier ones stored is not needed at its end.
    begin: int
    rows_before: int
    #: Windows with the records of their keys; None: the window is of one key.
    left: Iterator[tuple[OpenWindow, KeyRecord | None]]


class Changes:
    """What changed since the last checkpoint of one aggregator, and how much is stored of each bucket.

    Args:
        engine: the engine of the windows.
        key_json: a key as JSON.
        is_shared: the keys share the windows.
    """

    def __init__(self, engine: KeyedEngine, key_json: Callable[[Any], str], *, is_shared: bool) -> None:
        self._engine = engine
        self._key_json = key_json
        self._is_shared = is_shared
        # The records that have changed, of windows that keys share. Of a window of one key, only that it has changed.
        self._touched: dict[OpenWindow, dict[KeyRecord, None]] = {}
        self._closed: dict[int, list[int]] = {}
        self._newly_ended: dict[int, dict[Hashable, int]] = {}
        # All open windows of a bucket, and, of sessions, the keys whose last closed session is remembered.
        self._windows: dict[int, dict[OpenWindow, None]] = {}
        self._ended: dict[int, dict[Hashable, int]] = {}
        self._buckets: dict[OpenWindow, int] = {}
        # How many entries the stored parts of a bucket have.
        self._stored: dict[int, int] = {}
        # The buckets that a window has left, so that they may be empty now.
        self._left: set[int] = set()
        self._looked_at = 0
        self._overfull: deque[int] = deque()
        self._cycle: _Cycle | None = None
        # The closed windows that give their last results: the keys that the next checkpoint has the results of.
        self._firing: dict[OpenWindow, list[Hashable]] = {}

    @property
    def has_any(self) -> bool:
        """True if something changed since the last checkpoint."""
        return bool(self._touched or self._closed or self._newly_ended or self._left)

    def touched(self, window: OpenWindow) -> dict[KeyRecord, None]:
        """Returns the records of *window* that the next checkpoint stores, as they are then: enter what has changed.

        They must have accumulators. Of a window of one key nothing need be entered.
        """
        touched = self._touched.get(window)
        if touched is None:
            touched = self._touched[window] = {}
            if window not in self._buckets:
                self._open(window)
        return touched

    def fire_last(self, window: OpenWindow, records: Sequence[KeyRecord] = ()) -> None:
        """Notes that *window* gives its last results, and that the next checkpoint has those of *records*.

        What is stored of the window stays, with the keys that are done, until :meth:`close`.
        """
        if window not in self._buckets:
            self._open(window)
        self._firing.setdefault(window, []).extend(record.key for record in records)
        touched = self._touched.get(window, {})
        for record in records if touched else ():
            touched.pop(record, None)
        if self._cycle is not None and self._cycle.bucket == self._buckets[window]:
            self._cycle = None  # it leaves closed windows out, and so its end would remove this one

    def close(self, window: OpenWindow, *, is_merged: bool = False) -> None:
        """Notes that *window* is open no more. With *is_merged* it goes on as a part of another one."""
        self._touched.pop(window, None)
        self._firing.pop(window, None)
        bucket = self._buckets.pop(window, None)
        if bucket is None:
            return  # nothing of it was ever stored or noted
        del self._windows[bucket][window]
        self._left.add(bucket)
        if self._is_shared:
            return
        if bucket in self._stored:
            self._closed.setdefault(bucket, []).append(window.serial)
        if not is_merged and window.first_start is not None and window.end is not None:
            self._newly_ended.setdefault(bucket, {})[window.key] = window.end
            self._ended.setdefault(bucket, {})[window.key] = window.end

    # --- a checkpoint

    def take(self, number: int) -> tuple[list[Part], list[tuple[int, int]]]:
        """Returns the parts that the checkpoint *number* stores, and what is needed no more after it.

        The latter are buckets, each with the number of the checkpoint before which its parts are to be removed.
        """
        parts: dict[int, list[Part]] = {}
        for window, records in self._touched.items():
            self._add_to(parts, window, records)
        for window, fired in self._firing.items():
            if fired:
                bucket, facts = self._buckets[window], self._engine.saved(window).facts
                parts.setdefault(bucket, []).append(Part(bucket, facts=[facts], fired=fired))
                self._firing[window] = []
        for bucket, serials in self._closed.items():
            self._keyed_part(parts, bucket).closed += serials
        for bucket, ended in self._newly_ended.items():
            self._keyed_part(parts, bucket).ended += ended.items()
        touched = self._touched
        self._touched, self._closed, self._newly_ended = {}, {}, {}
        dropped = self._drop_empty(parts, number)
        self._rewrite(parts, dropped, number, touched)
        made = [part for of_bucket in parts.values() for part in of_bucket]
        for part in made:
            self._count(part)
        return made, dropped

    def _add_to(self, parts: dict[int, list[Part]], window: OpenWindow, records: Collection[KeyRecord]) -> None:
        bucket = self._buckets[window]
        if window.shared is None:
            part = self._keyed_part(parts, bucket)
            part.entries.append((window.key, window.count, window.number, window.state))
            part.facts.append(self._engine.saved(window).facts)
            return
        if not records:
            return
        entries = [(record.key, record.count, record.number, record.state) for record in records]
        part = Part(bucket, entries, [self._engine.saved(window).facts])
        changed = window.shared.changed
        if changed:
            part.news = [place for place, record in enumerate(records) if record in changed]
        parts.setdefault(bucket, []).append(part)

    def _keyed_part(self, parts: dict[int, list[Part]], bucket: int) -> Part:
        of_bucket = parts.setdefault(bucket, [])
        if not of_bucket:
            of_bucket.append(Part(bucket))
        return of_bucket[0]

    def _drop_empty(self, parts: dict[int, list[Part]], number: int) -> list[tuple[int, int]]:
        if not self._is_shared:
            # Keys are forgotten as time goes on, without a word. One bucket is looked at with each checkpoint.
            self._looked_at = (self._looked_at + 1) % BUCKETS
            self._left.add(self._looked_at)
        dropped: list[tuple[int, int]] = []
        for bucket in self._left:
            if self._ended.get(bucket):
                self._forget_ended(bucket)
            if self._windows.get(bucket) or self._ended.get(bucket):
                continue
            self._windows.pop(bucket, None)
            self._ended.pop(bucket, None)
            parts.pop(bucket, None)
            if self._stored.pop(bucket, None) is not None:
                dropped.append((bucket, number + 1))
            if self._cycle is not None and self._cycle.bucket == bucket:
                self._cycle = None
        self._left = set()
        return dropped

    def _forget_ended(self, bucket: int) -> None:
        remembered = self._engine.ended()
        kept = {key: end for key, end in self._ended[bucket].items() if remembered.get(key) == end}
        self._ended[bucket] = kept

    def _count(self, part: Part) -> None:
        bucket = part.bucket
        stored = self._stored[bucket] = self._stored.get(bucket, 0) + part.size
        is_cycling = self._cycle is not None and self._cycle.bucket == bucket
        if not is_cycling and bucket not in self._overfull and stored > 2 * self._living(bucket) + _MOST_REWRITTEN:
            self._overfull.append(bucket)

    def _living(self, bucket: int) -> int:
        windows = self._windows.get(bucket, {})
        if not self._is_shared:
            return len(windows) + len(self._ended.get(bucket, ()))
        return sum(0 if window.shared is None else len(window.shared.records) for window in windows)

    # --- storing again

    def _rewrite(
        self,
        parts: dict[int, list[Part]],
        dropped: list[tuple[int, int]],
        number: int,
        touched: Mapping[OpenWindow, Collection[KeyRecord]],
    ) -> None:
        """Adds a bounded number of entries of a bucket with too many stored ones. At its end, the former ones go.

        Those of *touched* are in *parts* already.
        """
        while self._cycle is None and self._overfull:
            bucket = self._overfull.popleft()
            if bucket in self._stored and not self._is_firing(bucket):
                self._cycle = _Cycle(bucket, number, self._stored[bucket], self._all_of(bucket))
                if self._ended.get(bucket):
                    self._forget_ended(bucket)
                    self._keyed_part(parts, bucket).ended = list(self._ended[bucket].items())
        cycle = self._cycle
        if cycle is None:
            return
        taken = list(islice(cycle.left, _MOST_REWRITTEN))
        for window, of_window in groupby(taken, itemgetter(0)):
            done = touched.get(window)
            if window.closed or (done is not None and window.shared is None):
                continue
            # The event that has begun a record may have failed meanwhile.
            self._add_to(
                parts,
                window,
                [
                    record
                    for _, record in of_window
                    if record is not None and record.state is not MISSING and (done is None or record not in done)
                ],
            )
        if len(taken) < _MOST_REWRITTEN:
            dropped.append((cycle.bucket, cycle.begin))
            self._stored[cycle.bucket] -= cycle.rows_before
            self._cycle = None

    def _is_firing(self, bucket: int) -> bool:
        return any(window in self._firing for window in self._windows.get(bucket, ()))

    def _all_of(self, bucket: int) -> Iterator[tuple[OpenWindow, KeyRecord | None]]:
        return chain.from_iterable(map(_with_records, list(self._windows.get(bucket, ()))))

    # --- restoring

    def restored(self, part: Part) -> None:
        """Notes that *part* was loaded from the store."""
        self._stored[part.bucket] = self._stored.get(part.bucket, 0) + part.size

    def reopened(self, window: OpenWindow) -> None:
        """Notes that *window* is open again, as it was stored."""
        if window not in self._buckets:
            self._open(window)

    def remembered(self, key: Hashable, end: int) -> None:
        """Notes that the last closed session of *key* had this *end*, as it was stored."""
        self._ended.setdefault(self._bucket_of(key), {})[key] = end

    @staticmethod
    def saved(part: Part) -> SavedWindow:
        """Returns the window of *part*, which keys share, as the engine takes it back."""
        news = set(part.news)
        keys = [(key, count, firing, place in news) for place, (key, count, firing, _) in enumerate(part.entries)]
        return SavedWindow(part.facts[0], keys=keys)

    def _open(self, window: OpenWindow) -> None:
        bucket = (window.start or 0) if self._is_shared else self._bucket_of(window.key)
        self._buckets[window] = bucket
        self._windows.setdefault(bucket, {})[window] = None

    def _bucket_of(self, key: Hashable) -> int:
        return crc32(self._key_json(key).encode(errors="surrogatepass")) % BUCKETS


def _with_records(window: OpenWindow) -> Iterable[tuple[OpenWindow, KeyRecord | None]]:
    """Returns *window* with each of its records; with None if it is of one key."""
    if window.shared is None:
        return [(window, None)]
    return zip(repeat(window), list(window.shared.records.values()), strict=False)  # repeat() does not end
