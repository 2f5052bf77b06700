"""The two ends of a subscription. All methods are synchronous: asking and handing over never wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from broadway_py._core.buffer import Buffer
from broadway_py._core.demand import Credit
from broadway_py._core.dispatch import Dispatcher
from broadway_py._core.subscription import End
from broadway_py.stage.edge import Edge
from broadway_py.stage.wake import Wake

__all__ = ["Inlet", "Outlet"]

T = TypeVar("T")


class Inlet(Generic[T]):
    """The end of a subscription where a consumer's events arrive. It holds no more than the consumer asked for.

    Args:
        wake: set when events have arrived or a producer has ended.
    """

    __slots__ = ("_items", "_taken", "_wake", "edges", "flush_wanted", "marks")

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._items: deque[tuple[Edge[T], Sequence[T], int]] = deque()
        #: What stands between the chunks: the number of chunks that are taken before each mark, and the mark.
        self.marks: deque[tuple[int, Any]] = deque()
        self._taken = 0
        self.edges: set[Edge[T]] = set()
        #: A producer said that no more events may come for now. Pass this on once all waiting events are handled.
        self.flush_wanted = False

    def __bool__(self) -> bool:
        """Returns True if a chunk is waiting."""
        return bool(self._items)

    @property
    def chunks(self) -> deque[tuple[Edge[T], Sequence[T], int]]:
        """What waits, for a stage that looks often. It is the same deque while nothing is removed from the inlet.

        While there are no :attr:`marks`, the first may be removed without :meth:`take`.
        """
        return self._items

    @property
    def finished(self) -> bool:
        """True once every producer has ended and all events are taken."""
        return not self.edges and not self._items

    def arrived(self, edge: Edge[T], events: Sequence[T]) -> None:
        """Takes *events* from the producer of *edge*."""
        credit = edge.credit
        count = len(events)
        if count <= credit.chunk:
            self._items.append((edge, events, credit.ask_after(count)))
        else:
            self._items.extend((edge, chunk, ask_after) for chunk, ask_after in credit.arrived(events))
        # This is wake.set() without a call.
        wake = self._wake
        if (future := wake.future) is None:
            wake.is_set = True
        elif not future.done():
            future.set_result(None)

    def flush(self) -> None:
        """Notes that a producer has no more events for now."""
        self.flush_wanted = True
        self._wake.set()

    def ended(self, edge: Edge[T], end: End | None = None) -> None:
        """Notes that the producer of *edge* has ended. If *end* is given, a mark follows what has arrived."""
        self.edges.discard(edge)
        if end is not None:
            self.marks.append((self._taken + len(self._items), (edge, end)))
        self._wake.set()

    def mark(self, mark: Any) -> None:
        """Puts *mark* behind what has arrived. :meth:`next_mark` returns it when all of that is taken."""
        self.marks.append((self._taken + len(self._items), mark))
        self._wake.set()

    def next_mark(self) -> Any:
        """Removes and returns the mark that stands before the next chunk; None if there is none."""
        if self.marks and self.marks[0][0] <= self._taken:
            return self.marks.popleft()[1]
        return None

    def take(self) -> tuple[Edge[T], Sequence[T], int]:
        """Returns the next chunk with its subscription, and how much to ask for there once the chunk is handled."""
        # The places of marks count from any chunk, so nothing need be counted while there are none.
        if self.marks:
            self._taken += 1
        return self._items.popleft()

    def waiting(self) -> Iterable[T]:
        """Returns the events that were not taken yet."""
        return (event for _, chunk, _ in self._items for event in chunk)

    def remove(self, unwanted: Callable[[T], bool], outlet: Outlet[T] | None = None) -> list[T]:
        """Removes and returns the waiting events for which *unwanted* is true, and asks for others in their place.

        Args:
            unwanted: event -> whether to remove it.
            outlet: removes only events that came from this outlet; None: from any outlet.
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
                # Its demand was due after the chunks before it. Asking now would bring more events than may wait here.
                _, before, ask = kept[last[edge]]
                kept[last[edge]] = (edge, before, ask + ask_after)
            elif ask_after:
                asks.append((edge, ask_after))
        self._items = kept
        for edge, count in asks:
            edge.ask(count)
        return removed

    def step_aside(self, more: Sequence[T] = ()) -> Sequence[T]:
        """Suspends all subscriptions until :meth:`rejoin`. The waiting events, and *more*, go to the other consumers.

        Events from a producer that has ended stay here. If all producers have ended, *more* is returned; otherwise the
        result is empty.
        """
        for edge in self.edges:
            _outlet_of(edge).suspend(edge)
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
            _outlet_of(edge).dispatch(events)
        return more

    def rejoin(self, *, where_needed: bool = False) -> None:
        """Resumes the suspended subscriptions with their first demand.

        With *where_needed*, it resumes only those of producers that no other consumer asks.
        """
        for edge in self.edges:
            outlet = _outlet_of(edge)
            if not edge.active and not (where_needed and outlet.is_served):
                outlet.resume(edge)


def _outlet_of(edge: Edge[T]) -> Outlet[T]:
    """Returns the outlet of *edge*, which is in this process."""
    if not isinstance(edge.outlet, Outlet):
        raise TypeError("expected an edge whose producer is in this process")
    return edge.outlet


class Outlet(Generic[T]):
    """The end of a subscription where a stage's events leave for the consumers that have subscribed.

    Args:
        dispatcher: decides which consumer gets which events.
        wake: set when there is new demand, or room again.
        buffer: keeps the events that nobody has asked for; None: a buffer without a limit, for a stage that stops by
            itself while events wait there.
    """

    __slots__ = ("_buffer", "_dispatcher", "_edges", "_kept", "_wake", "closed", "demand")

    def __init__(self, dispatcher: Dispatcher[Edge[T], T], wake: Wake, buffer: Buffer[T] | None = None) -> None:
        self._dispatcher = dispatcher
        self._wake = wake
        self._buffer: Buffer[T] = Buffer() if buffer is None else buffer
        self._kept = self._buffer.events
        # In the order of their subscriptions. A dict, because a consumer leaves it without a search.
        self._edges: dict[Edge[T], None] = {}
        #: The number of events that consumers have asked for and that were not sent yet.
        self.demand = 0
        self.closed = False

    @property
    def edges(self) -> Collection[Edge[T]]:
        """The subscriptions to this stage, oldest first."""
        return self._edges.keys()

    def unsubscribe(self, edge: Edge[T], end: End | None = None) -> None:
        """Removes a consumer. It gets no more events; its open demand is kept for the next consumer that asks."""
        if edge.active:
            self.suspend(edge)
        del self._edges[edge]
        edge.end = end
        edge.inlet.ended(edge, end)

    def suspend(self, edge: Edge[T]) -> None:
        """Suspends a consumer. Its open demand is kept for the next consumer that asks."""
        edge.active = False
        self.demand += self._dispatcher.cancel(edge)
        if self._kept:
            self._send_buffered()

    def resume(self, edge: Edge[T]) -> None:
        """Resumes a suspended consumer, with the demand that it had at the start."""
        edge.active = True
        edge.credit.outstanding = edge.credit.max_demand
        self._dispatcher.subscribe(edge)
        self.ask(edge, edge.credit.max_demand)

    @property
    def is_served(self) -> bool:
        """True while at least one consumer is active."""
        return any(edge.active for edge in self._edges)

    @property
    def backlog(self) -> int:
        """The number of events that wait for the demand of a consumer."""
        return len(self._kept) + self._dispatcher.queued

    def subscribe(self, inlet: Inlet[T], max_demand: int, min_demand: int, partition: Hashable = None) -> Edge[T]:
        """Connects a consumer, asks for its first demand at once, and returns the subscription."""
        edge = Edge(self, inlet, Credit[Any](max_demand, min_demand))
        inlet.edges.add(edge)
        self.connect(edge, partition)
        self.ask(edge, max_demand)
        return edge

    def connect(self, edge: Edge[T], partition: Hashable = None, selector: Callable[[T], object] | None = None) -> None:
        """Adds the consumer of *edge*, which has not asked for anything yet."""
        self._edges[edge] = None
        self._dispatcher.subscribe(edge, partition, selector)

    def ask(self, edge: Edge[T], count: int) -> None:
        """Notes that the consumer of *edge* wants *count* more events, and sends it those that wait."""
        if self.closed and not self.backlog:
            return
        new, deliveries = self._dispatcher.ask(edge, count)
        self.demand += new
        for to, events in deliveries:
            to.inlet.arrived(to, events)
        if self._kept:
            self._send_buffered()
        self._wake.set()

    def _send_buffered(self) -> None:
        """Sends what waits in the buffer, as far as there is demand."""
        while self._kept and (wanted := self._dispatcher.wanted):
            taken, infos = self._buffer.take(wanted)
            deliveries, _, new = self._dispatcher.dispatch(taken)
            self.demand += new
            for edge, events in deliveries:
                edge.inlet.arrived(edge, events)
            self._deliver_infos(infos)

    def dispatch(self, events: Sequence[T]) -> None:
        """Sends *events* to the consumers. Events without demand stay here as :attr:`backlog`."""
        count = len(events)
        # The usual case needs no copy: the whole list goes to the only consumer.
        if type(events) is list and (only := self._dispatcher.take_whole(count)) is not None:
            self.demand -= count
            if count:
                only.inlet.arrived(only, events)
            return
        deliveries, left, new = self._dispatcher.dispatch(events)
        # Below zero if a producer gave more than it was asked for: the next demand is for events that are already here.
        self.demand += new - count
        for edge, part in deliveries:
            edge.inlet.arrived(edge, part)
        if left:
            self._keep(left)

    def _keep(self, events: Sequence[T]) -> None:
        """Keeps *events*, which nobody has asked for."""
        self._buffer.store(events)

    def _deliver_infos(self, infos: Sequence[Any]) -> None:
        """Hands over infos whose place has come. The stages of a pipeline have none."""

    def take_backlog(self) -> list[T]:
        """Removes and returns the events that wait here. The demand that they were meant for is open again."""
        taken = self._buffer.take_events() + self._dispatcher.take_queued()
        self.demand += len(taken)
        return taken

    def flush(self) -> None:
        """Tells the consumers that no more events may come for now, so that open batches do not wait for them."""
        for edge in self._edges:
            edge.inlet.flush()

    def close(self, end: End | None = None) -> None:
        """Tells the consumers that no more events will come. Call it when the backlog is empty."""
        self.closed = True
        for edge in self._edges:
            edge.end = end
            edge.inlet.ended(edge, end)
