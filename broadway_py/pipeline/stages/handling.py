"""The common part of processors and batch processors: measures, postpones, gives back and divides work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from broadway_py import telemetry
from broadway_py.message import Message
from broadway_py.pipeline.poison.stage_journal import Part, StageJournal
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Inlet
from broadway_py.telemetry import Span

__all__ = ["HandlingStage"]

#: The type that comes in: messages or batches.
Item = TypeVar("Item")
#: The type that is handled at one time: a chunk or a batch.
Work = TypeVar("Work")


class HandlingStage(PipelineStage, Generic[Item, Work]):
    """Handles one piece of work at a time. Subclasses implement :meth:`run` and the abstract methods.

    Args:
        services: the services of the pipeline.
        layer: name of the layer, for logs and metrics.
        index: position within the layer.
        meter: the figures of the layer.
        timeout_s: seconds that one call of the layer's callback may take; None for no limit.
        keyed: True if all work for a key comes to this stage and no other.
    """

    #: True if work may contain messages that have failed already.
    takes_failed: ClassVar[bool]

    def __init__(
        self, services: Services, layer: str, index: int, meter: Meter, timeout_s: float | None, *, keyed: bool
    ) -> None:
        super().__init__(services, layer, index, meter, timeout_s)
        self.inlet: Inlet[Item] = Inlet(self.wake)
        self._keyed = keyed
        # Postponed work, which comes before the work in the inlet: a thread occupies the slot, or it is the rest of
        # work that was divided.
        self._later: list[Item] = []
        # Called with each piece of work that was taken.
        self._begin: Callable[[Work], Coroutine[Any, Any, None]] = self._process
        if self.journal is not None:
            self._begin = self._process_in_parts

    # --- implemented by each kind of stage

    async def _work(self, work: Work) -> Any:
        """Handle *work* completely. Returns the result that the end of its span reports."""
        raise NotImplementedError

    def _messages_of(self, work: Work) -> Sequence[Message[Any]]:
        raise NotImplementedError

    def _pieces(self, taken: Sequence[Item]) -> Iterable[Work]:
        """Returns the items taken from the inlet as pieces of work."""
        raise NotImplementedError

    def _next_later(self) -> Work:
        """Take out and return the first work in :attr:`_later`."""
        raise NotImplementedError

    def _begin_span_of(self, work: Work) -> Span | None:
        raise NotImplementedError

    def _end_span_of(self, span: Span, work: Work, result: Any) -> None:
        raise NotImplementedError

    def _put_off_rest(self, part: Part, work: Work) -> Work:
        """Postpone the rest of *work*. Returns the messages of *part* that are handled now, as work."""
        raise NotImplementedError

    async def _wait_for_turn(self, journal: StageJournal, part: Part, work: Work) -> tuple[Part, Work] | None:
        """Wait for the turn of *part*. Returns what is left of it, or None if the stage was cut off first."""
        raise NotImplementedError

    # --- common to all

    async def _process(self, work: Work) -> None:
        monotonic = self.services.clock.monotonic
        started = self.busy_since = monotonic()
        span = None
        if telemetry.active():
            # The messages count as held from here: a telemetry handler may raise.
            self.held = self._messages_of(work)
            span = self._begin_span_of(work)
        try:
            result = await self._work(work)
        except BaseException as error:
            if span is not None and not isinstance(error, asyncio.CancelledError | GeneratorExit):
                span.exception(error)
            raise
        self.held = ()
        if self.call.own_contexts:
            self.call.own_contexts.clear()
        self.busy_since = None
        took = monotonic() - started
        self.busy_seconds += took
        self.meter.busy_seconds += took
        self.meter.duration.observe(took)
        if span is not None:
            self._end_span_of(span, work, result)

    async def _process_in_parts(self, work: Work) -> None:
        """Handle the first part of *work* when its turn has come. The rest follows later."""
        journal = self.journal
        assert journal is not None  # noqa: S101  # this is called only with a journal
        part = journal.first_part(self._messages_of(work))
        if part.rest:
            work = self._put_off_rest(part, work)
        if not journal.try_turn(alone=part.alone):
            left = await self._wait_for_turn(journal, part, work)
            if left is None:
                return
            part, work = left
        try:
            # Empty if a drain or a pause has taken all messages back meanwhile.
            if part.now:
                self.held = part.now
                journal.begin(part)
                if self.takes_failed or part.now[0].ok:
                    await self._process(work)
                else:
                    # The message was convicted while it waited here.
                    await self.conclusion.conclude((), part.now)
                    self.held = ()
        except BaseException:
            journal.note_crash(part)
            raise
        finally:
            journal.leave(part)

    async def _wait_for_slot(self) -> None:
        if self._keyed:
            # This work must stay at this stage, even if others are free.
            await self.call.wait_for_slot()
        else:
            later, self._later = self._later, []
            self._later = list(self.inlet.step_aside(later))
            await self._wait_aside()

    async def _wait_aside(self) -> None:
        """Wait for the slot after the inlet has stepped aside, then join again.

        A drain does not wait for the thread. In that case this stage takes work again only from stages that have no
        other consumer, so that messages that still come are given back and do not wait.
        """
        is_free = False
        try:
            is_free = await self.call.wait_for_slot()
        finally:
            self.inlet.rejoin(where_needed=not is_free)

    async def _turn_away(self) -> bool:
        """Give back, or fail, the work that waits here, because a drain does not wait for the thread.

        Returns True if no more work can come.
        """
        while self._later:
            await self.conclusion.give_back(self._messages_of(self._next_later()))
        while self.inlet:
            edge, taken, ask = self.inlet.take()
            for work in self._pieces(taken):
                await self.conclusion.give_back(self._messages_of(work))
            if ask:
                edge.ask(ask)
        if not self.inlet.finished:
            await self.wake.wait()
        return self.inlet.finished
