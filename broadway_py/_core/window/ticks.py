"""A timer by the clock, for periodic windows and periodic triggers."""

from __future__ import annotations

import math

from broadway_py._core.window.saved import SavedTicks

__all__ = ["Ticks"]


class Ticks:
    """A timer that is due each *interval* seconds after *start*. It does not drift; a late one is due once.

    Args:
        start: a moment of the clock, in seconds.
        interval: in seconds.
        passed: how many intervals have passed.
    """

    def __init__(self, start: float, interval: float, passed: int = 0) -> None:
        self._start = start
        self._interval = interval
        self.passed = passed

    @property
    def next(self) -> float:
        """When it is due next."""
        return self.at(self.passed + 1)

    @property
    def saved(self) -> SavedTicks:
        """The arguments with which an equal timer is made."""
        return self._start, self._interval, self.passed

    def at(self, number: int) -> float:
        """Returns the moment at which the interval *number* begins, counted from 0."""
        return self._start + number * self._interval

    def reach(self, now: float) -> None:
        """Notes that it is *now*, at or after :attr:`next`."""
        self.passed = max(self.passed + 1, math.floor((now - self._start) / self._interval))
        if self.next <= now:  # the division was rounded down
            self.passed += 1
