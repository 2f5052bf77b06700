"""Decides whether something that crashed may be started again."""

from __future__ import annotations

from collections import deque

__all__ = ["Restarts"]


class Restarts:
    """Counts crashes in a sliding window. More than *most* crashes within *window_s* seconds are too many."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._crashes: deque[float] = deque(maxlen=most + 1)
        self.count = 0

    def crashed(self, now: float) -> bool:
        """Notes a crash at *now* and returns whether a restart is allowed."""
        self.count += 1
        self._crashes.append(now)
        return len(self._crashes) <= self._most or now - self._crashes[0] > self._window_s
