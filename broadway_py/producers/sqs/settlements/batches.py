"""Collects settlements into batches. It uses no event loop and no clock."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Final, Generic, TypeVar

from broadway_py.producers.sqs.requests.batch_entries import MOST_ENTRIES

__all__ = ["LINGER_S", "Batches"]

E = TypeVar("E")

#: How long the first entry of a batch waits for others, in seconds.
LINGER_S: Final = 0.04


class Batches(Generic[E]):
    """Collects entries. Ten go out at once; fewer go out when the oldest has waited long enough.

    :meth:`due` returns every added entry exactly once.
    """

    def __init__(self, linger_s: float = LINGER_S) -> None:
        self._linger_s = linger_s
        # Each entry with its latest time to go out; the oldest first.
        self._waiting: deque[tuple[float, E]] = deque()
        self._later: list[tuple[float, int, E]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._later)

    def add(self, entry: E, now: float) -> None:
        """Adds an entry."""
        self._waiting.append((now + self._linger_s, entry))

    def again(self, entry: E, when: float) -> None:
        """Adds an entry that is to be tried again, not before *when*."""
        heapq.heappush(self._later, (when, next(self._order), entry))

    def due(self, now: float, *, flush: bool = False) -> list[list[E]]:
        """Returns the batches that go out now; with *flush* also those that are not full."""
        waiting = self._waiting
        again = []
        while self._later and self._later[0][0] <= now:
            when, _, entry = heapq.heappop(self._later)
            again.append((when, entry))
        # They have waited already, so they go out now, with whatever else is there.
        waiting.extendleft(reversed(again))
        leaving = []
        while len(waiting) >= MOST_ENTRIES or (waiting and (flush or now >= waiting[0][0])):
            leaving.append([waiting.popleft()[1] for _ in range(min(MOST_ENTRIES, len(waiting)))])
        return leaving

    def next_due(self) -> float | None:
        """Returns when :meth:`due` has something again, if nothing is added; None: never."""
        moments = ([self._waiting[0][0]] if self._waiting else []) + ([self._later[0][0]] if self._later else [])
        return min(moments, default=None)
