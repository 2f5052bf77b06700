"""The consumer's side of a subscription: how much has been asked for, and when to ask again.

The arithmetic is GenStage's: a consumer asks for ``max_demand`` at once, takes what arrives in chunks of at most
``max_demand - min_demand``, and asks back up to ``max_demand`` after a chunk that left ``min_demand`` or fewer to come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

__all__ = ["Credit"]

T = TypeVar("T")


class Credit(Generic[T]):
    """What one consumer has asked of one producer and not yet received.

    Args:
        max_demand: the most events outstanding, at least 1; this many are asked for at the start.
        min_demand: ask again when this many or fewer are outstanding; less than *max_demand*.
    """

    __slots__ = ("chunk", "max_demand", "min_demand", "outstanding")

    def __init__(self, max_demand: int, min_demand: int) -> None:
        self.max_demand = max_demand
        self.min_demand = min_demand
        self.chunk = max_demand - min_demand
        self.outstanding = max_demand

    def arrived(self, events: Sequence[T]) -> list[tuple[Sequence[T], int]]:
        """Cut *events* into chunks, each with how much to ask for once it is handled.

        More events than were outstanding are all delivered, but only what was outstanding counts.
        """
        size, expected = self.chunk, self.outstanding
        if len(events) <= size:
            return [(events, self._ask_after(min(len(events), expected)))]
        chunks: list[tuple[Sequence[T], int]] = []
        for start in range(0, len(events), size):
            part = events[start : start + size]
            counted = min(len(part), expected)
            expected -= counted
            chunks.append((part, self._ask_after(counted) if counted else 0))
        return chunks

    def _ask_after(self, count: int) -> int:
        left = self.outstanding - count
        if left <= self.min_demand:
            self.outstanding = self.max_demand
            return self.max_demand - left
        self.outstanding = left
        return 0
