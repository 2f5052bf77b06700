"""Who gets which events: the producer's side of its subscriptions.

Both dispatchers speak of deliveries: ``(consumer, events)`` pairs for the caller to carry out, in order. Every event
given to ``dispatch`` comes back exactly once: in a delivery, in the leftovers, or from ``take_queued``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Delivery", "DemandDispatcher", "Dispatcher", "PartitionDispatcher"]

C = TypeVar("C", bound=Hashable)
E = TypeVar("E")

Delivery = tuple[C, list[E]]


class Dispatcher(Protocol[C, E]):
    """What a stage asks of a dispatcher."""

    @property
    def queued(self) -> int:
        """Events that wait for a consumer's demand."""

    def subscribe(self, consumer: C, partition: Hashable = None) -> None:
        """A consumer arrives; it has asked for nothing yet."""

    def cancel(self, consumer: C) -> None:
        """A consumer leaves. What it had asked for is kept for the next one who asks."""

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """*consumer* wants *count* more: the demand that is new upstream, and what waits for it already."""

    def dispatch(self, events: Sequence[E]) -> list[Delivery[C, E]]:
        """Spread *events*; what nobody has demand for is queued."""

    def take_queued(self) -> list[E]:
        """Give up what is queued, in order."""


class DemandDispatcher(Generic[C, E]):
    """To whoever is hungry.

    A list for n hungry consumers is cut into min(n, len) contiguous slices, the first to the one with the most
    demand. (The original gives the whole list to that one, while the others idle.)
    """

    def __init__(self) -> None:
        self._demand: dict[C, int] = {}
        self._queue: list[E] = []
        # Demand of consumers that left: it was asked upstream and is still to come.
        self._orphaned = 0

    @property
    def queued(self) -> int:
        """Events that wait for a consumer's demand."""
        return len(self._queue)

    def subscribe(self, consumer: C, partition: Hashable = None) -> None:
        """A consumer arrives; it has asked for nothing yet."""
        self._demand[consumer] = 0

    def cancel(self, consumer: C) -> None:
        """A consumer leaves. What it had asked for is kept for the next one who asks."""
        self._orphaned += self._demand.pop(consumer)

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """*consumer* wants *count* more: the demand that is new upstream, and what waits for it already."""
        # Re-inserted last: among equals, who asked first is served first.
        self._demand[consumer] = self._demand.pop(consumer) + count
        known = min(self._orphaned, count)
        self._orphaned -= known
        if not self._queue:
            return count - known, []
        waiting, self._queue = self._queue, []
        return count - known, self.dispatch(waiting)

    def dispatch(self, events: Sequence[E]) -> list[Delivery[C, E]]:
        """Spread *events* over the hungry consumers; what nobody has demand for is queued."""
        demand = self._demand
        deliveries: list[Delivery[C, E]] = []
        start, end = 0, len(events)
        while start < end:
            hungry = [consumer for consumer, wanted in demand.items() if wanted > 0]
            if not hungry:
                self._queue.extend(events[start:])
                break
            if len(hungry) > 1:
                hungry.sort(key=demand.__getitem__, reverse=True)
            left = min(len(hungry), end - start)
            for consumer in hungry[:left]:
                share = min(-((start - end) // left), demand[consumer])
                deliveries.append((consumer, list(events[start : start + share])))
                demand[consumer] -= share
                start += share
                left -= 1
        return deliveries

    def take_queued(self) -> list[E]:
        """Give up what is queued, in order."""
        taken, self._queue = self._queue, []
        return taken


class PartitionDispatcher(Generic[C, E]):
    """To the one consumer of the event's partition, in order.

    Demand is pooled upstream: a producer cannot tell which partition is hungry, so the queue of a hot partition
    grows, by at most all the demand there is.

    Args:
        partitions: their names.
        partition_of: event -> partition, or None for "any": then the one with the most spare demand.
    """

    def __init__(self, partitions: Sequence[Hashable], partition_of: Callable[[E], Any]) -> None:
        self._of = partition_of
        self._spare: dict[Any, int] = dict.fromkeys(partitions, 0)
        self._queues: dict[Any, list[E]] = {partition: [] for partition in partitions}
        self._consumers: dict[Any, C] = {}
        self._partitions: dict[C, Any] = {}
        self._orphaned = 0
        self._queued = 0

    @property
    def queued(self) -> int:
        """Events that wait for their partition's consumer."""
        return self._queued

    def subscribe(self, consumer: C, partition: Hashable = None) -> None:
        """A consumer arrives for *partition*; it has asked for nothing yet."""
        self._consumers[partition] = consumer
        self._partitions[consumer] = partition

    def cancel(self, consumer: C) -> None:
        """A consumer leaves; its partition's queue waits for the next one."""
        partition = self._partitions.pop(consumer)
        del self._consumers[partition]
        self._orphaned += self._spare[partition]
        self._spare[partition] = 0

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """*consumer* wants *count* more: the demand that is new upstream, and what its partition has queued."""
        partition = self._partitions[consumer]
        self._spare[partition] += count
        known = min(self._orphaned, count)
        self._orphaned -= known
        return count - known, self._serve(partition) if self._queues[partition] else []

    def dispatch(self, events: Sequence[E]) -> list[Delivery[C, E]]:
        """Route *events*; what a partition has no demand for is queued for it."""
        of, queues = self._of, self._queues
        touched: dict[Any, None] = {}
        for event in events:
            partition = of(event)
            if partition is None:
                partition = max(self._spare, key=lambda name: self._spare[name] - len(queues[name]))
            queues[partition].append(event)
            self._queued += 1
            touched[partition] = None
        return [delivery for partition in touched for delivery in self._serve(partition)]

    def _serve(self, partition: Any) -> list[Delivery[C, E]]:
        spare, queue = self._spare[partition], self._queues[partition]
        if not spare:
            return []
        if len(queue) <= spare:
            served, self._queues[partition] = queue, []
        else:
            served, self._queues[partition] = queue[:spare], queue[spare:]
        self._spare[partition] -= len(served)
        self._queued -= len(served)
        return [(self._consumers[partition], served)]

    def take_queued(self) -> list[E]:
        """Give up what is queued, partition by partition."""
        taken = [event for queue in self._queues.values() for event in queue]
        for queue in self._queues.values():
            queue.clear()
        self._queued = 0
        return taken
