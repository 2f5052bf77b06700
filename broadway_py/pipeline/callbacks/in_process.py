"""Runs ``handle_message`` with ``executor="process"``: sends the whole chunk to the processor's worker process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from broadway_py._core.settlement import can_give_back
from broadway_py.message import Message
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.callbacks.chunk import Chunk
from broadway_py.pipeline.callbacks.message_spans import MessageSpans
from broadway_py.pipeline.callbacks.runner import ChunkRunner, GiveBack
from broadway_py.pipeline.processes.callback_process import CallbackProcess
from broadway_py.pipeline.processes.jobs import ChunkJob
from broadway_py.pipeline.settlement.failures import fail, failure_from

__all__ = ["ProcessRunner"]


class ProcessRunner(ChunkRunner):
    """Sends chunks to *process* and applies the results that it sends back.

    Args:
        call: the call of the processor.
        process: the worker process.
        give_back: gives messages back to their sources.
        give_back_soon: does the same without waiting for it.
        spans: told when the handling of a message begins and ends.
    """

    def __init__(
        self,
        call: Call,
        process: CallbackProcess,
        *,
        give_back: GiveBack,
        give_back_soon: Callable[[Chunk], None],
        spans: MessageSpans,
    ) -> None:
        super().__init__(call, give_back=give_back, spans=spans)
        self._process = process
        self._give_back_soon = give_back_soon

    async def run(self, chunk: Chunk) -> Chunk:
        """Handle every message of *chunk* that is ok. Returns the whole chunk."""
        given = self.unhandled(chunk)
        if not given:
            return chunk
        call = self.call
        begin, end = self._begin_and_end()
        headers = self.spans.send_away(given)
        try:
            job = ChunkJob(given, self._taken_by_process, begin, end, headers=headers)
            try:
                with call.in_callback:
                    await self._process.run(job)
            except asyncio.CancelledError as cancelled:
                if call.was_cut():
                    self.unfinished.extend(job.unfinished())
                else:
                    fail(job.unfinished(), failure_from(cancelled))
        finally:
            self.spans.finish_away(given)
        return chunk

    def _taken_by_process(self, messages: Chunk) -> None:
        """Give back *messages*, which the worker process has not begun and leaves out, as :meth:`take_rest` asked."""
        self.taken.update(id(message) for message in messages)
        self._give_back_soon(messages)

    def take_rest(self) -> list[Message[Any]]:
        """Take out and return the messages that were not sent. Ask the process to leave out those it has not begun."""
        taken = self._process.take_back(can_give_back)
        self.taken.update(id(message) for message in taken)
        return taken

    def _begin_and_end(self) -> tuple[Callable[[Message[Any]], None], Callable[[Message[Any]], None]]:
        """Returns two functions that tell telemetry when a message begins and ends in the worker process."""
        spans: dict[int, Any] = {}

        def begin(message: Message[Any]) -> None:
            if id(message) not in spans and (span := self.spans.begin_away(message)) is not None:
                spans[id(message)] = span

        def end(message: Message[Any]) -> None:
            self.spans.end_away(spans.pop(id(message), None), message)

        return begin, end
