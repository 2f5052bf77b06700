"""What happens to a list between two layers: its event times are read, and it is cut into a list for each stage."""

from __future__ import annotations

from operator import attrgetter
from sys import maxsize
from typing import TYPE_CHECKING, Final

from broadway_py._core.dispatch import BroadcastDispatcher, DemandDispatcher, Dispatcher, PartitionDispatcher
from broadway_py.flow.frames import Frame
from broadway_py.flow.operator_errors import OperatorErrors
from broadway_py.flow.plan import Way
from broadway_py.flow.stages.cutting import cut
from broadway_py.stage import Edge

if TYPE_CHECKING:
    from broadway_py.flow.stages.routing import Routing

__all__ = ["Exchange"]

_PARTITION: Final = attrgetter("partition")


class Exchange:
    """Makes each list that leaves a stage or a source into lists for the stages of the next layer.

    Args:
        way: where they go.
        errors: decides what an error of a key function, or of the ``by`` of a window, means.
        in_one_process: all of the flow is in this process, so any hashable key has a stage.
    """

    def __init__(self, way: Way, errors: OperatorErrors, *, in_one_process: bool = True) -> None:
        self._way = way
        # The stage that gets the next list, where they get lists in turn.
        self._turn = 0
        # What leaves the flow, or is gathered, goes on in lists of any length.
        has_limit = way.to is not None and not way.is_gathered
        #: The most elements of a list that is sent.
        self.most = way.chunk if has_limit else maxsize
        #: False: lists go on as they are, and no function of the user is called.
        self.has_work = _has_work(way)
        self._routing: Routing | None = None
        if self.has_work:
            # Worker processes start faster without it.
            from broadway_py.flow.stages.routing import Routing  # noqa: PLC0415

            self._routing = Routing(way, errors, in_one_process=in_one_process)
        #: True: :meth:`split` would return each list as it is, and no other one, if it has elements and not too many.
        self.is_plain = not (self.has_work or way.sharing in {"by_key", "in_turn"} or way.is_ordered or way.side)

    def dispatcher(self) -> Dispatcher[Edge[Frame], Frame]:
        """Returns a dispatcher for what :meth:`split` returns."""
        if self._way.sharing == "to_all":
            return BroadcastDispatcher()
        if self._way.sharing == "spread":
            return DemandDispatcher()
        return PartitionDispatcher(self._way.stages, hash=_PARTITION)

    def split(self, frame: Frame) -> list[Frame]:
        """Returns the lists that are sent in the place of *frame*.

        Raises:
            OperatorError: a function of the user has failed, and the flow ends with it.
        """
        way = self._way
        if way.side or way.sharing == "in_turn":
            frame = frame.part(0, frame.elements, frame.stamped)
            frame.side = way.side
        if self._routing is not None and frame.elements:
            parts = self._routing.parts_of(frame)
        elif way.sharing == "by_key":
            parts = [frame.part(place, []) for place in range(way.stages)]
        else:
            parts = [frame]
        if way.sharing == "in_turn":
            whole, chosen = parts[0], self._turn
            self._turn = (chosen + 1) % way.stages
            parts = [whole.part(place, []) for place in range(way.stages) if place != chosen]
            whole.partition = chosen
            parts.append(whole)
        if len(frame.elements) > self.most:
            parts = [piece for part in parts for piece in cut(part, self.most)]
        return parts if way.is_ordered else [part for part in parts if part.elements]


def _has_work(way: Way) -> bool:
    """Returns True if a function of the user is called, or a key is needed, for each element that goes this *way*."""
    window, by_key = way.window, way.by_key
    is_timed = window is not None and window.by is not None
    needs_keys = way.sharing == "by_key" or (window is not None and window.kind == "session")
    return is_timed or (by_key is not None and needs_keys)
