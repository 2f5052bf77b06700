"""The producer's side of its subscriptions: decides which consumer gets which events.

Both dispatchers return deliveries: ``(consumer, events)`` pairs that the caller must carry out, in order. Every event
given to ``dispatch`` comes back exactly once: in a delivery, or from ``take_queued``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Delivery", "DemandDispatcher", "Dispatcher", "PartitionDispatcher"]

C = TypeVar("C", bound=Hashable)
E = TypeVar("E")

Delivery = tuple[C, list[E]]


class Dispatcher(Protocol[C, E]):
    """The interface of a dispatcher."""

    @property
    def queued(self) -> int:
        """The number of events that wait for the demand of a consumer."""

    def subscribe(self, consumer: C, partition: Hashable = None) -> None:
        """Adds a consumer. It has not asked for anything yet."""

    def cancel(self, consumer: C) -> None:
        """Removes a consumer. Its open demand is kept and counts for the next consumer that asks."""

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events.

        Returns the demand that is new to the stage upstream, and the deliveries of events that were queued.
        """

    def dispatch(self, events: Sequence[E]) -> list[Delivery[C, E]]:
        """Returns the deliveries of *events*. Events without demand are queued."""

    def take_queued(self) -> list[E]:
        """Removes the queued events and returns them, in order."""


class DemandDispatcher(Generic[C, E]):
    """Gives events to the consumers that have demand.

    A list for n consumers with demand is cut into min(n, len) contiguous slices. The first slice goes to the consumer
    with the most demand. (GenStage gives the whole list to that consumer, while the others have nothing to do.)
    """

    def __init__(self) -> None:
        self._demand: dict[C, int] = {}
        self._queue: list[E] = []
        # The open demand of consumers that left. Upstream has been asked for it and will still deliver it.
        self._orphaned = 0

    @property
    def queued(self) -> int:
        """The number of events that wait for the demand of a consumer."""
        return len(self._queue)

    def subscribe(self, consumer: C, partition: Hashable = None) -> None:
        """Adds a consumer. It has not asked for anything yet."""
        self._demand[consumer] = 0

    def cancel(self, consumer: C) -> None:
        """Removes a consumer. Its open demand is kept and counts for the next consumer that asks."""
        self._orphaned += self._demand.pop(consumer)

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events.

        Returns the demand that is new to the stage upstream, and the deliveries of events that were queued.
        """
        # Inserted again at the end: among equal demands, the consumer that asked first is served first.
        self._demand[consumer] = self._demand.pop(consumer) + count
        known = min(self._orphaned, count)
        self._orphaned -= known
        if not self._queue:
            return count - known, []
        waiting, self._queue = self._queue, []
        return count - known, self.dispatch(waiting)

    def dispatch(self, events: Sequence[E]) -> list[Delivery[C, E]]:
        """Returns the deliveries of *events* to consumers with demand. Events without demand are queued."""
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
        """Removes the queued events and returns them, in order."""
        taken, self._queue = self._queue, []
        return taken


class PartitionDispatcher(Generic[C, E]):
    """Gives each event to the one consumer of its partition, in order.

    Upstream sees only the sum of the demand. A producer cannot tell which partition has demand, so the queue of a busy
    partition grows, by at most the whole demand.

    Args:
        partitions: the names of the partitions.
        partition_of: event -> partition. None means any partition; the one with the most unused demand is taken.
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
        """The number of events that wait for the consumer of their partition."""
        return self._queued

    def subscribe(self, consumer: C, partition: Hashable = None) -> None:
        """Adds a consumer for *partition*. It has not asked for anything yet."""
        self._consumers[partition] = consumer
        self._partitions[consumer] = partition

    def cancel(self, consumer: C) -> None:
        """Removes a consumer. The queue of its partition waits for the next consumer of that partition."""
        partition = self._partitions.pop(consumer)
        del self._consumers[partition]
        self._orphaned += self._spare[partition]
        self._spare[partition] = 0

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events.

        Returns the demand that is new to the stage upstream, and the deliveries of events queued for its partition.
        """
        partition = self._partitions[consumer]
        self._spare[partition] += count
        known = min(self._orphaned, count)
        self._orphaned -= known
        return count - known, self._serve(partition) if self._queues[partition] else []

    def dispatch(self, events: Sequence[E]) -> list[Delivery[C, E]]:
        """Returns the deliveries of *events* to their partitions. Events without demand are queued."""
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
        """Removes the queued events and returns them, partition by partition."""
        taken = [event for queue in self._queues.values() for event in queue]
        for queue in self._queues.values():
            queue.clear()
        self._queued = 0
        return taken
