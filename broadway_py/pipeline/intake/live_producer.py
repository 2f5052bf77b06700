"""Runs a producer: opens, pauses, drains and closes its copies, one after the other.

The producer's code may hang, or its client library may cancel it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from broadway_py import telemetry
from broadway_py._core.aggregation.reader import Reader
from broadway_py._core.backoff import Backoff
from broadway_py.clock import Clock
from broadway_py.durations import seconds_of
from broadway_py.error_text import name_of, text_of
from broadway_py.errors import PipelineCrashed, ProducerError, SourceRefused
from broadway_py.foreign import foreign_errors, type_name
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.intake.copies import Copies
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.intake.returning import returns_within_s
from broadway_py.producer import FailurePlan, Producer, ProducerContext
from broadway_py.producer_description import Delays
from broadway_py.request_counts import RequestCounts
from broadway_py.stage import Wake, first_completed

__all__ = ["CANCELLED_BY_LIBRARY", "CLOSE_S", "LiveProducer"]

log = logger("broadway_py.pipeline")

#: How many seconds a broken copy may take to close before the next one is opened.
CLOSE_S: Final = 5.0
#: After a source has refused the connection, wait at least this many seconds: repeated wrong passwords lock accounts.
_REFUSED_WAIT_S: Final = 10.0
CANCELLED_BY_LIBRARY: Final = "the client library cancelled the call, as it does when a connection dies"


class LiveProducer:
    """Runs the copies of a producer for one source. A source has one copy at a time.

    Args:
        copies: creates the copies; all sources of the producer share it.
        pipeline: the pipeline's name.
        name: the producer's name.
        index: position of the source among the sources of the producer.
        capacity: how many messages this source's share of the pipeline holds.
        clock: the pipeline's clock.
        gate: read when a copy opens, and when a copy is told to go on.
        stop: set when nothing more is to be fetched.
        wake: wakes the source.
        take_late: called with the messages that a copy still hands over when it is closed.
        failure: what happens to failed messages, as far as sources need to know it.
        requests: counts the requests of all copies of the producer.
        fail_fast: with True, raise if the very first attempt to open fails.
        internal: True for the pipeline's own source of submitted messages; it sends no telemetry.
        reader: learns whether the copy is there and may deliver, for the watermarks; None: nobody asks.
        trace_fields: the names of the headers that tell a trace.
    """

    def __init__(
        self,
        copies: Copies,
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
        requests: RequestCounts,
        fail_fast: bool,
        internal: bool,
        reader: Reader | None = None,
        trace_fields: frozenset[str] = frozenset(),
    ) -> None:
        #: Set once the first copy is open.
        self.opened = asyncio.Event()
        self.connected = False
        self.trouble: str | None = "not connected yet"
        self.connections_lost = 0
        #: The current copy, also while it connects.
        self.copy: Producer | None = None
        #: The error by which the current copy was lost.
        self.lost: ProducerError | None = None
        #: True if the current copy was told to pause.
        self.is_told_to_pause = False
        self._is_noted_as_lost = False
        self._copies = copies
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
        self._requests = requests
        self._fail_fast = fail_fast
        self._internal = internal
        self._reader = reader
        self._trace_fields = trace_fields
        if reader is not None:
            reader.works = self._works
        self._preparing: asyncio.Task[None] | None = None
        # Of the current copy, which it keeps alive. The copy itself may have another attribute of this name.
        self._context: ProducerContext | None = None
        self._log = log.bind(pipeline=pipeline, producer=name, index=index)

    @property
    def why_not_ready(self) -> str | None:
        """Returns why it is not connected, or is connected but does not do its work; None if there is no problem."""
        if self.trouble is not None:
            return self.trouble
        obstacle = None if self.copy is None else self.copy.obstacle
        return None if obstacle is None else f"degraded: {obstacle}"

    def new_backoff(self) -> Delays:
        """Returns the producer's back-off, or the default one."""
        return self._copies.description.backoff() or Backoff()

    async def open(self) -> Producer | None:
        """Open a new copy and return it; None if a stop came first."""
        self._context = context = ProducerContext(
            pipeline=self._pipeline,
            producer=self._name,
            index=self._index,
            capacity=self._capacity,
            clock=self._clock,
            failure=self._failure,
            requests=self._requests,
            trace_fields=self._trace_fields,
            on_lost=lambda error: self._report_lost(copy, error),
        )
        copy = self.copy = self._copies.create(context)
        self.lost = None
        self._is_noted_as_lost = False
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
        elif self._reader is not None:
            self._reader.reads(self._clock.monotonic())
        return None if self._stop.is_set() else copy

    def _report_lost(self, copy: Producer, error: ProducerError) -> None:
        # A copy that was closed may still report that its connection ended. That does not affect the next copy.
        if copy is self.copy:
            self.lost = error
            self._note_lost()
            self._wake.set()

    def _note_lost(self, error: ProducerError | None = None) -> None:
        """Begin a standstill of the watermarks, before the messages of the copy are let go. A second call does nothing.

        The copy may be paused, or not have been opened to the end: it can hold messages all the same.
        """
        may_hold = self.connected or (error is not None and error.may_have_delivered)
        if self._reader is not None and may_hold and not self._is_noted_as_lost:
            self._is_noted_as_lost = True
            returns_within = returns_within_s(self._copies.description, process_died=False, complain=self._log.error)
            self._reader.lost(self._clock.monotonic(), returns_within)

    def _works(self) -> bool:
        return self.copy is None or self.copy.obstacle is None

    async def note_away(self, error: ProducerError, backoff: Delays, lasted_s: float) -> float:
        """Close the broken copy and log the loss. Returns the time at which the next copy may be opened.

        Raises:
            PipelineCrashed: the first connect failed with ``fail_fast``, or the back-off says to stop.
        """
        if self._fail_fast and not self.opened.is_set():
            self._log.error("the source is not available; not trying again", reason=text_of(error))
            await self.close_copy(CLOSE_S)
            raise PipelineCrashed(
                f"producer {self._name!r} could not connect at the start: {text_of(error)}"
            ) from error
        self._note_lost(error)
        if self.connected:
            self.connections_lost += 1
        self.connected, self.trouble = False, text_of(error)
        telemetry.execute("broadway.producer.lost", self._now(), {**self._about(), "reason": text_of(error)})
        wait_s = self._wait_of(backoff, lasted_s, _REFUSED_WAIT_S if isinstance(error, SourceRefused) else 0.0)
        if wait_s == math.inf:
            self._log.error("the source is not available; not trying again", reason=text_of(error))
            await self.close_copy(CLOSE_S)
            raise PipelineCrashed(
                f"producer {self._name!r} lost its source, and its back-off allows no more tries: {text_of(error)}"
            ) from error
        self._log.warning(
            "the source is not available; trying again", reason=text_of(error), wait_seconds=round(wait_s, 2)
        )
        await self.close_copy(CLOSE_S)
        # The wait begins after the close. Otherwise copies that a busy loop closes late would all reconnect at once.
        return self._clock.monotonic() + wait_s

    def _wait_of(self, backoff: Delays, lasted_s: float, at_least_s: float) -> float:
        """Returns the wait that the producer's back-off says, or a default if that is not a duration."""
        try:
            said: object = backoff.failed(lasted_s, at_least_s)
            return math.inf if said == math.inf else max(0.0, seconds_of(said, "backoff().failed()"))
        except ValueError as wrong:
            self._log.error("the producer's back-off is not valid; waiting 10 s", reason=str(wrong))
            return _REFUSED_WAIT_S

    def prepare_for_draining(self, copy: Producer) -> asyncio.Task[None]:
        """Begin to prepare *copy*, at most once. A waiting ``handle_demand`` may need this to return."""
        if self._preparing is None:
            if self._context is not None:
                self._context.begin_draining()
            self._preparing = asyncio.ensure_future(self._prepare(copy))
        return self._preparing

    async def _prepare(self, copy: Producer) -> None:
        try:
            await _passing_cancellation(copy.prepare_for_draining())
        except foreign_errors() as error:
            # A broken source must not stop the drain.
            self._log.warning("the producer could not prepare for draining", exception=name_of(error))

    def end_draining(self) -> list[Message[Any]]:
        """Take nothing more from the current copy. Returns what it has handed over and nobody has picked up."""
        return [] if self._context is None else self._context.end_draining()

    async def close_copy(self, most_s: float | None) -> None:
        """Release the current copy within *most_s* seconds; with None, there is no limit."""
        self._note_lost()
        copy, self.copy = self.copy, None
        self.connected = False
        if copy is None:
            return
        late, self._context = self.end_draining(), None
        if late:
            await self._take_late(late)
        try:
            async with self._clock.timeout(most_s):
                await _passing_cancellation(copy.close())
        except foreign_errors() as error:
            # The copy is broken; only the next copy matters.
            self._log.debug("closing a broken producer raised an error", exception=name_of(error))

    async def close(self) -> None:
        """Release the last copy. Called when every message is settled. Only the deadline of the stop limits it."""
        # It is not lost: no message of it will come again in this run.
        self._is_noted_as_lost = True
        try:
            await self.close_copy(None)
            await _passing_cancellation(self._copies.description.end_lost_copies())
        except asyncio.CancelledError:
            self._log.warning("the producer did not close by the deadline of the stop; it was cancelled")
            raise
        except foreign_errors() as error:
            # The other sources still have to be closed.
            self._log.warning("the producer could not end its lost copies", exception=name_of(error))

    async def set_paused(self, *, paused: bool) -> None:
        """Tell the copy to pause or resume. The gate is already set. A stopping source is never resumed."""
        self._wake.set()
        copy = self.copy
        if copy is not None and self.connected and (paused or not self._stop.is_set()):
            await self._tell(copy, paused=paused)

    async def _tell(self, copy: Producer, *, paused: bool) -> None:
        self.is_told_to_pause = paused
        if self._reader is not None and paused:
            self._reader.pauses(self._clock.monotonic())
        elif self._reader is not None and not self._gate.closed and not self._is_noted_as_lost:
            # A breaker that lets a probe through is not closed yet: the copy may deliver no more than that.
            self._reader.reads(self._clock.monotonic())
        try:
            if paused:
                await _passing_cancellation(copy.pause())
            else:
                # While the breaker is open, the copy may only fetch one message as a probe.
                await _passing_cancellation(copy.resume_for(1) if self._gate.broken else copy.resume())
        except ProducerError as error:
            self._report_lost(copy, error)

    def resize(self, capacity: int) -> None:
        """Tell the copy that the pipeline can now hold *capacity* of its messages."""
        self._capacity = capacity
        if self.copy is not None and self._context is not None and self.connected:
            self._context.capacity = capacity
            self.copy.resize(capacity)

    def _now(self) -> dict[str, float]:
        clock = self._clock
        return {"system_time": clock.wall(), "monotonic_time": clock.monotonic()}

    def _about(self) -> dict[str, Any]:
        return {"pipeline": self._pipeline, "producer": self._name, "index": self._index}


async def _passing_cancellation(work: Awaitable[None]) -> None:
    """Await a producer's *work*.

    Raises:
        ProducerError: the client library cancelled the work; the pipeline did not ask for that.
        RuntimeError: the work raised something that is not an :class:`Exception`. A ``SystemExit`` in this task would
            end the event loop.
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
        raise RuntimeError(f"the producer raised {type_name(error)}, which is not an Exception") from error


async def _done_unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Run *work*. Returns False if *stop* was set first; then *work* is cancelled.

    Raises:
        ProducerError: *work* raised it, or a library cancelled *work*.
    """
    doing = asyncio.ensure_future(_passing_cancellation(work))
    try:
        await first_completed(doing, stop.wait())
        if not doing.done():
            return False
        if doing.cancelled():
            raise ProducerError(CANCELLED_BY_LIBRARY)
        doing.result()
        return True
    finally:
        doing.cancel()
        await asyncio.wait({doing}, timeout=CLOSE_S)
