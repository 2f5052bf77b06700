"""How a stage waits: for one thing only, that something of its own has changed."""

from __future__ import annotations

import asyncio

from broadway_py.clock import Clock, Timer

__all__ = ["Wake"]


class Wake:
    """A flag that one task waits for. A :meth:`set` that came before the wait is not lost; many count as one.

    Cheaper than ``asyncio.Event``: no list of waiters, and setting it again costs a comparison.
    """

    __slots__ = ("_future", "_is_set", "_loop", "_timer", "_timer_at")

    def __init__(self) -> None:
        self._is_set = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._future: asyncio.Future[None] | None = None
        self._timer: Timer | None = None
        self._timer_at = 0.0

    def set(self) -> None:
        """Something has changed."""
        future = self._future
        if future is None:
            self._is_set = True
        elif not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        """Return once :meth:`set` was called since the last return."""
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
            # Set and cancelled at once: the next wait must not miss it.
            self._is_set = future.done() and not future.cancelled()
            raise
        finally:
            self._future = None
        self._is_set = False

    async def wait_until(self, deadline: float | None, clock: Clock) -> None:
        """As :meth:`wait`, but return at *deadline* (of the clock's ``monotonic``) at the latest; it may be early."""
        if deadline is not None and (self._timer is None or deadline < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            # A timer is left running when the deadline moves later, which on a busy batcher is always: it wakes the
            # stage once too often instead of costing a new timer for each batch.
            self._timer_at = deadline
            self._timer = clock.call_at(deadline, self._ring)
        await self.wait()

    def _ring(self) -> None:
        self._timer = None
        self.set()

    def close(self) -> None:
        """Call off the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
