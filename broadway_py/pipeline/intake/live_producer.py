"""The producer that runs: one copy after the other is opened, lost, paused, prepared for the drain, closed.

Its code may hang, or be cancelled by its client library.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from broadway_py import telemetry
from broadway_py._core.backoff import Backoff
from broadway_py.clock import Clock
from broadway_py.error_text import name_of, text_of
from broadway_py.errors import PipelineCrashed, ProducerError, SourceRefused
from broadway_py.foreign import foreign_errors, type_name
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.options import seconds_of
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.producer import Delays, FailurePlan, Producer
from broadway_py.stage import Wake

__all__ = ["CANCELLED_BY_LIBRARY", "CLOSE_S", "LiveProducer"]

log = logger("broadway_py.pipeline")

#: How long a broken copy may take to close before the next one is opened.
CLOSE_S: Final = 5.0
#: A source that refused us is asked again no sooner than this: repeated wrong passwords lock accounts.
_REFUSED_WAIT_S: Final = 10.0
CANCELLED_BY_LIBRARY: Final = "the client library cancelled the call, as it does when a connection dies"


class LiveProducer:
    """Runs the copies of a producer for one source, which has one copy at a time.

    Args:
        description: the user's producer object.
        pipeline: its name.
        name: the producer's.
        index: position of the source among those of the producer.
        capacity: how many messages this source's share of the pipeline holds.
        clock: of the pipeline.
        gate: looked at when a copy opens, and when one is told to go on.
        stop: set when nothing more is to be fetched.
        wake: the source waits for it.
        take_late: called with what a copy still hands over when it is closed.
        failure: what becomes of failed messages, as sources have to know it.
        fail_fast: raise when the very first attempt to open fails.
        internal: True for the pipeline's own source of submitted messages, which telemetry does not hear of.
    """

    def __init__(
        self,
        description: Producer,
        *,
        pipeline: str,
        name: str,
        index: int,
        capacity: int,
        clock: Clock,
        gate: Gate,
        stop: asyncio.Event,
        wake: Wake,
        take_late: Callable[[Sequence[Message[Any]]], Awaitable[None]],
        failure: FailurePlan | None,
        fail_fast: bool,
        internal: bool,
    ) -> None:
        #: Set once the first copy is open.
        self.opened = asyncio.Event()
        self.connected = False
        self.trouble: str | None = "not connected yet"
        self.connections_lost = 0
        #: The copy at work, also while it connects.
        self.copy: Producer | None = None
        #: What the copy at work was lost by.
        self.lost: ProducerError | None = None
        #: The copy at work was told to pause.
        self.is_told_to_pause = False
        self._description = description
        self._pipeline = pipeline
        self._name = name
        self._index = index
        self._capacity = capacity
        self._clock = clock
        self._gate = gate
        self._stop = stop
        self._wake = wake
        self._take_late = take_late
        self._failure = failure
        self._fail_fast = fail_fast
        self._internal = internal
        self._preparing: asyncio.Task[None] | None = None
        self._log = log.bind(pipeline=pipeline, producer=name, index=index)

    @property
    def why_not_ready(self) -> str | None:
        """Why it is not connected, or does not do its work though it is; None when all is well."""
        if self.trouble is not None:
            return self.trouble
        obstacle = None if self.copy is None else self.copy.obstacle
        return None if obstacle is None else f"degraded: {obstacle}"

    def new_backoff(self) -> Delays:
        """The producer's back-off, or ours."""
        return self._description.backoff() or Backoff()

    async def open(self) -> Producer | None:
        """Open a fresh copy; None when a stop came first."""
        copy = self.copy = self._description.copy(
            index=self._index,
            capacity=self._capacity,
            pipeline=self._pipeline,
            lost=lambda error: self._report_lost(copy, error),
        )
        copy.clock = self._clock
        copy.failure = self._failure
        self.lost = None
        self._preparing = None
        self.is_told_to_pause = False
        if not await _done_unless_stopped(copy.open(), self._stop):
            return None
        self.connected, self.trouble = True, None
        self.opened.set()
        if not self._internal:
            telemetry.execute("broadway.producer.connected", self._now(), self._about())
        if self._gate.closed:
            await _passing_cancellation(copy.pause())
        return None if self._stop.is_set() else copy

    def _report_lost(self, copy: Producer, error: ProducerError) -> None:
        # A copy that was closed may still hear of its connection's end; the next one is not concerned.
        if copy is self.copy:
            self.lost = error
            self._wake.set()

    async def note_away(self, error: ProducerError, backoff: Delays, lasted_s: float) -> float:
        """Close what is broken, and say so; when the next copy may be opened."""
        if self._fail_fast and not self.opened.is_set():
            self._log.error("the source is away; not trying again", reason=text_of(error))
            await self.close_copy(CLOSE_S)
            raise PipelineCrashed(
                f"producer {self._name!r} could not connect at the start: {text_of(error)}"
            ) from error
        if self.connected:
            self.connections_lost += 1
        self.connected, self.trouble = False, text_of(error)
        telemetry.execute("broadway.producer.lost", self._now(), {**self._about(), "reason": text_of(error)})
        wait_s = self._wait_of(backoff, lasted_s, _REFUSED_WAIT_S if isinstance(error, SourceRefused) else 0.0)
        if wait_s == math.inf:
            self._log.error("the source is away; not trying again", reason=text_of(error))
            await self.close_copy(CLOSE_S)
            raise PipelineCrashed(
                f"producer {self._name!r} was lost, and its back-off says to stop: {text_of(error)}"
            ) from error
        self._log.warning("the source is away; trying again", reason=text_of(error), wait_seconds=round(wait_s, 2))
        await self.close_copy(CLOSE_S)
        # Counted from here: copies that a busy loop closes late, all at once, would else come back all at once.
        return self._clock.monotonic() + wait_s

    def _wait_of(self, backoff: Delays, lasted_s: float, at_least_s: float) -> float:
        """What the producer's back-off says; ours where that is no duration."""
        try:
            said: object = backoff.failed(lasted_s, at_least_s)
            return math.inf if said == math.inf else max(0.0, seconds_of(said, "backoff().failed()"))
        except ValueError as wrong:
            self._log.error("the producer's back-off is of no use; waiting 10 s", reason=str(wrong))
            return _REFUSED_WAIT_S

    def prepare_for_draining(self, copy: Producer) -> asyncio.Task[None]:
        """Begin once; a ``handle_demand`` that is waiting may need it to return."""
        if self._preparing is None:
            copy.begin_draining()
            self._preparing = asyncio.ensure_future(self._prepare(copy))
        return self._preparing

    async def _prepare(self, copy: Producer) -> None:
        try:
            await _passing_cancellation(copy.prepare_for_draining())
        except foreign_errors() as error:
            # A broken source must not keep us from draining.
            self._log.warning("the producer could not prepare for draining", exception=name_of(error))

    async def close_copy(self, most_s: float | None) -> None:
        """Release the copy at work, within *most_s* seconds; None: however long it takes."""
        copy, self.copy = self.copy, None
        self.connected = False
        if copy is None:
            return
        late = copy.end_draining()
        if late:
            await self._take_late(late)
        try:
            async with self._clock.timeout(most_s):
                await _passing_cancellation(copy.close())
        except foreign_errors() as error:
            # It is broken: what matters is the next copy.
            self._log.debug("closing a broken producer raised", exception=name_of(error))

    async def close(self) -> None:
        """Release the last copy; called when every message was settled. Only the deadline of the stop ends it."""
        try:
            await self.close_copy(None)
            await _passing_cancellation(self._description.end_lost_copies())
        except asyncio.CancelledError:
            self._log.warning("closing the producer took until the deadline of the stop; it was cut off")
            raise
        except foreign_errors() as error:
            # The other sources still have to be closed.
            self._log.warning("the producer could not end its lost copies", exception=name_of(error))

    async def set_paused(self, *, paused: bool) -> None:
        """Tell the copy; the gate is set already. A source that stops does not fetch again, whoever resumes."""
        self._wake.set()
        copy = self.copy
        if copy is not None and self.connected and (paused or not self._stop.is_set()):
            await self._tell(copy, paused=paused)

    async def _tell(self, copy: Producer, *, paused: bool) -> None:
        self.is_told_to_pause = paused
        try:
            if paused:
                await _passing_cancellation(copy.pause())
            else:
                # With the breaker open, only to probe.
                await _passing_cancellation(copy.resume_for(1) if self._gate.broken else copy.resume())
        except ProducerError as error:
            self._report_lost(copy, error)

    def resize(self, capacity: int) -> None:
        """The pipeline can hold *capacity* messages of this copy from now on."""
        self._capacity = capacity
        if self.copy is not None and self.connected:
            self.copy.resize(capacity)

    def _now(self) -> dict[str, float]:
        clock = self._clock
        return {"system_time": clock.wall(), "monotonic_time": clock.monotonic()}

    def _about(self) -> dict[str, Any]:
        return {"pipeline": self._pipeline, "producer": self._name, "index": self._index}


async def _passing_cancellation(work: Awaitable[None]) -> None:
    """Await a producer's *work*; a cancellation that nobody asked for becomes a :class:`ProducerError`.

    What is no :class:`Exception` becomes one: a ``SystemExit`` in a task of ours would end the event loop.
    """
    try:
        await work
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ProducerError(CANCELLED_BY_LIBRARY) from None
    except foreign_errors() as error:
        if isinstance(error, Exception):
            raise
        raise RuntimeError(f"the producer raised {type_name(error)}, which is no Exception") from error


async def _done_unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Do *work*; False when *stop* was set first, and *work* was called off.

    Raises:
        ProducerError: from *work*, or because a library cancelled it.
    """
    doing = asyncio.ensure_future(_passing_cancellation(work))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        if doing.cancelled():
            raise ProducerError(CANCELLED_BY_LIBRARY)
        doing.result()
        return True
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.wait({doing, stopping}, timeout=CLOSE_S)
