"""The consumer's side of a subscription: how much it has asked for, and when it asks again.

The arithmetic is that of GenStage. A consumer asks for ``max_demand`` at once and takes what arrives in chunks of at
most ``max_demand - min_demand``. After a chunk that left ``min_demand`` or fewer to come, it asks for as many as make
``max_demand`` again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["Credit", "WholeLists"]

T = TypeVar("T")


class Credit(Generic[T]):
    """The events that one consumer has asked of one producer and not yet received.

    Args:
        max_demand: the most outstanding events, at least 1. The consumer asks for this many at the start.
        min_demand: the consumer asks again when this many or fewer are outstanding. Less than *max_demand*.
    """

    __slots__ = ("chunk", "max_demand", "min_demand", "outstanding")

    def __init__(self, max_demand: int, min_demand: int) -> None:
        self.max_demand = max_demand
        self.min_demand = min_demand
        self.chunk = max_demand - min_demand
        self.outstanding = max_demand

    def arrived(self, events: Sequence[T]) -> list[tuple[Sequence[T], int]]:
        """Cuts *events* into chunks. Returns each with the number of events to ask for once the chunk is handled.

        If more events arrive than were outstanding, all are delivered, but only the outstanding ones count.
        """
        size, expected = self.chunk, self.outstanding
        if len(events) <= size:
            return [(events, self.ask_after(len(events)))]
        chunks: list[tuple[Sequence[T], int]] = []
        for start in range(0, len(events), size):
            part = events[start : start + size]
            counted = min(len(part), expected)
            expected -= counted
            chunks.append((part, self.ask_after(counted) if counted else 0))
        return chunks

    def ask_after(self, count: int) -> int:
        """Notes a chunk of *count* events. Returns the number of events to ask for once it is handled."""
        left = self.outstanding - count
        if left <= self.min_demand:
            self.outstanding = self.max_demand
            return self.max_demand - left if left > 0 else self.max_demand
        self.outstanding = left
        return 0


class WholeLists(Generic[T]):
    """The side of a consumer that asks by itself: each list is handled as a whole, and nothing is asked for after it.

    Args:
        max_demand: the first demand of a consumer that asks for some at the start.
    """

    __slots__ = ("chunk", "max_demand", "outstanding")

    def __init__(self, max_demand: int) -> None:
        self.max_demand = max_demand
        self.chunk = sys.maxsize
        self.outstanding = 0

    def arrived(self, events: Sequence[T]) -> list[tuple[Sequence[T], int]]:
        """Returns *events* as one chunk."""
        return [(events, 0)]

    def ask_after(self, count: int) -> int:
        """Returns 0."""
        return 0
