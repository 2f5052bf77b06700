"""What a stage takes: lists in the order in which it works on them, the ends of its producers, and what it asks for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from broadway_py._core.demand import Credit
from broadway_py._core.dispatch import Dispatcher
from broadway_py._core.subscription import Cancellation, End
from broadway_py.flow.frames import Frame
from broadway_py.flow.stages.order import Ordered, Released
from broadway_py.stage import Edge, Inlet, Outlet, Wake
from broadway_py.stage.edge import Receiver, Sender

__all__ = ["Consumer", "Ended", "FlowOutlet", "Intake", "Producer", "subscribe"]


class FlowOutlet(Outlet[Frame]):
    """An outlet that wakes its stage when a consumer leaves."""

    __slots__ = ("is_left",)

    def __init__(self, dispatcher: Dispatcher[Edge[Frame], Frame], wake: Wake) -> None:
        super().__init__(dispatcher, wake)
        #: True once all consumers have left.
        self.is_left = False

    def unsubscribe(self, edge: Edge[Frame], end: End | None = None) -> None:
        """Removes a consumer."""
        super().unsubscribe(edge, end)
        self.is_left = not self._edges
        self._wake.set()

    def finish(self) -> None:
        """Tells the consumers that no more lists will come."""
        self.close(End(Cancellation("down")))


class Producer(Sender[Frame], Protocol):
    """The outlet of a stage or source, in this process or in another one."""

    def connect(self, edge: Edge[Frame], partition: int, /) -> None:
        """Adds the consumer of *edge*, which gets the lists of *partition*."""


class Consumer(Receiver[Frame], Protocol):
    """The inlet of a stage, in this process or in another one."""

    edges: set[Edge[Frame]]


def subscribe(outlet: Producer, inlet: Consumer, lists: int, partition: int) -> Edge[Frame]:
    """Connects a consumer that will ask for *lists* lists, and for another one when it has worked on one."""
    edge = Edge(outlet, inlet, Credit[Frame](lists, lists - 1))
    inlet.edges.add(edge)
    outlet.connect(edge, partition)
    return edge


class Ended(NamedTuple):
    """A producer has ended, and all that came from it was taken."""

    #: Its place among the producers.
    place: int
    #: The sources from which no lists can come any more.
    origins: Sequence[int]


class Intake:
    """The end of all subscriptions of a stage.

    Args:
        wake: set when something has changed.
        partition: the stage, in its layer.
        parts: for each source whose lists must be put in order here, how many lists make up a number.
        chunk: the most elements of a list that was put together from such lists.
    """

    def __init__(self, wake: Wake, partition: int, parts: Mapping[int, int], chunk: int) -> None:
        self._inlet: Inlet[Frame] = Inlet(wake)
        self._partition = partition
        self._parts = parts
        self._chunk = chunk
        # The producers that have not ended, each with its place and the sources whose lists come from it.
        self._producers: dict[Edge[Frame], Ended] = {}
        self._ordered: Ordered[Edge[Frame]] | None = None
        # What may be worked on, in order.
        self._ready: deque[Released[Edge[Frame]]] = deque()
        # For each producer: how many of its lists wait here, and how many more than usual it was asked for.
        self._held: Counter[Edge[Frame]] = Counter()
        self._extra: Counter[Edge[Frame]] = Counter()

    def subscribe(self, outlet: Producer, lists: int, origins: Sequence[int]) -> None:
        """Subscribes to a producer, which sends lists of the sources *origins*."""
        edge = subscribe(outlet, self._inlet, lists, self._partition)
        self._producers[edge] = Ended(len(self._producers), origins)

    def ask_first(self) -> None:
        """Asks all producers for the first lists. All consumers have subscribed by now."""
        if self._parts:
            self._ordered = Ordered(self._parts, self._producers, self._chunk)
        for edge in self._producers:
            edge.ask(edge.credit.max_demand)

    @property
    def has_ended(self) -> bool:
        """True if nothing more comes."""
        return self._inlet.finished and not self._inlet.marks and not self._ready

    @property
    def waiting(self) -> int:
        """How many lists wait here."""
        held = 0 if self._ordered is None else self._ordered.waiting
        return len(self._inlet.chunks) + len(self._ready) + held

    def next(self) -> Released[Edge[Frame]] | Ended | None:
        """Returns what is to be done next; None: nothing is there."""
        if self._ready:
            return self._ready.popleft()
        inlet = self._inlet
        while True:
            if inlet.marks and (mark := inlet.next_mark()) is not None:
                return self._ended(mark[0])
            if not inlet:
                if self._ordered is not None:
                    self._ask_for_missing(self._ordered)
                return None
            edge, (frame,), _ = inlet.take()
            if self._ordered is None:
                return Released(frame, (edge,))
            if (released := self._put_in_order(self._ordered, frame, edge)) is not None:
                return released

    def _ended(self, edge: Edge[Frame]) -> Ended:
        place, origins = self._producers.pop(edge)
        left = {origin for other in self._producers.values() for origin in other.origins}
        return Ended(place, [origin for origin in origins if origin not in left])

    def _put_in_order(
        self, ordered: Ordered[Edge[Frame]], frame: Frame, edge: Edge[Frame]
    ) -> Released[Edge[Frame]] | None:
        self._held[edge] += 1
        self._ready.extend(ordered.add(frame, edge))
        return self._ready.popleft() if self._ready else None

    def _ask_for_missing(self, ordered: Ordered[Edge[Frame]]) -> None:
        """Asks for the lists that others wait for, also where all that was asked for waits here."""
        if not ordered.waiting:
            return
        for each in self._inlet.edges:
            if self._held[each] - self._extra[each] >= each.credit.max_demand and ordered.may_send_missing(each):
                self._extra[each] += 1
                each.ask(1)

    def ask_again(self, released: Released[Edge[Frame]]) -> None:
        """Asks for other lists in the place of those that were worked on."""
        for edge in released.senders:
            if self._ordered is not None:
                self._held[edge] -= 1
                if self._extra[edge]:
                    self._extra[edge] -= 1
                    continue
            edge.outlet.ask(edge, 1)

    def leave(self) -> None:
        """Ends all subscriptions."""
        for edge in list(self._inlet.edges):
            edge.outlet.unsubscribe(edge)
