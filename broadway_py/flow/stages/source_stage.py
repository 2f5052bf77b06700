"""What all sources of a flow share: they read while lists are wanted, and send what they have read."""

from __future__ import annotations

from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.errors import FlowFailed
from broadway_py.flow.failure import ElementPlace, flow_failed, place_of
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorError, errors_of_functions
from broadway_py.flow.plan import PlannedSource
from broadway_py.flow.stages.exchange import Exchange
from broadway_py.flow.stages.file_lines import UnreadableLineError
from broadway_py.flow.stages.intake import FlowOutlet
from broadway_py.flow.stages.list_size import ListSize
from broadway_py.flow.stages.read_bytes import ReadBytes
from broadway_py.stage import Wake

__all__ = ["SourceStage"]

#: The most elements of small lists that are sent together.
_MOST_AT_ONCE: Final = 1_000


class SourceStage:
    """A source. Subclasses read.

    Args:
        planned: the source.
        exchange: cuts its lists into lists for the next layer.
        clock: for waits.
    """

    #: What has failed, in errors.
    operator = "from_iterable"
    #: A source is one stage.
    index = 0

    def __init__(self, planned: PlannedSource, exchange: Exchange, clock: Clock) -> None:
        self.planned = planned
        #: How many elements were read.
        self.given = 0
        #: How much was read of files.
        self.read_bytes = ReadBytes()
        self._exchange = exchange
        self._clock = clock
        way = planned.way
        self._size = ListSize(way.first_chunk, way.chunk, way.lists * way.stages)
        self._wake = self._make_wake()
        #: Its lists leave here.
        self.outlet = FlowOutlet(exchange.dispatcher(), self._wake)
        # Lists that are sent together.
        self._added: list[Frame] = []
        # How many elements were read and not sent.
        self._unsent = 0
        self._next_number = 0

    def _make_wake(self) -> Wake:
        return Wake()

    @property
    def name(self) -> str:
        """What the task is called."""
        return f"flow.source.{self.planned.number}"

    async def run(self) -> None:
        """Reads until the end, or until nobody wants anything any more.

        Raises:
            FlowFailed: the source has raised, or a function of the user has failed.
        """
        try:
            await self._read()
            if self.outlet.is_left:
                return
            if self.planned.way.is_ordered:
                self._send([], None, is_last=True)
            while self.outlet.backlog and not self.outlet.is_left:
                await self._wake.wait()
            self.outlet.finish()
        except OperatorError as error:
            raise flow_failed(error.failed, 0) from error.failed.error
        except UnreadableLineError as error:
            cause = error.__cause__ or error
            raise FlowFailed(self.operator, cause, place=place_of(error.first, error.index)) from cause
        except FlowFailed:
            raise
        except errors_of_functions(is_async=True) as error:
            raise self._failed(error) from error
        finally:
            self._wake.close()

    def _failed(self, error: BaseException) -> FlowFailed:
        return FlowFailed(
            self.operator, error, place=f"element {self.given + self._unsent} of source {self.planned.number}"
        )

    async def _read(self) -> None:
        """Reads and sends until the end, or until nobody wants anything any more."""
        raise NotImplementedError

    async def _is_wanted(self) -> bool:
        """Waits until a list is wanted. Returns False if none will ever be."""
        outlet = self.outlet
        while not outlet.is_left:
            if outlet.demand > 0:
                return True
            await self._wake.wait()
        return False

    def _list_size(self) -> int:
        return self._size.now

    def _lists_at_once(self) -> int:
        """Returns how many lists are sent together: a dispatcher looks at all its consumers each time."""
        if self.planned.way.sharing != "spread":
            return 1
        return max(1, min(self.outlet.demand, _MOST_AT_ONCE // self._size.now))

    def _send(self, elements: list[Any], first: Any, *, is_last: bool = False) -> None:
        """Sends a list; *first* is the place of its first element."""
        self._add(elements, first, is_last=is_last)
        self._flush()

    def _add(self, elements: list[Any], first: Any, *, is_last: bool = False) -> None:
        """Adds a list to those that :meth:`_flush` sends."""
        origin = None
        if self.planned.way.is_ordered:
            origin = Origin(self.planned.number, self._next_number)
            self._next_number += 1
        self.given += len(elements)
        frame = Frame(elements, origin=origin, first=first, is_last=is_last)
        if self._exchange.is_plain and 0 < len(elements) <= self._exchange.most:
            self._added.append(frame)
        else:
            self._added += self._exchange.split(frame)

    def _add_elements(self, elements: list[Any]) -> None:
        self._add(elements, ElementPlace(self.planned.number, self.given))

    def _flush(self) -> None:
        added, self._added = self._added, []
        if added:
            self.outlet.dispatch(added)
            if not self._size.is_fixed:
                self._size.note(len(added), self._clock.monotonic())
