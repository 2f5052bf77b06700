"""Where lists leave a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from broadway_py.flow.frames import Frame
from broadway_py.flow.stages.intake import Producer, subscribe
from broadway_py.stage import Edge, Inlet, Wake

__all__ = ["FlowExit"]


class FlowExit:
    """Where lists leave the flow. Its user takes them with :meth:`take`, and says when each is used up."""

    def __init__(self) -> None:
        self.wake = Wake()
        self._inlet: Inlet[Frame] = Inlet(self.wake)
        #: True: nobody waits for single lists.
        self.takes_at_once = False
        #: How many elements have left.
        self.taken = 0
        #: Returns how many of the lists that were taken wait elsewhere for who reads them.
        self.passed_on: Callable[[], int] = int

    def subscribe(self, outlet: Producer, lists: int) -> None:
        """Subscribes to a stage of the last layer, or a source."""
        subscribe(outlet, self._inlet, lists, 0)

    def ask_first(self) -> None:
        """Asks for the first lists."""
        for edge in self._inlet.edges:
            edge.ask(edge.credit.max_demand)

    @property
    def has_ended(self) -> bool:
        """True if no more lists come."""
        return self._inlet.finished

    @property
    def waiting(self) -> int:
        """How many lists wait for who reads them."""
        return len(self._inlet.chunks) + self.passed_on()

    def take(self) -> tuple[list[Any], Edge[Frame]] | None:
        """Returns the elements of the next list, and whom to ask for another one; None: there is none now."""
        if not self._inlet:
            return None
        edge, frames, _ = self._inlet.take()
        elements = frames[0].elements
        self.taken += len(elements)
        return elements, edge

    def leave(self) -> None:
        """Ends the subscriptions: nothing more is wanted."""
        for edge in list(self._inlet.edges):
            edge.outlet.unsubscribe(edge)
