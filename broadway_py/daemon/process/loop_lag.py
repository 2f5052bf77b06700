"""Measures how late the event loop is. A high lag is the first sign of a handler that blocks the loop."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["LagMeter"]


class LagMeter:
    """Measures how late the event loop runs its timers."""

    _EVERY: Final = 0.5

    def __init__(self) -> None:
        self._last = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts to measure in the running loop."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._EVERY
        self._timer = loop.call_at(self._due, self._measure)

    def stop(self) -> None:
        """Ends the measurement."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def seconds(self) -> float:
        """The last measurement, in seconds."""
        return self._last

    def _measure(self) -> None:
        self._last = max(0.0, asyncio.get_running_loop().time() - self._due)
        self.start()
