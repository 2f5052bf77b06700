"""Gives every event to every consumer, at the pace of the slowest."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from itertools import count as count_from
from typing import Generic, TypeVar

from broadway_py._core.dispatch.demand import refuse_partition
from broadway_py._core.dispatch.port import Delivery, Dispatched, NoQueues
from broadway_py.errors import OptionsError
from broadway_py.foreign import article

__all__ = ["BroadcastDispatcher"]

C = TypeVar("C", bound=Hashable)
E = TypeVar("E")


class _Positions(Generic[C]):
    """How far each consumer has asked, as a number of events since the start, and who has asked least far.

    A position only grows. So the heap may have older, smaller positions: the smallest is brought up to date when it is
    looked at. An ask costs no more than the logarithm of the number of consumers, whoever asks.
    """

    def __init__(self) -> None:
        self.of: dict[C, int] = {}
        self._heap: list[tuple[int, int, C]] = []
        # Two entries of the same position are not compared by their consumers, which need not have an order.
        self._serial = count_from()

    def add(self, consumer: C, position: int) -> None:
        """Adds a consumer."""
        if len(self._heap) > 2 * len(self.of):
            # Entries of consumers that have left.
            self._heap = [(place, next(self._serial), known) for known, place in self.of.items()]
            heapq.heapify(self._heap)
        self.of[consumer] = position
        heapq.heappush(self._heap, (position, next(self._serial), consumer))

    def lowest(self) -> int:
        """Returns the smallest position. There must be a consumer."""
        heap, of = self._heap, self.of
        while True:
            position, serial, consumer = heap[0]
            now = of.get(consumer)
            if now == position:
                return position
            if now is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (now, serial, consumer))


class BroadcastDispatcher(NoQueues[C, E]):
    """Gives every event to every consumer, when all of them have asked for it.

    A consumer that does not ask stops all the others. A consumer may subscribe with a selector, a function
    event -> bool. It gets only the events for which the selector returns true. In place of the others, it is given new
    demand.
    """

    exclusive = True

    def __init__(self) -> None:
        self._positions: _Positions[C] = _Positions()
        self._selectors: dict[C, Callable[[E], object] | None] = {}
        # The number of events that were delivered since the start.
        self._sent = 0
        # The number of events that upstream was asked for and that were not delivered yet.
        self._requested = 0

    def fresh(self) -> BroadcastDispatcher[C, E]:
        """Returns a dispatcher without consumers."""
        return BroadcastDispatcher()

    def check(self, partition: Hashable, selector: Callable[[E], object] | None) -> None:
        """Raises OptionsError if a partition is given, or a selector that is no function."""
        refuse_partition(partition)
        if selector is not None and not callable(selector):
            raise OptionsError(("selector",), f"expected a function event -> bool, got {article(selector)}")

    @property
    def wanted(self) -> int:
        """The number of events that every consumer has asked for."""
        return self._positions.lowest() - self._sent if self._selectors else 0

    def subscribe(self, consumer: C, partition: Hashable = None, selector: Callable[[E], object] | None = None) -> None:
        """Adds a consumer. All consumers wait until it asks."""
        self._positions.add(consumer, self._sent)
        self._selectors[consumer] = selector

    def cancel(self, consumer: C) -> int:
        """Removes a consumer. Returns the demand of the others that was waiting for it alone."""
        del self._positions.of[consumer]
        del self._selectors[consumer]
        return self._request()

    def ask(self, consumer: C, count: int) -> tuple[int, list[Delivery[C, E]]]:
        """Notes that *consumer* wants *count* more events. Returns the demand that is new to the stage upstream."""
        self._positions.of[consumer] += count
        return self._request(), []

    def _request(self) -> int:
        new = max(0, self.wanted - self._requested)
        self._requested += new
        return new

    def dispatch(self, events: Sequence[E]) -> Dispatched[C, E]:
        """Returns the deliveries of as many events as every consumer has asked for, and the other events."""
        deliveries: list[Delivery[C, E]] = []
        new = 0
        # A round can leave demand behind, because a selector has left events out.
        while count := min(len(events), self.wanted):
            sent, events = events[:count], events[count:]
            # Each consumer has a list of its own: it may change it.
            round_ = [
                (consumer, list(sent) if selector is None else [event for event in sent if selector(event)])
                for consumer, selector in self._selectors.items()
            ]
            self._requested -= count
            self._sent += count
            for consumer, chosen in round_:
                if left_out := count - len(chosen):
                    self._positions.of[consumer] += left_out
            deliveries += [delivery for delivery in round_ if delivery[1]]
            new += self._request()
        return deliveries, events, new

    def lost(self, count: int) -> int:
        """Notes that *count* undelivered events are gone. Returns how many of them every consumer has asked for."""
        surplus = min(count, self._requested - self.wanted)
        self._requested -= surplus
        return count - surplus
