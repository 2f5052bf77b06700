"""Results that lie in the state file and wait for ``emit``: which are handed over next, and what follows a failure."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from broadway_py._core.aggregation.outcome import Results

__all__ = ["DueResult", "PendingResults"]

#: The wait after a failure doubles from the first to the most, in seconds.
_FIRST_S: Final = 0.1
_MOST_S: Final = 30.0
#: If so many calls in a row fail during the last tries, the place that the results go to is away.
_MOST_LAST_FAILURES: Final = 100


@dataclass(slots=True, eq=False)
class DueResult:
    """A committed result that ``emit`` has not taken."""

    #: Its place among all results of the aggregator. Results are handed over in this order.
    sequence: int
    #: The window and key that it belongs to. Firings of one window are handed over one after the other.
    window_id: str
    #: The result as it lies in the state file; empty if :attr:`results` has it.
    data: bytes
    #: The version of its value.
    version: int
    #: What it is one of, if nobody can change its value. Then it need not be read from :attr:`data`.
    results: Results | None = None
    #: How often it failed alone.
    failures: int = 0


class PendingResults:
    """The results that wait for ``emit``, of which one call runs at a time.

    A list that fails is tried one by one. A result that fails alone waits with a growing back-off, and only the later
    firings of its window wait for it. If others are there, each second call is for them. While nothing succeeds, all
    calls wait with a growing back-off: then the place that the results go to is away.

    Args:
        most: how many results one call gets at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._ready: deque[DueResult] = deque()
        # Of a list that failed: to be tried one by one.
        self._alone: deque[DueResult] = deque()
        # Failed alone: when each may be tried again.
        self._later: list[tuple[float, int, DueResult]] = []
        # True after a call with one of them. Then it is the turn of the others, and the reverse.
        self._has_retried = False
        # The windows with a result in one of the two, and the later firings of each, which wait for it.
        self._stuck: dict[str, list[DueResult]] = {}
        self._emitted: list[int] = []
        self._failures_in_a_row = 0
        self._not_before = float("-inf")
        # True once there is one more try for each result.
        self._are_last_tries = False
        #: How many calls failed.
        self.failed_calls = 0

    def __len__(self) -> int:
        return self._count

    @property
    def failing(self) -> int:
        """How many results failed and wait to be tried again, alone."""
        return len(self._alone) + len(self._later)

    @property
    def ready(self) -> int:
        """How many results wait for nothing but their turn: neither failed ones nor later firings of their windows."""
        return len(self._ready)

    @property
    def has_emitted(self) -> bool:
        """True if results were taken by ``emit``, or dropped, that still lie in the state file."""
        return bool(self._emitted)

    def add(self, results: Sequence[DueResult]) -> None:
        """Adds committed *results*, in their order. They come after all that were added before."""
        self._count += len(results)
        self._ready.extend(results)

    def begin_last_tries(self) -> None:
        """Gives each result one more try, without a pause, those first that have not failed. No call may run.

        From now on, a result that fails alone is not taken again, nor are later firings of its window. After 100 calls
        in a row that failed, none is. All these still count as pending. So it is with results that are added later.
        """
        if self._are_last_tries:
            return
        self._are_last_tries = True
        self._not_before = float("-inf")
        self._failures_in_a_row = 0
        self._alone.extend(sorted((one[-1] for one in self._later), key=_sequence))
        self._later.clear()

    @property
    def has_given_up(self) -> bool:
        """True if there are results, and none of them will be taken any more, because all have had their last try."""
        if not self._are_last_tries or not self._count:
            return False
        return self._is_away or not (self._alone or self._ready)

    @property
    def _is_away(self) -> bool:
        return self._are_last_tries and self._failures_in_a_row >= _MOST_LAST_FAILURES

    def take(self, now: float) -> list[DueResult]:
        """Takes out and returns the results for the next call; none if it is not time for one.

        After the call, tell :meth:`succeeded` or :meth:`failed`.
        """
        if now < self._not_before or self._is_away:
            return []
        if self._alone and not (self._are_last_tries and self._ready):
            return [self._alone.popleft()]
        self._has_retried = self._is_turn_of_retry(now)
        if self._has_retried:
            return [heapq.heappop(self._later)[2]]
        ready = self._ready
        if not self._stuck:
            return [ready.popleft() for _ in range(min(self._most, len(ready)))]
        taken: list[DueResult] = []
        while ready and len(taken) < self._most:
            result = ready.popleft()
            waiting = self._stuck.get(result.window_id)
            if waiting is None:
                taken.append(result)
            else:
                waiting.append(result)
        return taken

    def next_call(self, now: float) -> float | None:
        """Returns when :meth:`take` may have results again; None if only new results change that."""
        if self.has_given_up:
            return None
        if self._alone or self._ready:
            return max(now, self._not_before)
        return max(self._later[0][0], self._not_before) if self._later else None

    def is_retry(self, now: float) -> bool:
        """Returns True if :meth:`take` would return a result that has failed before."""
        return now >= self._not_before and (bool(self._alone) or self._is_turn_of_retry(now))

    def _is_turn_of_retry(self, now: float) -> bool:
        if not self._later or self._later[0][0] > now:
            return False
        # A call that fails alone puts off all calls until it may be tried again. So the others have a turn between.
        return not (self._has_retried and self._ready)

    def drop(self, unwanted: Collection[int]) -> int:
        """Takes out for good those results that have the sequence numbers *unwanted*. No call may run.

        They count as emitted: the next checkpoint removes them. The later firings of their windows wait no longer.

        Returns:
            How many there were. Numbers of other results are ignored.
        """
        if not unwanted:
            return 0
        gone: list[DueResult] = []

        def stays(result: DueResult) -> bool:
            if result.sequence not in unwanted:
                return True
            gone.append(result)
            return False

        self._alone = deque(filter(stays, self._alone))
        self._later = [one for one in self._later if stays(one[-1])]
        heapq.heapify(self._later)
        self._let_go(gone)
        self._ready = deque(filter(stays, self._ready))
        for waiting in self._stuck.values():
            waiting[:] = filter(stays, waiting)
        self._count -= len(gone)
        self._emitted += [result.sequence for result in gone]
        return len(gone)

    def succeeded(self, taken: Sequence[DueResult]) -> None:
        """Notes that ``emit`` has taken these results."""
        self._failures_in_a_row = 0
        self._not_before = float("-inf")
        self._count -= len(taken)
        self._emitted += [result.sequence for result in taken]
        if not self._stuck:
            return
        self._let_go(taken)

    def _let_go(self, done: Sequence[DueResult]) -> None:
        """Lets the later firings of the windows of *done* wait no longer."""
        freed = [waiting for result in done for waiting in self._stuck.pop(result.window_id, ())]
        if freed:
            self._ready = deque(heapq.merge(sorted(freed, key=_sequence), self._ready, key=_sequence))

    def failed(self, taken: Sequence[DueResult], now: float) -> None:
        """Notes that ``emit`` raised for these results, or did not return in time."""
        self.failed_calls += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row > 1 and not self._are_last_tries:
            # The first failure is followed at once by the first try of a single result.
            self._not_before = now + _wait_s(self._failures_in_a_row - 1)
        if len(taken) == 1:
            result = taken[0]
            result.failures += 1
            self._stuck.setdefault(result.window_id, [])
            wait_s = float("inf") if self._are_last_tries else _wait_s(result.failures)
            heapq.heappush(self._later, (now + wait_s, result.sequence, result))
            return
        for result in taken:
            waiting = self._stuck.get(result.window_id)
            if waiting is None:
                self._stuck[result.window_id] = []
                self._alone.append(result)
            else:
                waiting.append(result)

    def keep_emitted(self, emitted: Sequence[int]) -> None:
        """Takes back what :meth:`pop_emitted` returned, because there is no checkpoint."""
        self._emitted[:0] = emitted

    def pop_emitted(self) -> list[int]:
        """Returns the sequence numbers that ``emit`` took, and that were dropped, since the last call.

        The next checkpoint removes them.
        """
        emitted, self._emitted = self._emitted, []
        return emitted


def _sequence(result: DueResult) -> int:
    return result.sequence


def _wait_s(failures: int) -> float:
    return float(min(_MOST_S, _FIRST_S * 2.0 ** min(failures - 1, 60)))
