"""Sources: ask a producer for messages, take them in, hold them back if needed, and send them on."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from broadway_py._core.dispatch import Dispatcher
from broadway_py._core.ledger import Ledger
from broadway_py._core.settlement import can_give_back
from broadway_py.error_text import name_of
from broadway_py.errors import ProducerError
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.deduplication.handled_ids import HandledIds
from broadway_py.pipeline.intake.copies import Copies
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.intake.in_flight_cap import InFlightCap
from broadway_py.pipeline.intake.live_producer import CANCELLED_BY_LIBRARY, CLOSE_S, LiveProducer
from broadway_py.pipeline.intake.receive import Receiver, TracedReceiver
from broadway_py.pipeline.stages.repeats import Repeats
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.producer import Producer
from broadway_py.stage import Edge, Inlet, Outlet

__all__ = ["Source"]

log = logger("broadway_py.pipeline")


class Source(PipelineStage):
    """Runs the copies of a producer, one after the other.

    Args:
        services: the services of the pipeline.
        copies: creates the copies; all sources of the producer share it.
        ledger: the producer's ledger; all copies share it.
        gate: rate limit, pause, breaker and bytes in flight.
        meter: the figures of the processors; a message that fails before it reaches them counts there.
        dispatcher: decides which processor gets which messages.
        index: position among the copies.
        capacity: how many messages this copy's share of the pipeline holds.
        most_in_flight: how many messages of this producer may be in the pipeline; None: as many as the processors take.
        fail_fast: with True, raise if the very first attempt to open fails.
        transformer: called on every message that comes in, or None.
        ids: recognises messages that were handled before; None: nobody asks for that.
        internal: True for the pipeline's own source of submitted messages; it sends no telemetry.
    """

    def __init__(
        self,
        services: Services,
        copies: Copies,
        ledger: Ledger,
        gate: Gate,
        meter: Meter,
        *,
        dispatcher: Dispatcher[Edge[Message[Any]], Message[Any]],
        index: int,
        capacity: int,
        most_in_flight: int | None = None,
        fail_fast: bool,
        transformer: Callable[[Message[Any]], object] | None,
        ids: HandledIds | None = None,
        internal: bool = False,
    ) -> None:
        super().__init__(services, f"producer:{ledger.producer}", index, meter)
        self.ledger = ledger
        self.outlet: Outlet[Message[Any]] = Outlet(dispatcher, self.wake)
        #: True once the source has said that no more messages come.
        self.ended = False
        #: Limits how many messages of this producer are in the pipeline; None: no limit of its own.
        self.cap = None if most_in_flight is None else InFlightCap(ledger, most_in_flight, self.wake)
        self._gate = gate
        make_receiver: Callable[..., Receiver] = Receiver
        if services.tracer is not None:
            source = copies.description.trace_source()
            make_receiver = partial(TracedReceiver, tracer=services.tracer, source=source, spanned=not internal)
        self._receiver = make_receiver(
            services.name, index, ledger, services.clock, transformer=transformer, room=CleanRoom(services.base)
        )
        # Tells the watermarks and the ids whether this copy may deliver; None: nobody asks.
        self._reader = ledger.readers[index] if ledger.readers else None
        self._repeats: Repeats | None = None
        if ids is not None:
            self._repeats = Repeats(services, ids, ledger.producer, index, send_on=self._send_on, wake=self.wake)
        # True while a timer will send on messages that waited, because the rate limit does not allow it yet.
        self._is_timed = False
        self._redelivers = copies.description.redelivers
        self._stop = asyncio.Event()
        self._probing = False
        # True when no stage is left that takes messages.
        self._has_no_takers = False
        # Messages that were taken in and wait here, for the rate limit or the breaker.
        self._rest: list[Message[Any]] = []
        self._log = log.bind(pipeline=services.name, producer=ledger.producer, index=index)
        #: Runs the copies, one after the other.
        self.live = LiveProducer(
            copies,
            pipeline=services.name,
            name=ledger.producer,
            index=index,
            capacity=capacity,
            clock=services.clock,
            gate=gate,
            stop=self._stop,
            wake=self.wake,
            take_late=self._take_late,
            failure=None if services.router is None else services.router.plan_for(copies.description),
            requests=ledger.requests,
            fail_fast=fail_fast,
            internal=internal,
            reader=self._reader,
            trace_fields=frozenset() if services.tracer is None else services.tracer.fields,
        )

    async def run(self) -> None:
        """Fetch until the source ends or a stop is asked for. The last copy stays open: see :meth:`close`."""
        live, clock = self.live, self.services.clock
        backoff = live.new_backoff()
        while not self._stop.is_set() and not self.call.cut:
            opened_at: float | None = None
            try:
                copy = await live.open()
                if copy is None:
                    break
                opened_at = clock.monotonic()
                await self._pump(copy)
            except ProducerError as error:
                lasted = 0.0 if opened_at is None else clock.monotonic() - opened_at
                await self._wait_until(await live.note_away(error, backoff, lasted))
            except foreign_errors():
                await live.close_copy(CLOSE_S)
                raise
            else:
                break
        await self._finish()

    async def _wait_until(self, until: float) -> None:
        """Wait until *until*, when the next copy is opened. Meanwhile, send on the messages that wait here."""
        while not self._stop.is_set() and not self.call.cut and self.services.clock.monotonic() < until:
            if self._rest and self._may_start:
                # These are messages of the lost copy. A broker delivers them again, but some sources cannot.
                await self._wait_for_rate(until)
            else:
                await self.wake.wait_until(until, self.services.clock)

    async def _pump(self, copy: Producer) -> None:
        outlet, gate, call, live = self.outlet, self._gate, self.call, self.live
        flushed = False
        while not self._stop.is_set() and not call.cut:
            if live.lost is not None:
                raise live.lost
            if self._rest and self._may_start:
                await self._wait_for_rate()
            elif gate.paused or (gate.broken and not self._probing) or self._demand <= 0 or gate.full:
                await self._wait_for_demand()
            else:
                if self._reader is not None and not self._reader.is_wanted and not gate.broken:
                    self._reader.asks(self.services.clock.monotonic())
                messages = await self._fetch(copy, 1 if gate.broken else self._demand)
                if messages is None:
                    # A producer that was given itself may say this as late as in open().
                    if flushed or not (self._redelivers or copy.redelivers):
                        self.ended = True
                        if self._reader is not None:
                            self._reader.ended(self.services.clock.monotonic())
                        return
                    # Messages in open batches may fail and come again, so flush the batches now.
                    flushed = True
                    outlet.flush()
                    continue
                flushed = False
                if messages:
                    await self._take_in(messages)
                else:
                    # A producer without messages should wait. One that returns at once must not block the loop.
                    await asyncio.sleep(0)

    async def _wait_for_demand(self) -> None:
        """Wait until something has changed, because nothing may be fetched now."""
        if self._reader is not None:
            self._reader.rests()
        if self._waiting and self.outlet.demand > 0:
            # The processors want messages, but those that wait here take their places. So nothing fills open batches.
            self.outlet.flush()
        await self.wake.wait()

    @property
    def _waiting(self) -> int:
        """Returns how many messages wait for another of their id."""
        return 0 if self._repeats is None else len(self._repeats.waiting)

    @property
    def _demand(self) -> int:
        """Returns how many messages may be fetched now; 0 or less: none."""
        demand = self.outlet.demand - self._waiting
        return demand if self.cap is None else min(demand, self.cap.room)

    async def _fetch(self, copy: Producer, demand: int) -> Sequence[Message[Any]] | None:
        # Set by hand, not by a with block: this runs for each list.
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
        # The breaker may have opened or closed meanwhile.
        if self._gate.broken and self._probing:
            await self._pause_in_passing()
        return messages

    async def _take_in(self, messages: Sequence[Message[Any]]) -> None:
        """Enter *messages* into the ledger and send them on, as far as stop, pause and rate limit allow."""
        fresh = self._receiver.enter(messages)
        if self._repeats is not None:
            fresh, again = self._repeats.sort(fresh)
            if again:
                # All messages are held, so that a cut-off in here also finds those that are to be sent on.
                self.held = [*fresh, *again]
                await self._repeats.ack(again)
                self.held = ()
        if (self._stop.is_set() and self.services.is_stopping) or self._gate.closed:
            fresh = await self._keep_back(fresh)
        rate = self._gate.rate
        if self._rest:
            self._rest += fresh
            fresh = []
        elif rate is not None:
            granted = rate.take(len(fresh), self.services.clock.monotonic())
            fresh, self._rest = fresh[:granted], fresh[granted:]
        self._dispatch(fresh)

    def _send_on(self, messages: Sequence[Message[Any]]) -> None:
        """Send on messages that have waited for another of their id, as far as gate and rate limit allow."""
        if self.services.is_stopping or self._gate.closed:
            back = [message for message in messages if can_give_back(message)]
            messages = [message for message in messages if not can_give_back(message)]
            if back:
                self.services.settler.give_back_soon(back)
        self._rest += messages
        if not self._is_timed:
            self._send_rest()

    def _send_rest(self) -> None:
        """Send on what waits here and may start now. The rest follows when the rate limit allows it."""
        self._is_timed = False
        if not self._rest or self._gate.broken or self.call.cut:
            return
        rate, clock = self._gate.rate, self.services.clock
        now = clock.monotonic()
        granted = len(self._rest) if rate is None else rate.take(len(self._rest), now)
        ready, self._rest = self._rest[:granted], self._rest[granted:]
        if ready:
            self.outlet.dispatch(ready)
        if self._rest and rate is not None:
            # Not in the source's own task: that one may be inside of its producer for long.
            self._is_timed = True
            clock.call_at(rate.opens_at(now), self._send_rest)

    async def _keep_back(self, fresh: list[Message[Any]]) -> list[Message[Any]]:
        """Give back the messages that must not start now. Returns those to send on at once.

        Messages that cannot be given back are kept here while the breaker is not closed.
        """
        is_broken = self._gate.broken and not self.services.is_stopping
        first = 1 if is_broken and self._probing and not self._rest else 0
        # All messages are held, so that a cut-off in here also finds those that stay.
        self.held = fresh
        if not self.live.is_told_to_pause and not self._stop.is_set():
            # Otherwise the copy would deliver again at once what it gets back.
            await self._pause_in_passing()
        await self.conclusion.give_back([message for message in fresh[first:] if can_give_back(message)])
        stay = [*fresh[:first], *(message for message in fresh[first:] if not can_give_back(message))]
        self.held = ()
        if is_broken:
            self._rest += stay
            return []
        return stay

    async def _pause_in_passing(self) -> None:
        """Pause the copy in the source's own task. The messages in hand are kept even if the copy raises."""
        try:
            with self.call.in_callback:
                await self.live.set_paused(paused=True)
        except asyncio.CancelledError:
            self.call.was_cut()
        except foreign_errors() as error:
            # The code that closed the gate tells the copy once more.
            self._log.error("the producer could not be paused", exception=name_of(error))

    @property
    def _may_start(self) -> bool:
        """Returns True if messages that wait here may be sent on.

        While the breaker is not closed, only one message may, as a probe.
        """
        gate = self._gate
        return not gate.broken or (self._probing and not gate.paused)

    def hold_back(self, inlets: Iterable[Inlet[Message[Any]]]) -> None:
        """Take back messages of this source that wait in *inlets*, in the same order. The breaker has opened."""
        # An earlier probe may not have found a message before the breaker closed.
        self._probing = False
        if not self.outlet.closed:
            # Take the backlog first, or it would fill the places that become free in the inlets.
            backlog = self.outlet.take_backlog()
            waiting = [message for inlet in inlets for message in inlet.remove(lambda _: True, self.outlet)]
            self._rest = [*waiting, *backlog, *self._rest]

    def _dispatch(self, messages: list[Message[Any]]) -> None:
        if messages:
            self.held = messages
            self.outlet.dispatch(messages)
            self.held = ()

    async def _wait_for_rate(self, until: float = math.inf) -> None:
        """Send on as many messages as the rate allows. If none, wait until some are allowed, or until *until*."""
        if self._reader is not None:
            self._reader.rests()
        rate, clock = self._gate.rate, self.services.clock
        now = clock.monotonic()
        most = 1 if self._gate.broken and not self.services.is_stopping else len(self._rest)
        granted = most if rate is None else rate.take(most, now)
        if granted:
            self._probing = False
            ready, self._rest = self._rest[:granted], self._rest[granted:]
            self._dispatch(ready)
        elif rate is not None:
            await self.wake.wait_until(min(until, rate.opens_at(now)), clock)
            self._gate.waited_seconds += clock.monotonic() - now

    def stop(self) -> None:
        """Ask the source to end. Nothing more is fetched."""
        self._stop.set()
        if self._reader is not None:
            self._reader.rests()
        if self.live.copy is not None and self.live.connected:
            self.live.prepare_for_draining(self.live.copy)
        self.wake.set()

    async def _end_copy(self, copy: Producer) -> None:
        """Let the copy stop fetching and give back what it holds. Take in what it handed over meanwhile."""
        preparing = self.live.prepare_for_draining(copy)
        try:
            with self.call.in_callback:
                await preparing
        except asyncio.CancelledError:
            preparing.cancel()
            self.call.was_cut()
        late = self.live.end_draining()
        if late:
            await self._take_in(late)

    async def _finish(self) -> None:
        """Send on or give back the messages that are still here, then tell the processors that no more come."""
        if self.live.copy is not None and self.live.connected and not self.ended:
            await self._end_copy(self.live.copy)
        while not self.call.cut:
            if self.services.is_stopping:
                await self.conclusion.give_back(self.take_unstarted())
            if self._rest:
                await self._wait_for_rate()
            elif self.outlet.backlog:
                await self.wake.wait()
            elif self._waiting:
                # What they wait for may be in an open batch.
                self.outlet.flush()
                await self.wake.wait()
            else:
                break
        self.wake.close()
        if not self.call.cut:
            self.outlet.close()

    async def _take_late(self, late: Sequence[Message[Any]]) -> None:
        """Take in the messages that a copy handed over when it was closed."""
        if self._has_no_takers:
            # The processors are gone: give the messages back; those that cannot be given back fail as stopped.
            await self.conclusion.give_back(self._receiver.enter(late))
        else:
            await self._take_in(late)

    async def close(self) -> None:
        """Release the last copy. Called when every message is settled. Only the deadline of the stop limits it."""
        self._has_no_takers = True
        await self.live.close()

    def probe(self) -> None:
        """Let one message through although the breaker is not closed."""
        self._probing = True
        self.wake.set()

    def take_unstarted(self) -> list[Message[Any]]:
        """Take out and return the messages that wait for rate limit or demand and can be given back."""
        waiting = self.outlet.take_backlog()
        stay = [message for message in waiting if not can_give_back(message)]
        if stay:
            self.outlet.dispatch(stay)
        unstarted = [message for message in [*waiting, *self._rest] if can_give_back(message)]
        self._rest = [message for message in self._rest if not can_give_back(message)]
        return unstarted if self._repeats is None else [*unstarted, *self._repeats.take(can_give_back)]

    def take_all(self) -> list[Message[Any]]:
        """Take out and return all messages that wait in this stage."""
        self.wake.close()
        rest, self._rest = self._rest, []
        waiting = [] if self._repeats is None else self._repeats.take(lambda _: True)
        return [*rest, *self.outlet.take_backlog(), *waiting]
