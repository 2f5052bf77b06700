"""Counts values by size. It is fast enough for the hot path: one call counts many equal values."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["BATCH_SIZE_BOUNDS", "SECONDS_BOUNDS", "Histogram"]

#: From 1 ms to 60 s in steps of 1, 2.5, 5. There are smaller ones too, for messages that stay in memory.
SECONDS_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0,
)  # fmt: skip
BATCH_SIZE_BOUNDS = tuple(float(2**power) for power in range(15))


class Histogram:
    """Buckets by upper bound, and the sum of all values. A value equal to a bound is in the bucket of that bound."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Counts *value* as many times as *times* says."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times
