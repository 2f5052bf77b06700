"""The base class of the runners, which run the callback on a chunk and note what is taken back or cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from broadway_py.message import Message
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.callbacks.chunk import Chunk, contains
from broadway_py.pipeline.callbacks.message_spans import MessageSpans
from broadway_py.pipeline.settlement.failures import failure_from

__all__ = ["ChunkRunner", "GiveBack"]

GiveBack = Callable[[Chunk], Awaitable[None]]


class ChunkRunner:
    """Runs ``handle_message`` on the chunks of one processor, one chunk at a time.

    There is one subclass for each place where the callback may run: the event loop, a thread, a worker process.

    Args:
        call: the call of the processor.
        give_back: gives messages back to their sources.
        spans: told when the handling of a message begins and ends.
    """

    def __init__(self, call: Call, *, give_back: GiveBack, spans: MessageSpans) -> None:
        self.call = call
        self.give_back = give_back
        self.spans = spans
        #: The ``id()`` of each message that a drain or a pause took back before it was started.
        self.taken: set[int] = set()
        #: The messages that the end of the drain cut off.
        self.unfinished: list[Message[Any]] = []

    async def run(self, chunk: Chunk) -> Chunk:
        """Handle every message of *chunk* that is ok. Returns the messages that are still here."""
        raise NotImplementedError

    def take_rest(self) -> list[Message[Any]]:
        """Take out and return the messages of the current chunk that were not started and can be given back."""
        raise NotImplementedError

    def reset_after_crash(self) -> None:
        """Forget the chunk in hand. Called after a crash of the processor."""
        self.taken.clear()
        self.unfinished.clear()

    def note_cancelled(self, message: Message[Any], cancelled: asyncio.CancelledError) -> None:
        """Note that the callback of *message* raised a cancellation: from the drain, or as an error of its own."""
        if self.call.was_cut():
            self.unfinished.append(message)
        else:
            message._status = failure_from(cancelled)

    async def without_unfinished(self, chunk: Chunk) -> list[Message[Any]]:
        """Give back the messages that were cut off. Returns the rest of *chunk*, without messages taken back."""
        unfinished, self.unfinished = self.unfinished, []
        gone = self.taken | {id(message) for message in unfinished}
        self.taken.clear()
        if unfinished:
            await self.give_back(unfinished)
        return [message for message in chunk if id(message) not in gone]

    def unhandled(self, chunk: Chunk) -> list[Message[Any]]:
        """Returns the messages of *chunk* that are to be handled."""
        return [m for m in chunk if m._status is None and not contains(self.unfinished, m)]
