"""How many messages may start now: a fixed window, as in the original, so that a limit means what it says."""

from __future__ import annotations

__all__ = ["Rate"]


class Rate:
    """At most *allowed* in each window of *interval_s* seconds; nothing is carried over into the next.

    The first window begins with the first message, and a window that nobody used ends without a trace.
    """

    def __init__(self, allowed: int, interval_s: float) -> None:
        self.allowed = allowed
        self.interval_s = interval_s
        self._left = allowed
        self._ends_at: float | None = None

    def take(self, wanted: int, now: float) -> int:
        """How many of *wanted* may start at *now*; they are counted as started."""
        if self._ends_at is None or now >= self._ends_at:
            self._left = self.allowed
            self._ends_at = now + self.interval_s
        granted = min(wanted, self._left)
        self._left -= granted
        return granted

    def opens_at(self, now: float) -> float:
        """When the next message may start; *now* if at once."""
        return now if self._ends_at is None or self._left > 0 or now >= self._ends_at else self._ends_at

    def update(self, allowed: int | None, interval_s: float | None, *, reset: bool) -> None:
        """New values: from the next window on, or at once with *reset*, which begins a new window."""
        self.allowed = self.allowed if allowed is None else allowed
        self.interval_s = self.interval_s if interval_s is None else interval_s
        if reset:
            self._ends_at = None
