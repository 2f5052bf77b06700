"""How many children a supervisor may run for one of its subscriptions, and when it asks for more events."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Places"]

S = TypeVar("S")


class Places(Generic[S]):
    """The places of one subscription. An event takes one from when it is asked for until its child has ended.

    Args:
        subscription: whose places they are.
        max_demand: how many there are.
        min_demand: more events are asked for when so many or fewer are taken. Less than *max_demand*.
        running: children of former subscriptions, which take places here.
        waiting: events of former subscriptions that have come, and whose children take places here.
    """

    __slots__ = ("_max_demand", "_min_demand", "_outstanding", "_running", "subscription")

    def __init__(
        self, subscription: S, max_demand: int, min_demand: int, *, running: int = 0, waiting: int = 0
    ) -> None:
        self.subscription = subscription
        self._max_demand = max_demand
        self._min_demand = min_demand
        # Events whose child has not ended.
        self._running = running
        # Events that were asked for and whose child has not begun.
        self._outstanding = waiting

    def ask(self) -> int:
        """Returns the number of events to ask for now, and counts them as asked for.

        That is 0 until ``min_demand`` or fewer places are taken, and then as many as are free.
        """
        taken = self._outstanding + self._running
        if taken > self._min_demand:
            return 0
        self._outstanding += self._max_demand - taken
        return self._max_demand - taken

    def begin(self, count: int) -> None:
        """Notes that the children of *count* events begin."""
        self._outstanding = max(0, self._outstanding - count)
        self._running += count

    def end(self) -> int:
        """Notes that a child has ended, or did not start. Returns the number of events to ask for now."""
        self._running -= 1
        return self.ask()
