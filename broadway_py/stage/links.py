"""The two ends of a subscription. All of it is synchronous: asking and handing over never wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from broadway_py._core.demand import Credit
from broadway_py._core.dispatch import Delivery, Dispatcher
from broadway_py.stage.wake import Wake

__all__ = ["Edge", "Inlet", "Outlet"]

T = TypeVar("T")


class Edge(Generic[T]):
    """One consumer's subscription to one producer."""

    __slots__ = ("active", "credit", "inlet", "outlet")

    def __init__(self, outlet: Outlet[T], inlet: Inlet[T], credit: Credit[T]) -> None:
        self.outlet = outlet
        self.inlet = inlet
        self.credit = credit
        #: False while the consumer has stepped aside, and once it has unsubscribed.
        self.active = True

    def ask(self, count: int) -> None:
        """Ask the producer for *count* more; nothing happens while this is not active."""
        if self.active:
            self.outlet.ask(self, count)


class Inlet(Generic[T]):
    """Where a consumer's events arrive. Bounded by what it asked for.

    Args:
        wake: set when something arrived or a producer ended.
    """

    __slots__ = ("_items", "_wake", "edges", "flush_wanted")

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._items: deque[tuple[Edge[T], Sequence[T], int]] = deque()
        self.edges: set[Edge[T]] = set()
        #: A producer said that nothing more may come for now: pass it on once everything waiting was handled.
        self.flush_wanted = False

    def __bool__(self) -> bool:
        """True when a chunk is waiting."""
        return bool(self._items)

    @property
    def finished(self) -> bool:
        """True once every producer has ended and everything was taken."""
        return not self.edges and not self._items

    def arrived(self, edge: Edge[T], events: Sequence[T]) -> None:
        """The producer hands over *events*."""
        items = self._items
        for chunk, ask_after in edge.credit.arrived(events):
            items.append((edge, chunk, ask_after))
        self._wake.set()

    def flush(self) -> None:
        """The producer has nothing more for now."""
        self.flush_wanted = True
        self._wake.set()

    def ended(self, edge: Edge[T]) -> None:
        """The producer has nothing more to come."""
        self.edges.discard(edge)
        self._wake.set()

    def take(self) -> tuple[Edge[T], Sequence[T], int]:
        """The next chunk, whence it came, and how much to ask for there once the chunk is handled."""
        return self._items.popleft()

    def waiting(self) -> Iterable[T]:
        """The events that were not taken yet."""
        return (event for _, chunk, _ in self._items for event in chunk)

    def remove(self, unwanted: Callable[[T], bool], outlet: Outlet[T] | None = None) -> list[T]:
        """Take out the waiting events for which *unwanted* is true, and ask for others in their place.

        Args:
            unwanted: says which.
            outlet: only those that came from there; None: from anywhere.
        """
        removed: list[T] = []
        kept: deque[tuple[Edge[T], Sequence[T], int]] = deque()
        last: dict[Edge[T], int] = {}
        asks: list[tuple[Edge[T], int]] = []
        for edge, chunk, ask_after in self._items:
            if outlet is not None and edge.outlet is not outlet:
                stay = list(chunk)
            else:
                stay = [event for event in chunk if not unwanted(event)]
            if len(stay) != len(chunk):
                removed.extend(event for event in chunk if unwanted(event))
            if stay:
                last[edge] = len(kept)
                kept.append((edge, stay, ask_after))
            elif ask_after and edge in last:
                # It was to be asked after the chunks before it; asking now would bring more than may wait here.
                _, before, ask = kept[last[edge]]
                kept[last[edge]] = (edge, before, ask + ask_after)
            elif ask_after:
                asks.append((edge, ask_after))
        self._items = kept
        for edge, count in asks:
            edge.ask(count)
        return removed

    def step_aside(self, more: Sequence[T] = ()) -> Sequence[T]:
        """Want nothing until :meth:`rejoin`: what waits here, and *more*, goes to the other consumers.

        What came from a producer that has ended stays here; so does *more* when all have: it is given back.
        """
        for edge in self.edges:
            edge.outlet.suspend(edge)
        stay: deque[tuple[Edge[T], Sequence[T], int]] = deque()
        leave: dict[Edge[T], list[T]] = {}
        for edge, chunk, ask_after in self._items:
            if edge in self.edges:
                leave.setdefault(edge, []).extend(chunk)
            else:
                stay.append((edge, chunk, ask_after))
        self._items = stay
        if more and self.edges:
            leave.setdefault(next(iter(self.edges)), [])[:0] = more
            more = ()
        for edge, events in leave.items():
            edge.outlet.dispatch(events)
        return more

    def rejoin(self, *, where_needed: bool = False) -> None:
        """Want as much as at the start again; with *where_needed*, only of producers that nobody else asks."""
        for edge in self.edges:
            if not edge.active and not (where_needed and edge.outlet.is_served):
                edge.outlet.resume(edge)


class Outlet(Generic[T]):
    """Where a stage's events leave, to the consumers that subscribed.

    Args:
        dispatcher: who gets what.
        wake: set when there is new demand, or room again.
    """

    __slots__ = ("_dispatcher", "_edges", "_wake", "closed", "demand")

    def __init__(self, dispatcher: Dispatcher[Edge[T], T], wake: Wake) -> None:
        self._dispatcher = dispatcher
        self._wake = wake
        self._edges: list[Edge[T]] = []
        #: What consumers have asked for and was not sent yet.
        self.demand = 0
        self.closed = False

    def unsubscribe(self, edge: Edge[T]) -> None:
        """A consumer leaves: it gets nothing more, and what it had asked for is kept for the next who asks."""
        if edge.active:
            self.suspend(edge)
        self._edges.remove(edge)
        edge.inlet.ended(edge)

    def suspend(self, edge: Edge[T]) -> None:
        """A consumer wants nothing for now; what it had asked for is kept for the next who asks."""
        edge.active = False
        self._dispatcher.cancel(edge)

    def resume(self, edge: Edge[T]) -> None:
        """A consumer that was suspended asks as it did at first."""
        edge.active = True
        edge.credit.outstanding = edge.credit.max_demand
        self._dispatcher.subscribe(edge)
        self.ask(edge, edge.credit.max_demand)

    @property
    def is_served(self) -> bool:
        """True while a consumer takes what is sent."""
        return any(edge.active for edge in self._edges)

    @property
    def backlog(self) -> int:
        """Events that wait for a consumer's demand."""
        return self._dispatcher.queued

    def subscribe(self, inlet: Inlet[T], max_demand: int, min_demand: int, partition: Hashable = None) -> Edge[T]:
        """Connect a consumer; its first demand is asked at once."""
        edge = Edge(self, inlet, Credit[Any](max_demand, min_demand))
        self._edges.append(edge)
        inlet.edges.add(edge)
        self._dispatcher.subscribe(edge, partition)
        self.ask(edge, max_demand)
        return edge

    def ask(self, edge: Edge[T], count: int) -> None:
        """*edge*'s consumer wants *count* more."""
        if self.closed and not self._dispatcher.queued:
            return
        new, deliveries = self._dispatcher.ask(edge, count)
        self.demand += new
        self._carry_out(deliveries)
        self._wake.set()

    def dispatch(self, events: Sequence[T]) -> None:
        """Send *events* on; what nobody has demand for stays here as :attr:`backlog`."""
        deliveries = self._dispatcher.dispatch(events)
        # Below zero when a producer gave more than it was asked for: the next asks are for what is here already.
        self.demand -= len(events)
        self._carry_out(deliveries)

    def _carry_out(self, deliveries: list[Delivery[Edge[T], T]]) -> None:
        for edge, events in deliveries:
            edge.inlet.arrived(edge, events)

    def take_backlog(self) -> list[T]:
        """Give up what waits here; the demand that it was for is open again."""
        taken = self._dispatcher.take_queued()
        self.demand += len(taken)
        return taken

    def flush(self) -> None:
        """Nothing more may come for now: whoever gathers should not wait for it."""
        for edge in self._edges:
            edge.inlet.flush()

    def close(self) -> None:
        """Nothing more will come; call it with an empty backlog."""
        self.closed = True
        for edge in self._edges:
            edge.inlet.ended(edge)
