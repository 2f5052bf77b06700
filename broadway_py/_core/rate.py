"""Decides how many messages may start now. It uses a fixed window, as Broadway does, so that the limit is exact."""

from __future__ import annotations

__all__ = ["Rate"]


class Rate:
    """Allows at most *allowed* messages in each window of *interval_s* seconds. Nothing carries over to the next one.

    The first window begins with the first message. A window that was not used has no effect.
    """

    def __init__(self, allowed: int, interval_s: float) -> None:
        self.allowed = allowed
        self.interval_s = interval_s
        self._left = allowed
        self._ends_at: float | None = None

    def take(self, wanted: int, now: float) -> int:
        """Returns how many of *wanted* may start at *now*, and counts them as started."""
        if self._ends_at is None or now >= self._ends_at:
            self._left = self.allowed
            self._ends_at = now + self.interval_s
        granted = min(wanted, self._left)
        self._left -= granted
        return granted

    def opens_at(self, now: float) -> float:
        """Returns when the next message may start; *now* if it may start at once."""
        return now if self._ends_at is None or self._left > 0 or now >= self._ends_at else self._ends_at

    def update(self, allowed: int | None, interval_s: float | None, *, reset: bool) -> None:
        """Sets new values, for the next window; with *reset*, a new window begins at once. None keeps a value."""
        self.allowed = self.allowed if allowed is None else allowed
        self.interval_s = self.interval_s if interval_s is None else interval_s
        if reset:
            self._ends_at = None
