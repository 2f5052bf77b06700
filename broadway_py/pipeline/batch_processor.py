"""Batch processors: one batch at a time through ``handle_batch``, then settled."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py import telemetry
from broadway_py._core.batching import Batch
from broadway_py._core.settlement import not_returned, returned_list_problem
from broadway_py.message import Failed, Message
from broadway_py.pipeline.worker import Meter, Shared, Worker, failure_from
from broadway_py.stage import Inlet

__all__ = ["BatchProcessor"]


class BatchProcessor(Worker):
    """One of a batcher's.

    Args:
        shared: of the pipeline.
        key: the batcher's name.
        index: position among its batch processors.
        meter: of the batcher's batch processors.
    """

    def __init__(self, shared: Shared, key: str, index: int, meter: Meter) -> None:
        super().__init__(shared, f"batch_processors:{key}", index, meter)
        self.inlet: Inlet[Batch] = Inlet(self.wake)

    async def run(self) -> None:
        """Work until the batcher has ended, or until cut off."""
        while not self.cut:
            if self.inlet:
                edge, batches, ask = self.inlet.take()
                try:
                    for batch in batches:
                        await self._process(batch)
                finally:
                    if ask:
                        edge.ask(ask)
            elif self.inlet.finished:
                break
            else:
                await self.wake.wait()

    def leftovers(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        return [message for batch in self.inlet.remove(lambda _: True) for message in batch.messages]

    async def _process(self, batch: Batch) -> None:
        self.held = batch.messages
        monotonic = self.shared.clock.monotonic
        started = self.busy_since = monotonic()
        span = None
        if telemetry.active():
            span = self.span(
                "broadway.batch_processor", name=self.name, messages=list(batch.messages), batch_info=batch.info
            )
        cut = False
        try:
            returned = await self.call("handle_batch", list(batch.messages), batch.info)
            if returned is not None:
                self._reconcile(batch, returned)
        except Exception as error:  # noqa: BLE001  # code of the user: it fails what it was given
            _fail(batch.messages, failure_from(error))
        except asyncio.CancelledError as cancelled:
            cut = self.was_cut()
            if not cut:
                _fail(batch.messages, failure_from(cancelled))
        await self._finish(batch, cut=cut)
        self.held = ()
        self.busy_since = None
        took = monotonic() - started
        self.meter.busy_seconds += took
        self.meter.duration.observe(took)
        if span is not None:
            successful = [m for m in batch.messages if m.ok]
            span.stop(successful=successful, failed=[m for m in batch.messages if not m.ok])

    @staticmethod
    def _reconcile(batch: Batch, returned: object) -> None:
        problem, missing = returned_list_problem("handle_batch", batch.messages, returned)
        if problem:
            _fail(batch.messages, Failed("raised", problem, TypeError(problem)))
        else:
            _fail([message for message in missing if message.ok], not_returned("handle_batch"))

    async def _finish(self, batch: Batch, *, cut: bool) -> None:
        if cut:
            await self.shared.settler.give_back(batch.messages)
            return
        failed = [message for message in batch.messages if message._status is not None]
        if failed:
            await self.conclude([m for m in batch.messages if m._status is None], failed)
        else:
            await self.shared.settler.settle(batch.messages)


def _fail(messages: list[Message[Any]], status: Failed) -> None:
    for message in messages:
        message._status = status
