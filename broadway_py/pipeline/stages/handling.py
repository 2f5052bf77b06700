"""What processors and batch processors have in common: work is timed, put off, turned away, and cut into parts."""

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

#: What comes in: messages, or batches.
Item = TypeVar("Item")
#: What is handled at one time: a chunk, or a batch.
Work = TypeVar("Work")


class HandlingStage(PipelineStage, Generic[Item, Work]):
    """Handles one piece of work at a time. Subclasses implement :meth:`run` and what is abstract here.

    Args:
        services: of the pipeline.
        layer: name of the layer it belongs to, for logs and metrics.
        index: position within the layer.
        meter: of the layer.
        timeout_s: for one call of the layer's callback; None: as long as it likes.
        keyed: work of a key comes to this stage and no other.
    """

    #: True when work may hold messages that have failed already.
    takes_failed: ClassVar[bool]

    def __init__(
        self, services: Services, layer: str, index: int, meter: Meter, timeout_s: float | None, *, keyed: bool
    ) -> None:
        super().__init__(services, layer, index, meter, timeout_s)
        self.inlet: Inlet[Item] = Inlet(self.wake)
        self._keyed = keyed
        # Comes before what is in the inlet: put off because the slot is taken by a thread, or the rest of something.
        self._later: list[Item] = []
        # What is done with work that was taken.
        self._begin: Callable[[Work], Coroutine[Any, Any, None]] = self._process
        if self.journal is not None:
            self._begin = self._process_in_parts

    # --- of each kind

    async def _work(self, work: Work) -> Any:
        """Take *work* in hand, and do all that is to be done with it; what the end of its span says."""
        raise NotImplementedError

    def _messages_of(self, work: Work) -> Sequence[Message[Any]]:
        raise NotImplementedError

    def _pieces(self, taken: Sequence[Item]) -> Iterable[Work]:
        """What was taken from the inlet, as work."""
        raise NotImplementedError

    def _next_later(self) -> Work:
        """Take out what of :attr:`_later` comes first."""
        raise NotImplementedError

    def _begin_span_of(self, work: Work) -> Span | None:
        raise NotImplementedError

    def _end_span_of(self, span: Span, work: Work, result: Any) -> None:
        raise NotImplementedError

    def _put_off_rest(self, part: Part, work: Work) -> Work:
        """Let the rest of *work* wait; *part* of it as work of its own."""
        raise NotImplementedError

    async def _wait_for_turn(self, journal: StageJournal, part: Part, work: Work) -> tuple[Part, Work] | None:
        """Wait for the turn of *part*; what is left of it, or None when the stage was cut off first."""
        raise NotImplementedError

    # --- of all

    async def _process(self, work: Work) -> None:
        monotonic = self.services.clock.monotonic
        started = self.busy_since = monotonic()
        span = None
        if telemetry.active():
            # In hand from here on: handlers of telemetry are code of others.
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
        self.meter.busy_seconds += took
        self.meter.duration.observe(took)
        if span is not None:
            self._end_span_of(span, work, result)

    async def _process_in_parts(self, work: Work) -> None:
        """The first part of *work*, when its turn has come; the rest comes after it."""
        journal = self.journal
        assert journal is not None  # noqa: S101  # or this would not be called
        part = journal.first_part(self._messages_of(work))
        if part.rest:
            work = self._put_off_rest(part, work)
        if not journal.try_turn(alone=part.alone):
            left = await self._wait_for_turn(journal, part, work)
            if left is None:
                return
            part, work = left
        try:
            # Empty when a drain or a pause has taken all of it back meanwhile.
            if part.now:
                self.held = part.now
                journal.begin(part)
                if self.takes_failed or part.now[0].ok:
                    await self._process(work)
                else:
                    # Convicted while it was waiting here.
                    await self.conclusion.conclude((), part.now)
                    self.held = ()
        except BaseException:
            journal.note_crash(part)
            raise
        finally:
            journal.leave(part)

    async def _wait_for_slot(self) -> None:
        if self._keyed:
            # What is here belongs to this one, whoever else is free.
            await self.call.wait_for_slot()
        else:
            later, self._later = self._later, []
            self._later = list(self.inlet.step_aside(later))
            await self._wait_aside()

    async def _wait_aside(self) -> None:
        """Wait for the slot after the inlet has stepped aside, and join again.

        The drain does not wait for the thread. Then this stage joins only where nobody else is left, so that what
        still comes is turned away rather than kept.
        """
        is_free = False
        try:
            is_free = await self.call.wait_for_slot()
        finally:
            self.inlet.rejoin(where_needed=not is_free)

    async def _turn_away(self) -> bool:
        """The drain does not wait for the thread: what waits here goes back, or fails; True when no more can come."""
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
