"""How late the event loop is: the first sign of a handler that blocks it."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["LagMeter"]


class LagMeter:
    """How late the event loop runs its timers."""

    _EVERY: Final = 0.5

    def __init__(self) -> None:
        self._last = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure from now on, in the running loop."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._EVERY
        self._timer = loop.call_at(self._due, self._measure)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def seconds(self) -> float:
        """The last measurement."""
        return self._last

    def _measure(self) -> None:
        self._last = max(0.0, asyncio.get_running_loop().time() - self._due)
        self.start()
