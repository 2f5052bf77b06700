"""Helpers for tests of pipelines: a clock that moves only when the test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable

from broadway_py.clock import Timer

__all__ = ["FakeClock"]


class _FakeTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A :class:`broadway_py.clock.Clock` whose time passes only in :meth:`advance`.

    Args:
        monotonic: the first time of the monotonic clock, in seconds.
        wall: the first time of the wall clock, in seconds since 1970.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = monotonic
        self._wall = wall
        self._order = itertools.count()
        self._timers: list[tuple[float, int, _FakeTimer]] = []

    def monotonic(self) -> float:
        """Returns the monotonic time in seconds; it moves only with :meth:`advance`."""
        return self._now

    def wall(self) -> float:
        """Returns the seconds since 1970; they move with :meth:`advance` and with :meth:`step_wall`."""
        return self._wall

    def step_wall(self, seconds: float) -> None:
        """Moves the wall clock forward or back by *seconds*, as an administrator would."""
        self._wall += seconds

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Runs *callback* inside the :meth:`advance` that reaches *when*."""
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Waits until the clock has been advanced by *seconds*."""
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_at(self._now + seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Returns a time-out that follows this clock."""
        scope = asyncio.timeout(None)
        if seconds is not None:
            self.call_at(self._now + seconds, lambda: self._expire(scope))
        return scope

    @staticmethod
    def _expire(scope: asyncio.Timeout) -> None:
        try:
            scope.reschedule(asyncio.get_running_loop().time())
        except RuntimeError:
            return  # the block was left in time

    async def advance(self, seconds: float) -> None:
        """Lets *seconds* pass. Timers fire in order; the tasks that a timer wakes run before the next timer fires."""
        end = self._now + seconds
        await settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self._move_to(max(self._now, when))
            timer.callback()
            await settle()
        self._move_to(end)
        await settle()

    def _move_to(self, now: float) -> None:
        self._wall += now - self._now
        self._now = now


async def settle(rounds: int = 60) -> None:
    """Lets the tasks of the event loop run until they wait for something outside the loop."""
    for _ in range(rounds):
        await asyncio.sleep(0)
