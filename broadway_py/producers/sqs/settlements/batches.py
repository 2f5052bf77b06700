"""Settlements collected to batches, and what follows when one did not work out: decided without a loop or a clock."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import Final, Generic, TypeVar

from broadway_py.producers.sqs.settlements.pending_settlement import Fate

__all__ = ["LINGER_S", "MOST_ENTRIES", "Batches", "retry_delay"]

E = TypeVar("E")

#: What SQS takes in one batch.
MOST_ENTRIES: Final = 10
#: How long the first entry of a batch waits for others, in seconds.
LINGER_S: Final = 0.04
#: Ceilings of the delay before an entry is tried again, in seconds.
_FIRST_DELAY_S: Final = 0.2
_MOST_DELAY_S: Final = 5.0


class Batches(Generic[E]):
    """Collects entries: ten leave at once, fewer when the oldest has waited long enough.

    Every entry that was added comes back exactly once, from :meth:`due`.
    """

    def __init__(self, linger_s: float = LINGER_S) -> None:
        self._linger_s = linger_s
        # Each with the moment at which it leaves at the latest; the oldest first.
        self._waiting: deque[tuple[float, E]] = deque()
        self._later: list[tuple[float, int, E]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._later)

    def add(self, entry: E, now: float) -> None:
        """Take in one more."""
        self._waiting.append((now + self._linger_s, entry))

    def again(self, entry: E, when: float) -> None:
        """Take in one that is to be tried again, not before *when*."""
        heapq.heappush(self._later, (when, next(self._order), entry))

    def due(self, now: float, *, flush: bool = False) -> list[list[E]]:
        """The batches that leave now; with *flush* also those that could wait for company."""
        waiting = self._waiting
        again = []
        while self._later and self._later[0][0] <= now:
            when, _, entry = heapq.heappop(self._later)
            again.append((when, entry))
        # They have waited already: whatever is there leaves with them.
        waiting.extendleft(reversed(again))
        leaving = []
        while len(waiting) >= MOST_ENTRIES or (waiting and (flush or now >= waiting[0][0])):
            leaving.append([waiting.popleft()[1] for _ in range(min(MOST_ENTRIES, len(waiting)))])
        return leaving

    def next_due(self) -> float | None:
        """When :meth:`due` has something again, if nothing is added."""
        moments = ([self._waiting[0][0]] if self._waiting else []) + ([self._later[0][0]] if self._later else [])
        return min(moments, default=None)


def retry_delay(kind: Fate, tries: int, now: float, give_up_at: float, spread: float) -> float | None:
    """Seconds until an entry that failed for the *tries*-th time is tried again; None: its outcome is unknown.

    Args:
        kind: the trouble. What SQS refused, or no longer knows, is not tried again.
        tries: how often it was tried.
        now: the time.
        give_up_at: when it is too late, because others may have the message.
        spread: the jitter, from 0 to 1.
    """
    if kind not in ("away", "busy", "expired"):
        return None
    ceiling = min(_MOST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(tries - 1, 60))
    delay = ceiling * (1.0 + spread) / 2.0
    return delay if now + delay < give_up_at else None
