"""The two ends of an edge that leaves the process: each stands for the inlet or outlet in another process.

An edge has the same number in both processes. Lists go one way, and asks the other way, in frames of the connection
between the two. So credit is what it is in one process, and bounds what a connection has not sent yet.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, Protocol

from broadway_py._core.subscription import Cancellation, End
from broadway_py.errors import FlowFailed
from broadway_py.flow.failure import place_of
from broadway_py.flow.frames import Frame
from broadway_py.flow.operator_errors import errors_of_functions
from broadway_py.flow.running.carried import Carrier, unpacked
from broadway_py.flow.running.placement import PARENT
from broadway_py.process.connection import FrameConnection
from broadway_py.process.frames import Frame as Packed
from broadway_py.stage import Edge

__all__ = ["Connect", "Connection", "RemoteConsumer", "RemoteEdges", "RemoteProducer", "over_socket"]


class Connection(Protocol):
    """Exchanges frames with one other process, in order. No method blocks. Nothing is sent after :meth:`close`."""

    def open(self) -> None:
        """Begins to take frames."""

    def close(self) -> None:
        """Ends it. What was not sent yet is lost."""

    def send(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame."""

    def send_soon(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame together with the next one, or else when the event loop has done what it has to do now."""


#: Makes the connection to another process, which gives each frame that comes to the function.
Connect = Callable[[Callable[[Packed], object]], Connection]


def over_socket(connected: socket.socket) -> Connect:
    """Returns what makes a connection of a socket, which belongs to the connection."""
    # If the other process is gone, the parent ends the flow.
    return lambda take: FrameConnection(connected, take, lambda: None)


class _Kind(IntEnum):
    """What a process tells another one about an edge. A frame's job is the number of the edge."""

    #: The consumer asks for more lists; the position of the frame says how many.
    ASK = 1
    #: Lists.
    LISTS = 2
    #: The producer has ended.
    END = 3
    #: The consumer has left.
    LEAVE = 4


_ENDED: Final = End(Cancellation("down"))


class RemoteConsumer:
    """Stands for the inlet of a stage in another process."""

    def __init__(self, link: _Link, number: int, label: str, stage: int) -> None:
        self.edges: set[Edge[Frame]] = set()
        #: What sends the lists, and the index of the stage, for errors.
        self.label = label
        self.stage = stage
        #: How many bytes of lists were sent.
        self.sent_bytes = 0
        self._link = link
        self._number = number

    def arrived(self, edge: Edge[Frame], events: Sequence[Frame]) -> None:
        """Sends lists."""
        self.sent_bytes += self._link.send_lists(self._number, list(events), self)

    def flush(self) -> None:
        """Does nothing: no stage of a flow waits for a list to become full."""

    def ended(self, edge: Edge[Frame], end: End | None) -> None:
        """Sends the end."""
        self.edges.discard(edge)
        self._link.send(_Kind.END, self._number)


class RemoteProducer:
    """Stands for the outlet of a stage or source in another process."""

    def __init__(self, link: _Link, number: int, label: str) -> None:
        self.label = label
        self._link = link
        self._number = number

    def connect(self, edge: Edge[Frame], _: int) -> None:
        """Takes what comes for *edge* from now on."""
        self._link.incoming[self._number] = edge, self.label

    def ask(self, edge: Edge[Frame], count: int) -> None:
        """Asks for more lists."""
        self._link.connection.send_soon(_Kind.ASK, job=self._number, position=count)

    def unsubscribe(self, edge: Edge[Frame], end: End | None = None) -> None:
        """Says that the consumer has left. What is on its way is dropped."""
        edge.active = False
        self._link.send(_Kind.LEAVE, self._number)
        self._link.end(self._number)
        edge.inlet.ended(edge, end)


class _Link:
    """What goes over the connection to one other process."""

    def __init__(
        self,
        connect: Connect,
        place: int,
        failed: Callable[[FlowFailed], object],
        changed: Callable[[], object],
        most_bytes: int | None,
    ) -> None:
        #: The edges whose producers, or whose consumers, are in the other process.
        self.incoming: dict[int, tuple[Edge[Frame], str]] = {}
        self.outgoing: dict[int, Edge[Frame]] = {}
        self._failed = failed
        self._changed = changed
        self._most_bytes = most_bytes
        self._carrier = Carrier(to_program=place == PARENT)
        self.connection = connect(self._take)

    def end(self, number: int) -> tuple[Edge[Frame], str] | None:
        """Forgets an edge whose lists come here; None: it is already forgotten."""
        known = self.incoming.pop(number, None)
        if not self.incoming:
            self._changed()
        return known

    def send(self, kind: _Kind, number: int, count: int = 0, body: bytes = b"") -> None:
        self.connection.send(kind, body, job=number, position=count)

    def send_lists(self, number: int, frames: list[Frame], sender: RemoteConsumer) -> int:
        """Sends lists, and returns how many bytes they have become."""
        try:
            packed = self._carrier.packed(frames)
        except errors_of_functions() as error:
            self._failed(self._not_packed(frames, sender, error))
            return 0
        most = self._most_bytes
        if most is not None and len(packed) > most and (too_large := self._too_large(frames, sender, most)) is not None:
            self._failed(too_large)
            return 0
        self.send(_Kind.LISTS, number, len(frames), packed)
        return len(packed)

    def _not_packed(self, frames: list[Frame], sender: RemoteConsumer, error: BaseException) -> FlowFailed:
        """Returns the error for lists that do not pickle. It names the first element that does not."""
        error.add_note("This came up when an element was pickled, to go to another process.")
        for element in (each for frame in frames for each in frame.elements):
            try:
                self._carrier.packed([Frame([element])])
            except errors_of_functions():
                return FlowFailed(sender.label, error, stage=sender.stage, element=element)
        return FlowFailed(sender.label, error, stage=sender.stage)

    def _too_large(self, frames: list[Frame], sender: RemoteConsumer, most: int) -> FlowFailed | None:
        """Returns the error for the first element that is too large; None: each may go over, together they are long."""
        for frame in frames:
            for index, element in enumerate(frame.elements):
                size = len(self._carrier.packed([Frame([element])]))
                if size > most:
                    cause = ValueError(
                        f"expected an element of at most {most:,} bytes when pickled, got {size:,} bytes; "
                        "pass on where it lies, such as a path, and read it where it is needed"
                    )
                    place = place_of(frame.first, index)
                    return FlowFailed(sender.label, cause, stage=sender.stage, place=place, element=element)
        return None

    def _take(self, packed: Packed) -> None:
        number = packed.job
        match packed.kind:
            case _Kind.ASK:
                edge = self.outgoing[number]
                edge.outlet.ask(edge, packed.position)
            case _Kind.LEAVE:
                edge = self.outgoing[number]
                # It has ended for itself if the outlet has been closed.
                if edge in edge.inlet.edges:  # type: ignore[attr-defined]  # it is a RemoteConsumer
                    edge.outlet.unsubscribe(edge)
            case _Kind.LISTS:
                self._take_lists(number, packed.body)
            case _Kind.END:
                if (known := self.end(number)) is not None:
                    known[0].inlet.ended(known[0], _ENDED)

    def _take_lists(self, number: int, body: bytes) -> None:
        if (known := self.incoming.get(number)) is None:
            return  # the consumer has left
        edge, label = known
        try:
            frames = unpacked(body)
        except errors_of_functions() as error:
            error.add_note("This came up when a list of elements from another process was unpickled.")
            self._failed(FlowFailed(label, error))
            return
        edge.inlet.arrived(edge, frames)


class RemoteEdges:
    """The edges between this process and others.

    Args:
        connections: what makes the connection to each other process, by its place.
        failed: called with the error if lists cannot be packed or unpacked.
        changed: called when :attr:`is_awaited` may have changed.
        most_bytes: the most bytes of an element that goes over; None: there is no limit.
    """

    def __init__(
        self,
        connections: Mapping[int, Connect],
        failed: Callable[[FlowFailed], object],
        changed: Callable[[], object] = lambda: None,
        *,
        most_bytes: int | None = None,
    ) -> None:
        self._links = {
            place: _Link(connect, place, failed, changed, most_bytes) for place, connect in connections.items()
        }

    @property
    def is_awaited(self) -> bool:
        """True while a list from another process may still come."""
        return any(link.incoming for link in self._links.values())

    def open(self) -> None:
        """Begins to read. All edges are known by now."""
        for link in self._links.values():
            link.connection.open()

    def close(self) -> None:
        """Closes the connections."""
        for link in self._links.values():
            link.connection.close()

    def producer(self, place: int, number: int, label: str) -> RemoteProducer:
        """Returns what stands for the outlet at the other end of the edge *number*; *label* names it in errors."""
        return RemoteProducer(self._links[place], number, label)

    def add_consumer(
        self, place: int, number: int, label: str, stage: int, subscribe: Callable[[Any], Edge[Frame]]
    ) -> RemoteConsumer:
        """Connects an outlet of this process to the other end of the edge *number*, and returns what stands for it.

        Args:
            place: of the other process.
            number: of the edge.
            label: names what sends the lists, in errors.
            stage: the index of the stage that sends them; 0 if it is a source.
            subscribe: subscribes the given inlet to the outlet.
        """
        link = self._links[place]
        consumer = RemoteConsumer(link, number, label, stage)
        link.outgoing[number] = subscribe(consumer)
        return consumer
