"""What runs the callback on the chunk in hand, and what was taken back or cut off meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from broadway_py.message import Message
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.callbacks.chunk import Chunk, contains
from broadway_py.pipeline.settlement.failures import failure_from
from broadway_py.telemetry import Span

__all__ = ["BeginSpan", "ChunkRunner", "GiveBack"]

GiveBack = Callable[[Chunk], Awaitable[None]]
BeginSpan = Callable[[Message[Any]], Span | None]


class ChunkRunner:
    """Runs ``handle_message`` on the chunks of one processor, one chunk at a time.

    There is one kind for each place where the callback may run: the event loop, a thread, a worker process.

    Args:
        call: of the processor.
        give_back: gives messages back to their sources.
        begin_span: tells telemetry that a message is handled now.
    """

    def __init__(self, call: Call, *, give_back: GiveBack, begin_span: BeginSpan) -> None:
        self.call = call
        self.give_back = give_back
        self.begin_span = begin_span
        #: What a drain or a pause took back before it was started, by identity.
        self.taken: set[int] = set()
        #: What the end of the drain cut off.
        self.unfinished: list[Message[Any]] = []

    async def run(self, chunk: Chunk) -> Chunk:
        """Handle every message of *chunk* that is ok; what is left of it here."""
        raise NotImplementedError

    def take_rest(self) -> list[Message[Any]]:
        """Take out what was not started of the chunk in hand, and can be given back."""
        raise NotImplementedError

    def reset_after_crash(self) -> None:
        """The processor crashed: there is no chunk in hand."""
        self.taken.clear()
        self.unfinished.clear()

    def note_cancelled(self, message: Message[Any], cancelled: asyncio.CancelledError) -> None:
        """The callback of *message* let out a cancellation: of the drain, or one that nobody asked for."""
        if self.call.was_cut():
            self.unfinished.append(message)
        else:
            message._status = failure_from(cancelled)

    async def without_unfinished(self, chunk: Chunk) -> list[Message[Any]]:
        """Give back what was cut off; the rest of *chunk*, without what was taken back."""
        unfinished, self.unfinished = self.unfinished, []
        gone = self.taken | {id(message) for message in unfinished}
        self.taken.clear()
        if unfinished:
            await self.give_back(unfinished)
        return [message for message in chunk if id(message) not in gone]

    def unhandled(self, chunk: Chunk) -> list[Message[Any]]:
        """Those of *chunk* that are to be handled."""
        return [m for m in chunk if m._status is None and not contains(self.unfinished, m)]
