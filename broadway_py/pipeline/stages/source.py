"""One copy of a producer at work: opened, asked, lost, opened again, drained."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from broadway_py import telemetry
from broadway_py._core.backoff import Backoff
from broadway_py._core.ledger import Ledger
from broadway_py._core.settlement import can_give_back
from broadway_py.error_text import name_of, text_of
from broadway_py.errors import PipelineCrashed, ProducerError, SourceRefused
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.options import seconds_of
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.intake.live_producer import (
    CANCELLED_BY_LIBRARY,
    CLOSE_S,
    done_unless_stopped,
    passing_cancellation,
)
from broadway_py.pipeline.intake.receive import Intake
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.producer import Delays, Producer
from broadway_py.stage import Inlet, Outlet

__all__ = ["Source"]

log = logger("broadway_py.pipeline")

#: A source that refused us is asked again no sooner than this: repeated wrong passwords lock accounts.
_REFUSED_WAIT_S = 10.0


class Source(PipelineStage):
    """Runs one copy of *description* after the other.

    Args:
        services: of the pipeline.
        description: the user's producer object.
        ledger: the producer's books, shared by its copies.
        gate: rate limit and pause.
        meter: of the processors, in front of whom a message has failed that never reached them.
        index: position among the copies.
        capacity: how many messages this copy's share of the pipeline holds.
        fail_fast: raise when the very first attempt to open fails.
        transformer: called on every message that comes in.
        internal: True for the pipeline's own source of submitted messages, which telemetry does not hear of.
    """

    def __init__(
        self,
        services: Services,
        description: Producer,
        ledger: Ledger,
        gate: Gate,
        meter: Meter,
        *,
        index: int,
        capacity: int,
        fail_fast: bool,
        transformer: Callable[[Message[Any]], object] | None,
        internal: bool = False,
    ) -> None:
        super().__init__(services, f"producer:{ledger.producer}", index, meter)
        self.ledger = ledger
        self.outlet: Outlet[Message[Any]]
        #: Set once the first copy is open.
        self.opened = asyncio.Event()
        self.connected = False
        self.trouble: str | None = "not connected yet"
        self.connections_lost = 0
        #: The source said that there is no more.
        self.ended = False
        self._description = description
        self._capacity = capacity
        self._gate = gate
        self._fail_fast = fail_fast
        self._intake = Intake(
            services.name, index, ledger, services.clock, transformer=transformer, room=CleanRoom(services.base)
        )
        self._internal = internal
        self._copy: Producer | None = None
        self._lost: ProducerError | None = None
        self._stop = asyncio.Event()
        self._preparing: asyncio.Task[None] | None = None
        self._probing = False
        # The copy at work was.
        self._is_told_to_pause = False
        # No stage is left that would take anything.
        self._ended = False
        # Taken in, but not let through by the rate limit.
        self._rest: list[Message[Any]] = []
        self._log = log.bind(pipeline=services.name, producer=ledger.producer, index=index)

    @property
    def copy(self) -> Producer | None:
        """The copy at work, also while it connects."""
        return self._copy

    @property
    def why_not_ready(self) -> str | None:
        """Why it is not connected, or does not do its work though it is; None when all is well."""
        if self.trouble is not None:
            return self.trouble
        obstacle = None if self._copy is None else self._copy.obstacle
        return None if obstacle is None else f"degraded: {obstacle}"

    async def run(self) -> None:
        """Fetch until the source ends or a stop was asked for. The last copy stays open: see :meth:`close`."""
        backoff = self._description.backoff() or Backoff()
        while not self._stop.is_set() and not self.call.cut:
            opened_at: float | None = None
            try:
                copy = await self._open()
                if copy is None:
                    break
                opened_at = self.services.clock.monotonic()
                await self._pump(copy)
            except ProducerError as error:
                lasted = 0.0 if opened_at is None else self.services.clock.monotonic() - opened_at
                await self._fail_over(error, backoff, lasted)
            except foreign_errors():
                await self._close_copy(CLOSE_S)
                raise
            else:
                break
        await self._finish()

    async def _open(self) -> Producer | None:
        """Open a fresh copy; None when a stop came first."""
        copy = self._copy = self._description.copy(
            index=self.index,
            capacity=self._capacity,
            pipeline=self.services.name,
            lost=lambda error: self._report_lost(copy, error),
        )
        copy.clock = self.services.clock
        copy.failure = None if self.services.router is None else self.services.router.plan
        self._lost = None
        self._preparing = None
        self._is_told_to_pause = False
        if not await done_unless_stopped(copy.open(), self._stop):
            return None
        self.connected, self.trouble = True, None
        self.opened.set()
        if not self._internal:
            telemetry.execute("broadway.producer.connected", self._now(), self._about())
        if self._gate.closed:
            await passing_cancellation(copy.pause())
        return None if self._stop.is_set() else copy

    def _report_lost(self, copy: Producer, error: ProducerError) -> None:
        # A copy that was closed may still hear of its connection's end; the next one is not concerned.
        if copy is self._copy:
            self._lost = error
            self.wake.set()

    async def _fail_over(self, error: ProducerError, backoff: Delays, lasted_s: float) -> None:
        """Close what is broken, say so, wait."""
        if self._fail_fast and not self.opened.is_set():
            self._log.error("the source is away; not trying again", reason=text_of(error))
            await self._close_copy(CLOSE_S)
            raise PipelineCrashed(
                f"producer {self.ledger.producer!r} could not connect at the start: {text_of(error)}"
            ) from error
        if self.connected:
            self.connections_lost += 1
        self.connected, self.trouble = False, text_of(error)
        telemetry.execute("broadway.producer.lost", self._now(), {**self._about(), "reason": text_of(error)})
        wait_s = self._wait_of(backoff, lasted_s, _REFUSED_WAIT_S if isinstance(error, SourceRefused) else 0.0)
        if wait_s == math.inf:
            self._log.error("the source is away; not trying again", reason=text_of(error))
            await self._close_copy(CLOSE_S)
            raise PipelineCrashed(
                f"producer {self.ledger.producer!r} was lost, and its back-off says to stop: {text_of(error)}"
            ) from error
        self._log.warning("the source is away; trying again", reason=text_of(error), wait_seconds=round(wait_s, 2))
        await self._close_copy(CLOSE_S)
        # Counted from here: copies that a busy loop closes late, all at once, would else come back all at once.
        until = self.services.clock.monotonic() + wait_s
        while not self._stop.is_set() and not self.call.cut and self.services.clock.monotonic() < until:
            if self._rest and self._may_start:
                # Messages of the lost copy: the broker has them again, but whoever cannot redeliver has not.
                await self._wait_for_rate(until)
            else:
                await self.wake.wait_until(until, self.services.clock)

    def _wait_of(self, backoff: Delays, lasted_s: float, at_least_s: float) -> float:
        """What the producer's back-off says; ours where that is no duration."""
        try:
            said: object = backoff.failed(lasted_s, at_least_s)
            return math.inf if said == math.inf else max(0.0, seconds_of(said, "backoff().failed()"))
        except ValueError as wrong:
            self._log.error("the producer's back-off is of no use; waiting 10 s", reason=str(wrong))
            return _REFUSED_WAIT_S

    async def _pump(self, copy: Producer) -> None:
        outlet, gate, call = self.outlet, self._gate, self.call
        flushed = False
        while not self._stop.is_set() and not call.cut:
            if self._lost is not None:
                raise self._lost
            if self._rest and self._may_start:
                await self._wait_for_rate()
            elif gate.paused or (gate.broken and not self._probing) or outlet.demand <= 0 or gate.full:
                await self.wake.wait()
            else:
                messages = await self._fetch(copy, 1 if gate.broken else outlet.demand)
                if messages is None:
                    if flushed or not copy.redelivers:
                        self.ended = True
                        return
                    # What waits in open batches may fail and come again; it must not wait for its time now.
                    flushed = True
                    outlet.flush()
                    continue
                flushed = False
                if messages:
                    await self._take_in(messages)
                else:
                    # A producer that has nothing should wait; one that does not must not stop everybody else.
                    await asyncio.sleep(0)

    async def _fetch(self, copy: Producer, demand: int) -> Sequence[Message[Any]] | None:
        # By hand: it is on the way of each list.
        self.call.in_callback.is_on = True
        try:
            if self._gate.broken:
                await copy.resume_for(1)
            messages = await copy.handle_demand(demand)
        except asyncio.CancelledError:
            if self.call.was_cut():
                return []
            raise ProducerError(CANCELLED_BY_LIBRARY) from None
        finally:
            self.call.in_callback.is_on = False
        # The breaker may have opened, or closed, meanwhile.
        if self._gate.broken and self._probing:
            await self._pause_in_passing()
        return messages

    async def _take_in(self, messages: Sequence[Message[Any]]) -> None:
        """Enter *messages* into the books and send them on, as far as stop, pause and rate limit let them."""
        fresh = self._intake.enter(messages)
        if (self._stop.is_set() and self.services.draining) or self._gate.closed:
            fresh = await self._keep_back(fresh)
        rate = self._gate.rate
        if self._rest:
            self._rest += fresh
            fresh = []
        elif rate is not None:
            granted = rate.take(len(fresh), self.services.clock.monotonic())
            fresh, self._rest = fresh[:granted], fresh[granted:]
        self._dispatch(fresh)

    async def _keep_back(self, fresh: list[Message[Any]]) -> list[Message[Any]]:
        """Give back what must not start now; what is left to start at once. What has to wait waits here."""
        is_broken = self._gate.broken and not self.services.draining
        first = 1 if is_broken and self._probing and not self._rest else 0
        # All of it is held, so that a cut in here finds the part that stays, too.
        self.held = fresh
        if not self._is_told_to_pause and not self._stop.is_set():
            # It would hand out again at once what it gets back.
            await self._pause_in_passing()
        await self.conclusion.give_back([message for message in fresh[first:] if can_give_back(message)])
        stay = [*fresh[:first], *(message for message in fresh[first:] if not can_give_back(message))]
        self.held = ()
        if is_broken:
            self._rest += stay
            return []
        return stay

    async def _pause_in_passing(self) -> None:
        """As :meth:`set_paused`, in our own task and with messages in hand, which are ours whatever it raises."""
        try:
            with self.call.in_callback:
                await self.set_paused(paused=True)
        except asyncio.CancelledError:
            self.call.was_cut()
        except foreign_errors() as error:
            # Whoever closed the gate tells it once more.
            self._log.error("the producer could not be paused", exception=name_of(error))

    @property
    def _may_start(self) -> bool:
        """True when what is here may be sent on: all of it, or, while the breaker is not closed, one that probes."""
        gate = self._gate
        return not gate.broken or (self._probing and not gate.paused)

    def hold_back(self, inlets: Iterable[Inlet[Message[Any]]]) -> None:
        """The breaker has opened: what waits in *inlets* and came from here waits here, in the same order."""
        # Of an earlier time: that probe found nothing before the breaker closed.
        self._probing = False
        if not self.outlet.closed:
            # First, or it would fill the places that get free.
            backlog = self.outlet.take_backlog()
            waiting = [message for inlet in inlets for message in inlet.remove(lambda _: True, self.outlet)]
            self._rest = [*waiting, *backlog, *self._rest]

    def _dispatch(self, messages: list[Message[Any]]) -> None:
        if messages:
            self.held = messages
            self.outlet.dispatch(messages)
            self.held = ()

    async def _wait_for_rate(self, until: float = math.inf) -> None:
        """Let through what the rate allows; if that is nothing, wait for it, or for *until*."""
        rate, clock = self._gate.rate, self.services.clock
        now = clock.monotonic()
        most = 1 if self._gate.broken and not self.services.draining else len(self._rest)
        granted = most if rate is None else rate.take(most, now)
        if granted:
            self._probing = False
            ready, self._rest = self._rest[:granted], self._rest[granted:]
            self._dispatch(ready)
        elif rate is not None:
            await self.wake.wait_until(min(until, rate.opens_at(now)), clock)
            self._gate.waited_seconds += clock.monotonic() - now

    def stop(self) -> None:
        """Ask for the end: nothing more is fetched."""
        self._stop.set()
        if self._copy is not None and self.connected:
            self._prepare_for_draining(self._copy)
        self.wake.set()

    def _prepare_for_draining(self, copy: Producer) -> asyncio.Task[None]:
        """Begin once; a ``handle_demand`` that is waiting may need it to return."""
        if self._preparing is None:
            copy.begin_draining()
            self._preparing = asyncio.ensure_future(self._prepare(copy))
        return self._preparing

    async def _prepare(self, copy: Producer) -> None:
        try:
            await passing_cancellation(copy.prepare_for_draining())
        except foreign_errors() as error:
            # A broken source must not keep us from draining.
            self._log.warning("the producer could not prepare for draining", exception=name_of(error))

    async def _end_copy(self, copy: Producer) -> None:
        """Let the copy stop fetching and give back what it holds, and take in what it handed over meanwhile."""
        preparing = self._prepare_for_draining(copy)
        try:
            with self.call.in_callback:
                await preparing
        except asyncio.CancelledError:
            preparing.cancel()
            self.call.was_cut()
        late = copy.end_draining()
        if late:
            await self._take_in(late)

    async def _finish(self) -> None:
        """Send on, or give back, what is still here; then tell the processors that no more will come."""
        if self._copy is not None and self.connected and not self.ended:
            await self._end_copy(self._copy)
        while not self.call.cut:
            if self.services.draining:
                await self.conclusion.give_back(self.take_unstarted())
            if self._rest:
                await self._wait_for_rate()
            elif self.outlet.backlog:
                await self.wake.wait()
            else:
                break
        self.wake.close()
        if not self.call.cut:
            self.outlet.close()

    async def _close_copy(self, most_s: float | None) -> None:
        copy, self._copy = self._copy, None
        self.connected = False
        if copy is None:
            return
        late = copy.end_draining()
        if late and self._ended:
            # The processors are gone: given back, or failed as stopped where that cannot be.
            await self.conclusion.give_back(self._intake.enter(late))
        elif late:
            await self._take_in(late)
        try:
            async with self.services.clock.timeout(most_s):
                await passing_cancellation(copy.close())
        except foreign_errors() as error:
            # It is broken: what matters is the next copy.
            self._log.debug("closing a broken producer raised", exception=name_of(error))

    async def close(self) -> None:
        """Release the last copy; called when every message was settled. Only the deadline of the stop ends it."""
        self._ended = True
        try:
            await self._close_copy(None)
            await passing_cancellation(self._description.end_lost_copies())
        except asyncio.CancelledError:
            self._log.warning("closing the producer took until the deadline of the stop; it was cut off")
            raise
        except foreign_errors() as error:
            # The other sources still have to be closed.
            self._log.warning("the producer could not end its lost copies", exception=name_of(error))

    async def set_paused(self, *, paused: bool) -> None:
        """Tell the copy; the gate is set already. A source that stops does not fetch again, whoever resumes."""
        self.wake.set()
        copy = self._copy
        if copy is not None and self.connected and (paused or not self._stop.is_set()):
            await self._tell(copy, paused=paused)

    async def _tell(self, copy: Producer, *, paused: bool) -> None:
        self._is_told_to_pause = paused
        try:
            if paused:
                await passing_cancellation(copy.pause())
            else:
                # With the breaker open, only to probe.
                await passing_cancellation(copy.resume_for(1) if self._gate.broken else copy.resume())
        except ProducerError as error:
            self._report_lost(copy, error)

    def resize(self, capacity: int) -> None:
        """The pipeline can hold *capacity* messages of this copy from now on."""
        self._capacity = capacity
        if self._copy is not None and self.connected:
            self._copy.resize(capacity)

    def probe(self) -> None:
        """Let one message through although the breaker is open."""
        self._probing = True
        self.wake.set()

    def take_unstarted(self) -> list[Message[Any]]:
        """Take out what waits for the rate limit or for demand, and can be given back."""
        waiting = self.outlet.take_backlog()
        stay = [message for message in waiting if not can_give_back(message)]
        if stay:
            self.outlet.dispatch(stay)
        unstarted = [message for message in [*waiting, *self._rest] if can_give_back(message)]
        self._rest = [message for message in self._rest if not can_give_back(message)]
        return unstarted

    def take_all(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        self.wake.close()
        rest, self._rest = self._rest, []
        return [*rest, *self.outlet.take_backlog()]

    def _now(self) -> dict[str, float]:
        clock = self.services.clock
        return {"system_time": clock.wall(), "monotonic_time": clock.monotonic()}

    def _about(self) -> dict[str, Any]:
        return {"pipeline": self.services.name, "producer": self.ledger.producer, "index": self.index}
