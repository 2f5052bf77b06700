"""The events of a stage that nobody has asked for, with the infos between them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

__all__ = ["Buffer", "Keep"]

E = TypeVar("E")

#: Which events stay when a buffer overflows: the oldest, or the newest.
Keep = Literal["first", "last"]


class Buffer(Generic[E]):
    """Keeps at most *size* events in order. An info has a place between two events, and takes no room.

    Args:
        size: the most events that are kept; None for no limit.
        keep: ``"last"`` removes the oldest events when there are too many, ``"first"`` refuses the newest.
    """

    __slots__ = ("_infos", "_left", "events", "keep", "size")

    def __init__(self, size: int | None = None, keep: Keep = "last") -> None:
        self.size = size
        self.keep: Keep = keep
        #: The events, oldest first. It is always the same deque.
        self.events: deque[E] = deque()
        # Each info with the number of events that must have left before it. In order.
        self._infos: deque[tuple[int, Any]] = deque()
        # The number of events that have left so far, delivered or discarded.
        self._left = 0

    def store(self, events: Sequence[E]) -> tuple[int, list[Any]]:
        """Adds *events* at the end.

        Returns how many events were discarded, and the infos that have lost their place by it.
        """
        kept = self.events
        kept.extend(events)
        excess = 0 if self.size is None else len(kept) - self.size
        if excess <= 0:
            return 0, []
        if self.keep == "first":
            for _ in range(excess):
                kept.pop()
            return excess, []
        for _ in range(excess):
            kept.popleft()
        self._left += excess
        return excess, self._due()

    def hold(self, info: Any) -> bool:
        """Keeps *info* behind the events that are here now. Returns False, and keeps nothing, if there are none."""
        if not self.events:
            return False
        self._infos.append((self._left + len(self.events), info))
        return True

    def take(self, most: int) -> tuple[list[E], list[Any]]:
        """Removes and returns the next events, at most *most*, and the infos that come right behind them.

        It stops at the first info. So take again while events are wanted and there are some.
        """
        events = self.events
        count = min(most, len(events))
        if self._infos:
            count = max(0, min(count, self._infos[0][0] - self._left))
        if count == len(events):
            taken = list(events)
            events.clear()
        else:
            taken = list(islice(events, count))
            for _ in range(count):
                events.popleft()
        self._left += count
        return taken, self._due()

    def _due(self) -> list[Any]:
        infos = []
        while self._infos and self._infos[0][0] <= self._left:
            infos.append(self._infos.popleft()[1])
        return infos

    def take_events(self) -> list[E]:
        """Removes and returns all events. The infos stay, and come with the next :meth:`take`."""
        taken = list(self.events)
        self.events.clear()
        self._left += len(taken)
        return taken
