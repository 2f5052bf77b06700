"""Gives events to whoever has demand, in even slices."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from broadway_py._core.dispatch.port import Delivery, Dispatched, NoQueues
from broadway_py.errors import OptionsError

__all__ = ["DemandDispatcher"]

C = TypeVar("C", bound=Hashable)
E = TypeVar("E")


class DemandDispatcher(NoQueues[C, E]):
    """Gives events to the consumers that have demand.

    A list for n consumers with demand is cut into min(n, len) contiguous slices. The first slice goes to the consumer
    with the most demand. (GenStage gives the whole list to that consumer, while the others have nothing to do.)
    """

    def __init__(self) -> None:
        self._demand: dict[C, int] = {}
        # The open demand of consumers that left. Upstream has been asked for it and will still deliver it.
        self._orphaned = 0

    def fresh(self) -> DemandDispatcher[C, E]:
        """Returns a dispatcher without consumers."""
        return DemandDispatcher()

    def check(self, partition: Hashable, selector: Callable[[E], object] | None) -> None:
        """Raises OptionsError: only other dispatchers know partitions and selectors."""
        refuse_partition(partition)
        refuse_selector(selector)

    @property
    def wanted(self) -> int:
        """The number of events that the consumers have asked for and not got."""
        return sum(self._demand.values())

    def subscribe(self, consumer: C, partition: Hashable = None, selector: Callable[[E], object] | None = None) -> None:
        """Adds a consumer. It has not asked for anything yet."""
        self._demand[consumer] = 0

    def cancel(self, consumer: C) -> int:
        """Removes a consumer. Its open demand is kept and counts for the next consumer that asks."""
        self._orphaned += self._demand.pop(consumer)
        return 0

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events. Returns the demand that is new to the stage upstream."""
        demand = self._demand
        if len(demand) == 1:
            demand[consumer] += count
        else:
            # Inserted again at the end: among equal demands, the consumer that asked first is served first.
            demand[consumer] = demand.pop(consumer) + count
        if not self._orphaned:
            return count, []
        known = min(self._orphaned, count)
        self._orphaned -= known
        return count - known, []

    def take_whole(self, count: int) -> C | None:
        """Returns the only consumer, if it has asked for *count* events or more, and counts them as delivered."""
        if len(self._demand) == 1:
            (only,) = self._demand
            if (left := self._demand[only] - count) >= 0:
                self._demand[only] = left
                return only
        return None

    def dispatch(self, events: Sequence[E]) -> Dispatched[C, E]:
        """Returns the deliveries of *events* to consumers with demand, and the events that nobody has asked for."""
        demand = self._demand
        deliveries: list[Delivery[C, E]] = []
        start, end = 0, len(events)
        while start < end:
            hungry = [consumer for consumer, wanted in demand.items() if wanted > 0]
            if not hungry:
                return deliveries, events[start:], 0
            if len(hungry) > 1:
                hungry.sort(key=demand.__getitem__, reverse=True)
            left = min(len(hungry), end - start)
            for consumer in hungry[:left]:
                share = min(-((start - end) // left), demand[consumer])
                part = events[start : start + share]
                deliveries.append((consumer, part if type(part) is list else list(part)))
                demand[consumer] -= share
                start += share
                left -= 1
        return deliveries, (), 0

    def lost(self, count: int) -> int:
        """Notes that *count* undelivered events are gone. Demand of consumers that left is not asked for again."""
        known = min(self._orphaned, count)
        self._orphaned -= known
        return count - known


def refuse_partition(partition: Hashable) -> None:
    """Raises OptionsError if a partition is given."""
    if partition is not None:
        raise OptionsError(
            ("partition",),
            f"expected none, because the producer has no PartitionDispatcher, got {partition!r}",
        )


def refuse_selector(selector: object) -> None:
    """Raises OptionsError if a selector is given."""
    if selector is not None:
        raise OptionsError(("selector",), "expected none, because the producer has no BroadcastDispatcher")
