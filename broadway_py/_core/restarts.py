"""May what crashed be started again?"""

from __future__ import annotations

from collections import deque

__all__ = ["Restarts"]


class Restarts:
    """Counts crashes in a sliding window: more than *most* within *window_s* seconds is too many."""

    def __init__(self, most: int, window_s: float) -> None:
        self._most = most
        self._window_s = window_s
        self._crashes: deque[float] = deque(maxlen=most + 1)
        self.count = 0

    def crashed(self, now: float) -> bool:
        """Note a crash at *now*; True when it may be started again."""
        self.count += 1
        self._crashes.append(now)
        return len(self._crashes) <= self._most or now - self._crashes[0] > self._window_s
