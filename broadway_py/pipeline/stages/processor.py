"""Processors: take a chunk, call ``prepare_messages`` once and ``handle_message`` per message, and pass them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from broadway_py._core.aggregation.tracked_ledger import arrive
from broadway_py._core.dispatch import Dispatcher
from broadway_py._core.settlement import can_give_back
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.pipeline.callbacks.chunk import Chunk, contains, is_plain
from broadway_py.pipeline.callbacks.in_loop import LoopRunner
from broadway_py.pipeline.callbacks.in_process import ProcessRunner
from broadway_py.pipeline.callbacks.in_thread import ThreadRunner
from broadway_py.pipeline.callbacks.message_spans import MessageSpans, TracedMessageSpans
from broadway_py.pipeline.callbacks.runner import ChunkRunner
from broadway_py.pipeline.callbacks.schema import validate
from broadway_py.pipeline.contexts import CleanRoom, StageContext
from broadway_py.pipeline.poison.stage_journal import Part, StageJournal
from broadway_py.pipeline.settlement.failure_router import refuse_gaps
from broadway_py.pipeline.settlement.failures import fail, fail_together, failure_from, reconcile, transform
from broadway_py.pipeline.settlement.spawned import adopt_children
from broadway_py.pipeline.stages.conclusion import Conclusion
from broadway_py.pipeline.stages.handling import HandlingStage
from broadway_py.pipeline.stages.ordered_retry import called_off, wait_and_retry_in_order
from broadway_py.pipeline.stages.routing import route, route_in_partitions, settle_all
from broadway_py.pipeline.stages.services import SUBMITTED, Meter, Services
from broadway_py.stage import Edge, Outlet, Wake
from broadway_py.telemetry import Span

__all__ = ["Processor"]

_NOT_PARTED: Final[Mapping[str, int]] = {}


class Processor(HandlingStage[Message[Any], Chunk]):
    """One processor of the pool.

    Args:
        services: the services of the pipeline.
        index: position in the pool.
        meter: the figures of the pool.
        batchers: maps each name that messages may use to the batcher's name.
        timeout_s: seconds that ``handle_message`` may take for one message; None for no limit.
        dispatcher: decides which batcher gets which messages; None if there are no batchers.
        keyed: True if all messages with a key come to this processor and no other.
        aggregators: those of *batchers* that are aggregators. Their watermarks wait for no message that goes elsewhere.
        partition_of: the partition that each producer reads. Empty if the sources are not parted.
    """

    # Messages may have failed before, in the transformer or in ``partition_by``.
    takes_failed = True

    def __init__(
        self,
        services: Services,
        index: int,
        meter: Meter,
        batchers: Mapping[str, str],
        timeout_s: float | None,
        *,
        dispatcher: Dispatcher[Edge[Message[Any]], Message[Any]] | None,
        keyed: bool = False,
        aggregators: Collection[str] = (),
        partition_of: Mapping[str, int] = _NOT_PARTED,
    ) -> None:
        super().__init__(services, "processors", index, meter, timeout_s, keyed=keyed)
        #: The outlet to the batchers; None if there are none.
        self.outlet: Outlet[Message[Any]] | None = None if dispatcher is None else Outlet(dispatcher, self.wake)
        self._aggregators = frozenset(aggregators)
        # False: whatever leaves through the outlet goes to aggregators.
        self._has_others = not self._aggregators.issuperset(batchers.values())
        self._route: Callable[[Chunk], tuple[Chunk, Chunk, Chunk]] = partial(route, batchers=batchers)
        if partition_of and aggregators:
            self._route = partial(
                route_in_partitions, batchers=batchers, aggregators=self._aggregators, partition_of=partition_of
            )
        self._ordered = services.router is not None and services.router.ordered
        self._context = StageContext(services.base)
        self._room = CleanRoom(services.base)
        self._runner = self._choose_runner()
        # Settles parents after their children. That happens in the task where the last child ends, so it must not use
        # this stage's own call.
        self._parents = Conclusion(services, "processors", index, meter, services.make_call(Wake()))
        if self._ordered:
            self._begin = self._process_in_order

    def _choose_runner(self) -> ChunkRunner:
        handle_message = self.services.callbacks.handle_message
        spans = MessageSpans(self._begin_span)
        if self.services.tracer is not None:
            spans = TracedMessageSpans(self._begin_span, self.services.tracer)
        if self.journal is not None:
            handle_message = self.journal.noting(handle_message)
        if self.services.callbacks.is_async["handle_message"]:
            return LoopRunner(
                self.call,
                self._context,
                handle_message,
                give_back=self.conclusion.give_back,
                spans=spans,
            )
        if self.process is None:
            return ThreadRunner(
                self.call,
                handle_message,
                give_back=self.conclusion.give_back,
                postpone=self._postpone,
                spans=spans,
            )
        return ProcessRunner(
            self.call,
            self.process,
            give_back=self.conclusion.give_back,
            give_back_soon=self.services.settler.give_back_soon,
            spans=spans,
        )

    def _begin_span(self, message: Message[Any]) -> Span | None:
        """Tell telemetry that the handling of *message* begins."""
        return self.services.span("broadway.processor.message", self.index, name=self.name, message=message)

    async def run(self) -> None:
        """Work until every source has ended, or until cut off."""
        await (self._context.drive(self._run()) if isinstance(self._runner, LoopRunner) else self._run())

    async def _run(self) -> None:
        inlet, outlet, call = self.inlet, self.outlet, self.call
        while not call.cut:
            if call.stuck and not self.services.is_stopping:
                await self._wait_for_slot()
            elif outlet is not None and outlet.backlog:
                await self._wait_for_room()
            elif call.stuck:
                if await self._turn_away():
                    break
            elif self._later:
                await self._begin(self._next_later())
            elif inlet:
                edge, chunk, ask = inlet.take()
                try:
                    await self._begin(chunk)
                finally:
                    # Also after a crash: demand that was counted must be sent, or this stage gets no more messages.
                    if ask:
                        edge.ask(ask)
            elif inlet.finished:
                break
            elif not self._pass_flush_on():
                await self.wake.wait()
        if outlet is not None and not call.cut:
            outlet.close()

    def _pass_flush_on(self) -> bool:
        """Tell the batchers to flush, if the sources asked for it. Returns True if they did."""
        wanted, self.inlet.flush_wanted = self.inlet.flush_wanted, False
        if wanted and self.outlet is not None:
            self.outlet.flush()
        return wanted

    async def _wait_for_room(self) -> None:
        clock = self.services.clock
        since = clock.monotonic()
        await self.wake.wait()
        self.meter.backpressure_seconds += clock.monotonic() - since

    def reset_after_crash(self) -> None:
        """Forget the chunk in hand, and what was taken out of it. Called after a crash."""
        super().reset_after_crash()
        self._runner.reset_after_crash()

    def retire(self) -> None:
        """Take no more messages, finish those that are here, then end."""
        for edge in list(self.inlet.edges):
            edge.outlet.unsubscribe(edge)

    def take_all(self) -> list[Message[Any]]:
        """Take out and return all messages that wait in this stage."""
        waiting = [*self._later, *self.inlet.remove(lambda _: True)]
        self._later = []
        return waiting if self.outlet is None else [*self.outlet.take_backlog(), *waiting]

    async def _work(self, chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
        """Handle *chunk*. Returns the messages that were settled as successful, that went to batchers, that failed."""
        self.held = chunk
        chunk = await (self._call_back_until_done(chunk) if self._ordered else self._call_back(chunk))
        if is_plain(chunk):
            settle, forward, failed = (chunk, (), ()) if self.outlet is None else self._route(chunk)
        else:
            chunk = await self._send_children(chunk)
            settle, forward, failed = self._sort(chunk)
        if failed:
            await self.conclusion.conclude(settle, failed)
        elif settle:
            await self.services.settler.settle(settle)
        if forward and self.outlet is not None:
            self._forward(self.outlet, forward)
        return settle, forward, failed

    def _forward(self, outlet: Outlet[Message[Any]], messages: Sequence[Message[Any]]) -> None:
        if self._aggregators and self._has_others:
            elsewhere = [message for message in messages if message.batcher not in self._aggregators]
            arrive(elsewhere, self.services.clock.monotonic())
        outlet.dispatch(messages)

    def _messages_of(self, chunk: Chunk) -> Chunk:
        return chunk

    def _pieces(self, taken: Chunk) -> Iterable[Chunk]:
        return (taken,)

    def _next_later(self) -> Chunk:
        later, self._later = self._later, []
        return later

    def _begin_span_of(self, chunk: Chunk) -> Span | None:
        return self.services.span("broadway.processor", self.index, name=self.name, messages=list(chunk))

    def _end_span_of(self, span: Span, chunk: Chunk, result: tuple[Chunk, Chunk, Chunk]) -> None:
        settle, forward, failed = result
        span.stop(successful_to_ack=settle, successful_to_forward=forward, failed=failed)

    def _put_off_rest(self, part: Part, chunk: Chunk) -> Chunk:
        self._later = [*part.rest, *self._later]
        return part.now

    async def _wait_for_turn(self, journal: StageJournal, part: Part, chunk: Chunk) -> tuple[Part, Chunk] | None:
        # The messages wait in _later because a crash or a drain must find them.
        self._later = [*part.now, *self._later]
        if not await journal.wait_for_turn(alone=part.alone):
            return None
        now = [message for message in part.now if contains(self._later, message)]
        self._later = [message for message in self._later if not contains(now, message)]
        return part._replace(now=now), now

    async def _call_back(self, chunk: Chunk) -> Chunk:
        """Run the callbacks on *chunk*. Returns the messages that are still here."""
        callbacks = self.services.callbacks
        if callbacks.schema is not None:
            if self.journal is not None:
                self.journal.at_work(chunk)
            validate(chunk, callbacks.schema, callbacks.schema_names, self._room)
            if self.journal is not None:
                self.journal.nothing_at_work()
        if callbacks.prepare_messages is not None:
            await self._prepare(chunk)
        runner = self._runner
        chunk = await runner.run(chunk)
        if self.journal is not None:
            self.journal.nothing_at_work()
        return await runner.without_unfinished(chunk) if runner.unfinished or runner.taken else chunk

    async def _process_in_order(self, chunk: Chunk) -> None:
        """Handle *chunk* one by one. A failed message is finished, with its retries, before the next one starts."""
        # The messages wait in _later because a crash or a drain must find them.
        self._later = list(chunk)
        while self._later and not self.call.cut and not self.call.stuck:
            await self._process([self._later.pop(0)])

    async def _call_back_until_done(self, chunk: Chunk) -> Chunk:
        """Run the callbacks as :meth:`_call_back` does, and try again in place while the failure policy says so."""
        left = await self._call_back(chunk)
        while again := await wait_and_retry_in_order(
            self, [message for message in left if message._status is not None]
        ):
            self._make_fresh(again)
            left = await self._call_back(again)
        returned = called_off(self, [message for message in left if message._status is not None])
        if returned:
            await self.conclusion.give_back(returned)
            left = [message for message in left if not contains(returned, message)]
        return left

    def _make_fresh(self, messages: Chunk) -> None:
        """Set the data of *messages* back to what it was when they came in."""
        transformer = self.services.callbacks.transformer
        for message in messages:
            # A message that has lost its payload fails.
            refuse_gaps(message)
            message.data = message.raw
        if transformer is not None:
            transform([message for message in messages if message.producer != SUBMITTED], transformer, self._room)

    async def _prepare(self, chunk: Chunk) -> None:
        given = [message for message in chunk if message._status is None]
        if not given:
            return
        try:
            returned = await self.call.run("prepare_messages", list(given))
            if returned is not None:
                reconcile("prepare_messages", given, returned)
        except foreign_errors() as error:
            fail_together(given, error)
        except asyncio.CancelledError as cancelled:
            if self.call.was_cut():
                self._runner.unfinished.extend(given)
            else:
                fail(given, failure_from(cancelled))
        self.call.note_context(given)

    async def _send_children(self, chunk: Chunk) -> list[Message[Any]]:
        """Let the parents in *chunk* wait for their children, and send the children on. Returns the other messages."""
        others: list[Message[Any]] = []
        services = self.services
        conclude = partial(self._parents.conclude, of_children=True)
        for message in chunk:
            children = message._children
            if children is None or message._status is not None:
                others.append(message)
                continue
            adopt_children(message, services.children, services.clock.monotonic(), conclude, self._parents.give_back)
            settle, forward, failed = self._sort(children)
            if settle or failed:
                await self.conclusion.conclude(settle, failed)
            if forward and self.outlet is not None:
                self._forward(self.outlet, forward)
        return others

    def take_unstarted(self) -> list[Message[Any]]:
        """Take out and return the messages that no callback has seen and that can be given back."""
        later = [message for message in self._later if can_give_back(message)]
        self._later = [message for message in self._later if not can_give_back(message)]
        return [*self._runner.take_rest(), *later, *self.inlet.remove(can_give_back)]

    def _postpone(self, rest: Chunk, kept: Chunk) -> None:
        """Keep *kept* of the chunk in hand. Handle *rest* once the slot is free, before all other work that waits."""
        self.held = kept
        self._make_fresh(rest)
        self._later = [*rest, *self._later]

    def _sort(self, chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
        """Returns (messages to settle as successful, messages for batchers, failed messages)."""
        return settle_all(chunk) if self.outlet is None else self._route(chunk)
