"""Batchers: gather messages into batches for their batch processors. There is one batcher stage per name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from broadway_py import telemetry
from broadway_py._core.batching import Batch, OpenBatches
from broadway_py._core.dispatch import Dispatcher
from broadway_py.message import Message
from broadway_py.options import Batcher
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.settlement.failures import failure_from
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Edge, Inlet, Outlet

__all__ = ["BatcherStage"]

#: Open batches together hold at most this many times a full batch; then the oldest batch leaves, full or not.
_OPEN_BATCHES = 100


class BatcherStage(PipelineStage):
    """Gathers messages. The batches leave through :attr:`outlet`.

    Args:
        services: the services of the pipeline.
        key: the batcher's name.
        options: the batcher's settings.
        meter: the batcher's figures.
        partition_of: maps a message to a batch processor; None if any may have it.
        dispatcher: decides which batch processor gets which batches.
    """

    def __init__(
        self,
        services: Services,
        key: str,
        options: Batcher,
        meter: Meter,
        *,
        partition_of: Callable[[Message[Any]], int | None] | None,
        dispatcher: Dispatcher[Edge[Batch], Batch],
    ) -> None:
        super().__init__(services, f"batcher:{key}", 0, meter)
        self.key = key
        self.options = options
        self.is_partitioned = partition_of is not None
        self.inlet: Inlet[Message[Any]] = Inlet(self.wake)
        self.outlet: Outlet[Batch] = Outlet(dispatcher, self.wake)
        full = options.batch_size if isinstance(options.batch_size, int) else options.demand
        self._most_open = _OPEN_BATCHES * full
        batch_size = options.batch_size
        if not isinstance(batch_size, int):
            initial, split = batch_size
            batch_size = (initial, partial(CleanRoom(services.base).run, split))
        self._batches = OpenBatches(key, batch_size, options.batch_timeout, options.max_batch_bytes, partition_of)

    @property
    def open_messages(self) -> int:
        """Returns how many messages wait in open batches."""
        return self._batches.count

    async def run(self) -> None:
        """Gather until every processor has ended. Then the open batches leave at once, with trigger ``flush``."""
        clock, inlet, outlet, batches = self.services.clock, self.inlet, self.outlet, self._batches
        call = self.call
        while not call.cut:
            deadline = batches.next_deadline()
            if deadline is not None and deadline <= clock.monotonic():
                self._send(batches.expire(clock.monotonic()))
            elif outlet.backlog:
                since = clock.monotonic()
                await self.wake.wait_until(deadline, clock)
                self.meter.backpressure_seconds += clock.monotonic() - since
            elif batches.count >= self._most_open:
                self._send(batches.flush_oldest())
            elif inlet:
                edge, messages, ask = inlet.take()
                try:
                    await self._gather(messages)
                finally:
                    if ask:
                        edge.ask(ask)
            elif inlet.finished:
                if deadline is None:
                    break
                self._send(batches.flush())
            elif inlet.flush_wanted:
                inlet.flush_wanted = False
                self._send(batches.flush())
            else:
                await self.wake.wait_until(deadline, clock)
        self.wake.close()
        if not call.cut:
            outlet.close()

    async def _gather(self, messages: Sequence[Message[Any]]) -> None:
        monotonic = self.services.clock.monotonic
        started = monotonic()
        self.held = messages
        span = (
            self.services.span("broadway.batcher", self.index, batcher=self.key, messages=list(messages))
            if telemetry.active()
            else None
        )
        closed = self._batches.add(messages, started)
        if closed:
            self._send(closed)
        self.held = ()
        if self._batches.refused:
            await self._fail_refused()
        self.meter.busy_seconds += monotonic() - started
        if span is not None:
            span.stop()

    async def _fail_refused(self) -> None:
        refused, self._batches.refused = self._batches.refused, []
        for each in refused:
            each.message.status = failure_from(each.error)
        self.held = [each.message for each in refused]
        await self.conclusion.conclude((), self.held)
        self.held = ()

    def _send(self, batches: list[Batch]) -> None:
        # The messages may have come in long ago. They are held here so that none is lost if this raises.
        held, self.held = self.held, [message for batch in batches for message in batch.messages]
        self.outlet.dispatch(batches)
        self.held = held
        for batch in batches:
            self.meter.batches[batch.info.trigger] += 1
            self.meter.batch_sizes.observe(batch.info.size)

    def take_all(self) -> list[Message[Any]]:
        """Take out and return all messages that wait in this stage."""
        self.wake.close()
        ready = [message for batch in self.outlet.take_backlog() for message in batch.messages]
        return [*ready, *self._batches.take_all(), *self.inlet.remove(lambda _: True)]
