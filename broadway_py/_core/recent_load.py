"""Says how busy each member of a pool was in the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

__all__ = ["RecentLoad"]

#: The seconds that a share is about, and the seconds between two marks. Both are a little longer if nobody asks.
_OVER_S: Final = 5.0
_EVERY_S: Final = 1.0


class RecentLoad:
    """Keeps how long each member of a pool was busy until some moments of the last seconds.

    It has no timer: each call of :meth:`shares` is such a moment. So the shares are about the last five seconds, or
    about the time since the call before if that is longer ago.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._marks: deque[tuple[float, Sequence[float]]] = deque([(now, ())])

    def shares(self, busy_seconds: Sequence[float], now: float) -> tuple[float, ...]:
        """Returns the share of the last seconds for which each member was busy, from 0 to 1.

        Args:
            busy_seconds: for how long each member was busy since it began.
            now: monotonic seconds.
        """
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= now - _OVER_S:
            marks.popleft()
        since, before = marks[0]
        if now - marks[-1][0] >= _EVERY_S:
            marks.append((now, tuple(busy_seconds)))
        if now <= since:
            return (0.0,) * len(busy_seconds)
        # A member that took the place of another one began at zero.
        then = [old if old <= new else 0.0 for old, new in zip(before, busy_seconds, strict=False)]
        then += [0.0] * (len(busy_seconds) - len(then))
        return tuple(min(1.0, (new - old) / (now - since)) for old, new in zip(then, busy_seconds, strict=True))
