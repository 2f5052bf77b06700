"""The flag that a stage waits for. It is set when something that concerns the stage has changed."""

from __future__ import annotations

import asyncio

from broadway_py.clock import Clock, Timer

__all__ = ["Wake"]


class Wake:
    """A flag that one task waits for. A :meth:`set` before the wait is not lost; several of them count as one.

    It is cheaper than ``asyncio.Event``: it has no list of waiters, and setting it again costs one comparison.
    """

    __slots__ = ("_future", "_is_set", "_loop", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._is_set = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None
        self._timer: Timer | None = None
        self._timer_at = 0.0

    def set(self) -> None:
        """Sets the flag: something has changed."""
        future = self._future
        if future is None:
            self._is_set = True
        elif not future.done():
            future.set_result(None)

    def arm(self) -> asyncio.Future[None]:
        """Returns a future that is done when :meth:`set` has been called since the last wait. Then call :meth:`disarm`.

        This does what :meth:`wait` does, for a loop that waits once for each event. Nobody may use the flag after the
        wait was cancelled.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._future = future = self._loop.create_future()
        if self._is_set:
            future.set_result(None)
        return future

    def disarm(self) -> None:
        """Ends a wait for the future of :meth:`arm`."""
        self._future = None
        self._is_set = False

    async def wait(self) -> None:
        """Waits until :meth:`set` has been called since the last return."""
        if self._is_set:
            self._is_set = False
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()
        future = self._future
        try:
            await future
        except asyncio.CancelledError:
            # If it was set and cancelled at the same time, the next wait must still see the set.
            self._is_set = future.done() and not future.cancelled()
            raise
        finally:
            self._future = None
        self._is_set = False

    async def wait_until(self, deadline: float | None, clock: Clock) -> None:
        """Waits as :meth:`wait`, at most until *deadline* (by the clock's ``monotonic``). It may return early."""
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            # The old timer keeps running when the deadline moves later, which happens all the time on a busy batcher.
            # It wakes the stage once too often, but this is cheaper than a new timer for each batch.
            self._timer_at = deadline
            self._timer = clock.call_at(deadline, self._ring)
        await self.wait()

    def _ring(self) -> None:
        self._timer = None
        self.set()

    def close(self) -> None:
        """Cancels the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
