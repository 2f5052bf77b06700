"""Batch processors: pass one batch at a time to ``handle_batch``, then settle it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from broadway_py._core.batching import Batch
from broadway_py.foreign import foreign_errors
from broadway_py.message import BatchInfo, Message, raised
from broadway_py.pipeline.callbacks.chunk import is_plain
from broadway_py.pipeline.poison.stage_journal import Part, StageJournal
from broadway_py.pipeline.processes.jobs import BatchJob
from broadway_py.pipeline.settlement.failures import fail, fail_together, failure_from, reconcile, refused
from broadway_py.pipeline.stages.handling import HandlingStage
from broadway_py.pipeline.stages.ordered_retry import called_off, wait_and_retry_in_order
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.telemetry import Span

__all__ = ["BatchProcessor", "TracedBatchProcessor"]


class BatchProcessor(HandlingStage[Batch, Batch]):
    """One batch processor of a batcher.

    Args:
        services: the services of the pipeline.
        key: the batcher's name.
        index: position among the batcher's batch processors.
        meter: the figures of the batcher's batch processors.
        timeout_s: seconds that ``handle_batch`` may take for one batch; None for no limit.
        keyed: True if all batches of a partition come to this batch processor and no other.
    """

    takes_failed = False

    def __init__(
        self,
        services: Services,
        key: str,
        index: int,
        meter: Meter,
        timeout_s: float | None = None,
        *,
        keyed: bool = False,
    ) -> None:
        super().__init__(services, f"batch_processors:{key}", index, meter, timeout_s, keyed=keyed)
        # What enters the span of the batch in hand, and its headers for a worker process; None without tracing.
        self._enter: Callable[[], None] | None = None
        self._headers: Mapping[str, str] | None = None

    async def run(self) -> None:
        """Work until the batcher has ended, or until cut off."""
        call = self.call
        while not call.cut:
            if call.stuck and not self.services.is_stopping:
                await self._wait_for_slot()
            elif call.stuck:
                if await self._turn_away():
                    break
            elif self._later:
                await self._begin(self._next_later())
            elif self.inlet:
                edge, batches, ask = self.inlet.take()
                try:
                    for batch in batches:
                        await self._begin(batch)
                finally:
                    if ask:
                        edge.ask(ask)
            elif self.inlet.finished:
                break
            else:
                await self.wake.wait()

    def take_all(self) -> list[Message[Any]]:
        """Take out and return all messages that wait in this stage."""
        waiting = [*self._later, *self.inlet.remove(lambda _: True)]
        self._later.clear()
        return [message for batch in waiting for message in batch.messages]

    def _messages_of(self, batch: Batch) -> list[Message[Any]]:
        return batch.messages

    def _pieces(self, taken: Sequence[Batch]) -> Sequence[Batch]:
        return taken

    def _next_later(self) -> Batch:
        return self._later.pop(0)

    def _begin_span_of(self, batch: Batch) -> Span | None:
        return self.services.span(
            "broadway.batch_processor",
            self.index,
            name=self.name,
            messages=list(batch.messages),
            batch_info=batch.info,
        )

    def _end_span_of(self, span: Span, batch: Batch, result: None) -> None:
        span.stop(successful=[m for m in batch.messages if m.ok], failed=_failed_of(batch))

    def _put_off_rest(self, part: Part, batch: Batch) -> Batch:
        self._later.insert(0, _part_of(batch, part.rest))
        return _part_of(batch, part.now)

    async def _wait_for_turn(self, journal: StageJournal, part: Part, batch: Batch) -> tuple[Part, Batch] | None:
        self.held = batch.messages
        if await journal.wait_for_turn(alone=part.alone):
            return part, batch
        self.held = ()
        self._later.insert(0, batch)
        return None

    async def _work(self, batch: Batch) -> None:
        self.held = batch.messages
        unfinished = await self._call_back(batch, batch.messages)
        if not unfinished and is_plain(batch.messages):
            await self.services.settler.settle(batch.messages)
            return
        while not unfinished and (again := await wait_and_retry_in_order(self, _failed_of(batch))):
            unfinished = await self._call_back(batch, again)
        _refuse_children(batch.messages)
        await self._finish(batch, unfinished or called_off(self, _failed_of(batch)))

    async def _call_back(self, batch: Batch, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Call ``handle_batch`` for *messages* of *batch*.

        Returns the messages that it did not finish because the drain cut it off.
        """
        cut = False
        info = batch.info if messages is batch.messages else replace(batch.info, size=len(messages))
        try:
            returned = await self._call(messages, info)
            if returned is not None:
                reconcile("handle_batch", messages, returned)
        except foreign_errors() as error:
            fail_together(messages, error)
        except asyncio.CancelledError as cancelled:
            cut = self.call.was_cut()
            if not cut:
                fail(messages, failure_from(cancelled))
        self.call.note_context(messages)
        if self.call.end() and not cut:
            self._fail_late(batch, messages)
        return messages if cut else []

    async def _call(self, messages: list[Message[Any]], info: BatchInfo) -> object:
        if self.process is None:
            self.call.begin()
            return await self.call.run("handle_batch", list(messages), info, enter=self._enter)
        with self.call.in_callback:
            await self.process.run(BatchJob(messages, info, self._headers))
        return None

    def _fail_late(self, batch: Batch, late: list[Message[Any]]) -> None:
        if not self.services.callbacks.is_async["handle_batch"]:
            # The thread still runs. Detached copies make sure that its writes do not reach the pipeline's messages.
            self.call.leave_thread()
            mine = {id(message): message.detached() for message in late}
            batch.messages = self.held = [mine.get(id(message), message) for message in batch.messages]
            late = list(mine.values())
        fail(late, self.call.timeout_failure())

    async def _finish(self, batch: Batch, unfinished: list[Message[Any]]) -> None:
        """Give back *unfinished* and settle the other messages."""
        if unfinished:
            await self.conclusion.give_back(unfinished)
        gone = {id(message) for message in unfinished}
        rest = [message for message in batch.messages if id(message) not in gone]
        failed = [message for message in rest if message._status is not None]
        if failed:
            await self.conclusion.conclude([m for m in rest if m._status is None], failed)
        elif rest:
            await self.services.settler.settle(rest)


class TracedBatchProcessor(BatchProcessor):
    """Works as :class:`BatchProcessor`. Each call of ``handle_batch`` has a span."""

    async def _call_back(self, batch: Batch, messages: list[Message[Any]]) -> list[Message[Any]]:
        assert self.services.tracer is not None  # noqa: S101  # this class is for pipelines with a tracer
        given = {id(message) for message in messages}
        places = [place for place, message in enumerate(batch.messages) if id(message) in given]
        span = self.services.tracer.handle_batch(messages, batch.info)
        self._enter = span.enter
        self._headers = None if self.process is None else span.headers()
        try:
            unfinished = await super()._call_back(batch, messages)
        except BaseException as error:
            span.end([raised(error)] * len(places))
            raise
        # A message whose thread does not return is replaced by a copy in the batch.
        failed = [status for place in places if (status := batch.messages[place]._status) is not None]
        span.end(failed, is_cut=bool(unfinished))
        return unfinished


def _failed_of(batch: Batch) -> list[Message[Any]]:
    return [message for message in batch.messages if message._status is not None]


def _part_of(batch: Batch, messages: list[Message[Any]]) -> Batch:
    return Batch(messages, replace(batch.info, size=len(messages)))


def _refuse_children(messages: list[Message[Any]]) -> None:
    for message in messages:
        if message._children is not None and message._status is None:
            message._status = refused(
                "spawn() was called in handle_batch, which comes after the batchers; call it in handle_message"
            )
