"""The two clocks: the monotonic clock, for waiting, and the wall clock, for people."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A call that is planned and can still be cancelled."""

    def cancel(self) -> None:
        """Cancels the call. Cancelling twice, or after it ran, does nothing."""


class Clock(Protocol):
    """The only source of time in the library. Time-outs, rates and back-off use only :meth:`monotonic`."""

    def monotonic(self) -> float:
        """Returns the seconds of a clock that never jumps."""

    def wall(self) -> float:
        """Returns the seconds since 1970. Use it only for what is stored or shown."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Runs *callback* in the event loop once :meth:`monotonic` reaches *when*."""

    async def sleep(self, seconds: float) -> None:
        """Waits for *seconds*."""

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Returns a context for ``async with``. It raises TimeoutError inside after *seconds*; None: never."""


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    #: Returns the seconds of the machine's monotonic clock, which the event loop uses too. It is the bare function,
    #: for speed: it is called several times for each chunk.
    monotonic = staticmethod(time.monotonic)

    def wall(self) -> float:
        """Returns the seconds since 1970."""
        return time.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Returns a timer of the running event loop."""
        loop = asyncio.get_running_loop()
        # uvloop has a clock of its own, so its times differ; only the distance between two times is the same.
        return loop.call_later(max(0.0, when - time.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        """Waits for *seconds*."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """Returns a time-out of the standard library."""
        return asyncio.timeout(seconds)


SYSTEM_CLOCK = SystemClock()
