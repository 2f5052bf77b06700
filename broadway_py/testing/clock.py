"""A clock that moves only when the test moves it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections.abc import Awaitable, Callable

from broadway_py.clock import Timer
from broadway_py.testing.quiet import settle

__all__ = ["FakeClock", "settle"]


class _FakeTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


def _nobody() -> None:
    """Tells nobody that a thread is blocked."""


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
        self._blocked: set[threading.Event] = set()
        # Called in each thread that is about to be blocked.
        self._note_blocked: Callable[[], object] = _nobody
        # Awaited before each timer and after it. A harness waits here for what is outside of the event loop, too.
        self._settle: Callable[[], Awaitable[None]] = settle

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

    def block(self, seconds: float) -> None:
        """Blocks the calling thread until the clock has been advanced by *seconds*. For what a plain function calls.

        Raises:
            RuntimeError: the thread has an event loop, which would stand still, too.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("block() would stop the event loop, and with it the clock: await clock.sleep(…)")
        reached = threading.Event()
        self._blocked.add(reached)
        self.call_at(self._now + seconds, lambda: self._unblock(reached))
        self._note_blocked()
        reached.wait()

    def _unblock(self, reached: threading.Event) -> None:
        # At once, in the thread of the loop: from here on the blocked thread counts as one that works.
        self._blocked.discard(reached)
        reached.set()

    @property
    def blocked(self) -> int:
        """Returns how many threads wait in :meth:`block`."""
        return len(self._blocked)

    def unblock_all(self) -> None:
        """Ends all calls of :meth:`block`, so that their threads can end."""
        for reached in list(self._blocked):
            self._unblock(reached)

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
        await self._settle()
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self._move_to(max(self._now, when))
            timer.callback()
            await self._settle()
        self._move_to(end)
        await self._settle()

    def _move_to(self, now: float) -> None:
        self._wall += now - self._now
        self._now = now
