"""How many children a supervisor may run for each of its subscriptions, and when it asks for more events."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Slots"]

S = TypeVar("S", bound=Hashable)


@dataclass(slots=True)
class _Subscription:
    max_demand: int
    min_demand: int
    #: Events that were asked for and have not come.
    outstanding: int
    #: Events that have come and whose child has not ended.
    running: int = 0


class Slots(Generic[S]):
    """The slots of each subscription. An event takes a slot from when it is asked for until its child has ended.

    A subscription that was not added here has no slots, and nothing is asked for in its name.
    """

    def __init__(self) -> None:
        self._subscriptions: dict[S, _Subscription] = {}

    def subscribe(self, subscription: S, max_demand: int, min_demand: int) -> None:
        """Adds a subscription that has asked for *max_demand* events."""
        self._subscriptions[subscription] = _Subscription(max_demand, min_demand, max_demand)

    def cancel(self, subscription: S) -> None:
        """Forgets a subscription. Its children run on and hold no slot."""
        self._subscriptions.pop(subscription, None)

    def arrived(self, subscription: S, count: int) -> None:
        """Notes that *count* events have come, which are now running."""
        if (held := self._subscriptions.get(subscription)) is not None:
            held.outstanding = max(0, held.outstanding - count)
            held.running += count

    def ended(self, subscription: S) -> int:
        """Notes that a child has ended, or did not start. Returns the number of events to ask for now.

        That is 0 until ``min_demand`` or fewer slots are taken, and then as many as are free.
        """
        held = self._subscriptions.get(subscription)
        if held is None:
            return 0
        held.running -= 1
        taken = held.outstanding + held.running
        if taken > held.min_demand:
            return 0
        held.outstanding += held.max_demand - taken
        return held.max_demand - taken
