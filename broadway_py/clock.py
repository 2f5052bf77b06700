"""The two clocks: one that only runs forward, for waiting, and one that people read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A call that has been asked for and may still be called off."""

    def cancel(self) -> None:
        """Call it off. Cancelling twice, or after it ran, does nothing."""


class Clock(Protocol):
    """Everything the library knows about time. Time-outs, rates and back-off use :meth:`monotonic` alone."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""

    def wall(self) -> float:
        """Seconds since 1970, as people read it; only for what is stored or shown."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Run *callback* in the event loop once :meth:`monotonic` reaches *when*."""

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """``async with`` it: raises TimeoutError inside once *seconds* have passed; None never does."""


class SystemClock:
    """The machine's clocks and the running event loop's timers."""

    #: Seconds on the machine's monotonic clock, which the event loop uses too. The bare function: it is called several
    #: times for each chunk.
    monotonic = staticmethod(time.monotonic)

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """A timer of the running event loop."""
        loop = asyncio.get_running_loop()
        # uvloop keeps a clock of its own: only the distance is the same everywhere.
        return loop.call_later(max(0.0, when - time.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds*."""
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> asyncio.Timeout:
        """The standard library's time-out."""
        return asyncio.timeout(seconds)


SYSTEM_CLOCK = SystemClock()
