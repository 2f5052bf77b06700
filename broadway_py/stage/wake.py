"""The flag that a stage waits for. It is set when something that concerns the stage has changed."""

from __future__ import annotations

import asyncio

from broadway_py.clock import Clock, Timer

__all__ = ["Wake"]


class Wake:
    """A flag that one task waits for. A :meth:`set` before the wait is not lost; several of them count as one.

    It is cheaper than ``asyncio.Event``: it has no list of waiters, and setting it again costs one comparison.

    Code that runs for each list of events sets it, and ends a wait, through :attr:`future` and :attr:`is_set`.
    """

    __slots__ = ("_loop", "_timer", "_timer_at", "future", "is_set")

    def __init__(self) -> None:
        #: True if it was set while nobody waited.
        self.is_set = False
        #: What a task waits for; None while none waits.
        self.future: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: Timer | None = None
        self._timer_at = 0.0

    def set(self) -> None:
        """Sets the flag: something has changed."""
        future = self.future
        if future is None:
            self.is_set = True
        elif not future.done():
            future.set_result(None)

    def arm(self) -> asyncio.Future[None]:
        """Returns a future to await, which is done when :meth:`set` has been called since the last wait.

        After the wait, set :attr:`future` to None and :attr:`is_set` to False. This is what :meth:`wait` does, for a
        loop that waits once for each event. Nobody may use the flag after such a wait was cancelled.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self.future = future = self._loop.create_future()
        if self.is_set:
            future.set_result(None)
        return future

    async def wait(self) -> None:
        """Waits until :meth:`set` has been called since the last return."""
        if self.is_set:
            self.is_set = False
            return
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self.future = self._loop.create_future()
        future = self.future
        try:
            await future
        except asyncio.CancelledError:
            # If it was set and cancelled at the same time, the next wait must still see the set.
            self.is_set = future.done() and not future.cancelled()
            raise
        finally:
            self.future = None
        self.is_set = False

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
