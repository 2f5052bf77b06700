"""``async def handle_message``: message after message in the processor's own task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from broadway_py._core.settlement import returned_one_problem
from broadway_py.message import Message
from broadway_py.pipeline.chunk import Chunk, ChunkRunner, contains, refused
from broadway_py.pipeline.settler import can_give_back
from broadway_py.pipeline.spans import end_message_span, message_listeners
from broadway_py.pipeline.worker import failure_from, raised_by_callback

if TYPE_CHECKING:
    from broadway_py.pipeline.processor import Processor

__all__ = ["LoopRunner"]


class LoopRunner(ChunkRunner):
    """Awaits the callback."""

    def __init__(self, processor: Processor) -> None:
        super().__init__(processor)
        self._current: Message[Any] | None = None

    async def run(self, chunk: Chunk) -> Chunk:
        """Handle every message of *chunk* that is ok; all of it stays here."""
        processor = self.processor
        handle, unfinished, taken = processor.handle_message, self.unfinished, self.taken
        spans, limited = message_listeners(), processor.timeout_s is not None
        processor.in_callback = True
        for message in chunk:
            if message._status is not None or (taken and id(message) in taken):
                continue
            if processor.cut:
                if not contains(unfinished, message):
                    unfinished.append(message)
                continue
            self._current = message
            span = self.begin_span(message) if spans else None
            if limited:
                processor.begin_call()
            try:
                returned = await handle(message)
            except raised_by_callback() as error:
                message._status = failure_from(error)
            except asyncio.CancelledError as cancelled:
                self.note_cancelled(message, cancelled)
            else:
                if returned is not None and returned is not message:
                    message._status = refused(returned_one_problem("handle_message", returned))
            if limited and processor.end_call() and not processor.cut:
                # However it ended: it ended late.
                message._status = processor.timeout_failure()
            if span is not None:
                end_message_span(span, message, message._status)
        self._current = None
        processor.in_callback = False
        return chunk

    def forget(self) -> None:
        """The processor crashed: there is no chunk in hand."""
        super().forget()
        self._current = None

    def take_rest(self) -> list[Message[Any]]:
        """Take out what comes after the message that is handled now."""
        if self._current is None:
            return []
        rest = list(self.processor.held)
        rest = rest[next(place for place, m in enumerate(rest) if m is self._current) + 1 :]
        taken = [m for m in rest if m._status is None and id(m) not in self.taken and can_give_back(m)]
        # The loop looks at this before each message.
        self.taken.update(id(message) for message in taken)
        return taken
