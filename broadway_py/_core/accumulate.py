"""Demand and events that a stage holds back, to be replayed one by one in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from broadway_py._core.buffer import Keep

__all__ = ["Accumulated"]

E = TypeVar("E")


class Accumulated(Generic[E]):
    """What came while the demand of a producer is accumulated.

    Args:
        size: the most events that are held; None for no limit.
        keep: which events stay when there are more, as in a :class:`~broadway_py._core.buffer.Buffer`.
    """

    def __init__(self, size: int | None, keep: Keep) -> None:
        self._size = size
        self._keep = keep
        self._entries: deque[int | list[E]] = deque()
        self.events = 0

    def ask(self, count: int) -> None:
        """Holds a demand for *count* events."""
        self._entries.append(count)

    def emit(self, events: Sequence[E]) -> int:
        """Holds *events*. Returns how many events were discarded, because there are too many."""
        excess = 0 if self._size is None else max(0, self.events + len(events) - self._size)
        kept = list(events)
        if excess and self._keep == "first":
            del kept[max(0, len(kept) - excess) :]
        elif excess:
            old = min(excess, self.events)
            self._drop_oldest(old)
            del kept[: excess - old]
        if kept:
            self._entries.append(kept)
            self.events += len(kept)
        return excess

    def _drop_oldest(self, count: int) -> None:
        self.events -= count
        entries = self._entries
        demands: list[int | list[E]] = []
        while count:
            entry = entries.popleft()
            if isinstance(entry, int):
                demands.append(entry)
            elif len(entry) > count:
                del entry[:count]
                entries.appendleft(entry)
                count = 0
            else:
                count -= len(entry)
        entries.extendleft(reversed(demands))

    def __bool__(self) -> bool:
        """Returns True while anything is held."""
        return bool(self._entries)

    def replay_next(self) -> int | list[E]:
        """Removes and returns the oldest entry: a demand is a number, a list holds the events of one :meth:`emit`."""
        entry = self._entries.popleft()
        if not isinstance(entry, int):
            self.events -= len(entry)
        return entry
