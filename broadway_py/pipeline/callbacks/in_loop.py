"""Runs an ``async def handle_message``: one message after the other, in the processor's own task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any

from broadway_py._core.settlement import can_give_back
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.callbacks.chunk import Chunk, contains
from broadway_py.pipeline.callbacks.message_spans import MessageSpans
from broadway_py.pipeline.callbacks.runner import ChunkRunner, GiveBack
from broadway_py.pipeline.contexts import StageContext, is_changed
from broadway_py.pipeline.settlement.failures import failure_from, refused_return

__all__ = ["LoopRunner"]


class LoopRunner(ChunkRunner):
    """Awaits the callback for each message.

    Args:
        call: the call of the processor.
        context: the context in which the processor's work runs.
        handle_message: the callback.
        give_back: gives messages back to their sources.
        spans: told when the handling of a message begins and ends.
    """

    def __init__(
        self,
        call: Call,
        context: StageContext,
        handle_message: Callable[[Message[Any]], Awaitable[Any]],
        *,
        give_back: GiveBack,
        spans: MessageSpans,
    ) -> None:
        super().__init__(call, give_back=give_back, spans=spans)
        self._needs_contexts = spans.needs_contexts
        self._context = context
        self._handle_message = handle_message
        self._chunk: Chunk = ()
        self._current: Message[Any] | None = None

    def run(self, chunk: Chunk) -> Coroutine[Any, Any, Chunk]:
        """Handle every message of *chunk* that is ok. Returns the whole chunk."""
        if self._needs_contexts():
            return self._run_watched(chunk)
        base = self.call.base
        if is_changed(self._context.current, base):
            return self._run_afresh(chunk, base)
        return self._run(chunk, base)

    async def _run_watched(self, chunk: Chunk) -> Chunk:
        # Context variables that telemetry handlers have set for this chunk are visible for each message and its end.
        outer, base = self._context.current, copy_context()
        await self._fresh(base)
        await self._run(chunk, base, spans=self.spans.are_wanted())
        await self._context.switch(outer)
        return chunk

    async def _run_afresh(self, chunk: Chunk, base: Context) -> Chunk:
        await self._fresh(base)
        return await self._run(chunk, base)

    async def _run(self, chunk: Chunk, base: Context, *, spans: bool = False) -> Chunk:
        call, context = self.call, self._context.current
        handle, taken, limited = self._handle_message, self.taken, call.timeout_s is not None
        self._chunk = chunk
        # Set by hand, not by a with block: this runs for each chunk.
        call.in_callback.is_on = True
        for message in chunk:
            if message._status is not None or (taken and id(message) in taken):
                continue
            if call.cut:
                self._leave_out(message)
                continue
            self._current = message
            span = self.spans.begin(message) if spans else None
            if limited:
                call.begin()
            try:
                returned = await handle(message)
                if returned is not None and returned is not message:
                    message._status = refused_return("handle_message", returned)
            except foreign_errors() as error:
                message._status = failure_from(error)
            except asyncio.CancelledError as cancelled:
                self.note_cancelled(message, cancelled)
            if limited or spans:
                self._note_end(message, span)
            # Not in a function, because this runs for each message. A value that raises when compared counts as new.
            try:
                is_clean = context == base
            except foreign_errors():
                is_clean = False
            if not is_clean:
                if message._status is not None:
                    call.own_contexts[id(message)] = context
                context = await self._fresh(base)
        self._current = None
        self._chunk = ()
        call.in_callback.is_on = False
        return chunk

    async def _fresh(self, base: Context) -> Context:
        """Switch to a clean context and return it."""
        context = base.copy()
        await self._context.switch(context)
        return context

    def _leave_out(self, message: Message[Any]) -> None:
        if not contains(self.unfinished, message):
            self.unfinished.append(message)

    def _note_end(self, message: Message[Any], span: Any) -> None:
        call = self.call
        if call.timeout_s is not None and call.end() and not call.cut:
            # Whatever the result was, it came too late.
            message._status = call.timeout_failure()
        if span is not None:
            is_cut = call.cut and contains(self.unfinished, message)
            self.spans.end(span, message, message._status, is_cut=is_cut)

    def reset_after_crash(self) -> None:
        """Forget the chunk in hand. Called after a crash of the processor."""
        super().reset_after_crash()
        self._current = None
        self._chunk = ()

    def take_rest(self) -> list[Message[Any]]:
        """Take out and return the messages after the one that is handled now."""
        if self._current is None:
            return []
        rest = list(self._chunk)
        rest = rest[next(place for place, m in enumerate(rest) if m is self._current) + 1 :]
        taken = [m for m in rest if m._status is None and id(m) not in self.taken and can_give_back(m)]
        # _run checks this before each message.
        self.taken.update(id(message) for message in taken)
        return taken
