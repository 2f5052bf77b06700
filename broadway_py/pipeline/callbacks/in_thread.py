"""Runs a plain ``def handle_message``: one thread handles the whole chunk."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextvars import Context
from typing import Any

from broadway_py._core.settlement import can_give_back
from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Message
from broadway_py.pipeline.callbacks.call import Call
from broadway_py.pipeline.callbacks.chunk import Chunk, contains
from broadway_py.pipeline.callbacks.message_spans import MessageSpans
from broadway_py.pipeline.callbacks.runner import ChunkRunner, GiveBack
from broadway_py.pipeline.contexts import awaited, drive, is_changed
from broadway_py.pipeline.settlement.failures import fail, failure_from, refused_return

__all__ = ["ThreadRunner"]


class ThreadRunner(ChunkRunner):
    """Waits for the thread and takes its results, and stops waiting when the thread is past its deadline.

    Args:
        call: the call of the processor.
        handle_message: the callback.
        give_back: gives messages back to their sources.
        postpone: called with the messages of the current chunk to handle later, and with those that are left of it.
        spans: told when the handling of a message begins and ends.
    """

    def __init__(
        self,
        call: Call,
        handle_message: Callable[[Message[Any]], Any],
        *,
        give_back: GiveBack,
        postpone: Callable[[Chunk, Chunk], None],
        spans: MessageSpans,
    ) -> None:
        super().__init__(call, give_back=give_back, spans=spans)
        self.handle_message = handle_message
        self._postpone = postpone
        self._running: _ThreadedChunk | None = None

    async def run(self, chunk: Chunk) -> Chunk:
        """Handle every message of *chunk* that is ok. Returns the messages that are still here."""
        given = self.unhandled(chunk)
        if not given:
            return chunk
        call = self.call
        run = self._running = _ThreadedChunk(self, given)
        with call.in_callback:
            try:
                # Each message of the chunk has its own deadline.
                call.begin(self._began_at)
                await call.threads.run(run, call.came_back)
            except asyncio.CancelledError as cancelled:
                run.abandoned = True
                cut = call.was_cut()
                if call.end() and not cut:
                    # Read only once: the thread may finish more messages meanwhile, but they are late.
                    finished = run.finished
                    given, unfinished = given[:finished], given[finished:]
                    chunk = await self._leave_behind(chunk, unfinished, run)
                elif cut:
                    self.spans.leave(run.span, None)
                else:
                    failure = failure_from(cancelled)
                    self.spans.leave(run.span, failure)
                    fail(given[run.finished :], failure)
                    given = given[: run.finished]
            finally:
                call.end()
                self._running = None
        self.unfinished.extend(m for m in given[run.finished :] if id(m) not in self.taken)
        for message, (result, context) in zip(given[: run.finished], run.results, strict=False):
            if isinstance(result, Failed):
                message._status = result
            elif result is not None and context is not None:
                await self._await_result(message, result, context, run.awaiting.get(id(message)))
            if message._status is not None and context is not None:
                call.own_contexts[id(message)] = context
        return chunk

    async def _leave_behind(self, chunk: Chunk, unfinished: Chunk, run: _ThreadedChunk) -> list[Message[Any]]:
        """Fail the first of *unfinished*, whose thread is past its deadline. Returns what is left of *chunk*.

        The thread cannot be stopped, so the message fails as a copy that the thread cannot change. The other messages
        were not started: they go back to the source, or wait in the processor until the thread returns.
        """
        unfinished = [message for message in unfinished if id(message) not in self.taken]
        if not unfinished:
            return list(chunk)
        call = self.call
        call.leave_thread()
        overdue, *rest = unfinished
        mine = overdue.detached()
        mine._status = call.timeout_failure()
        self.spans.leave(run.span, mine._status)
        await self.give_back([message for message in rest if can_give_back(message)])
        gone = {id(message) for message in rest}
        kept = [mine if message is overdue else message for message in chunk if id(message) not in gone]
        self._postpone([message for message in rest if not can_give_back(message)], kept)
        return kept

    async def _await_result(self, message: Message[Any], awaitable: Any, context: Context, span: Any) -> None:
        """Await *awaitable*, which a plain function returned. Often that function is a decorator's wrapper.

        *span* is what was told of its begin.
        """
        call = self.call
        with call.in_callback:
            call.begin()
            if call.journal is not None:
                call.journal.at_work([message])
            try:
                returned = await drive(awaited(awaitable), context)
                if returned is not None and returned is not message:
                    message._status = refused_return("handle_message", returned)
            except foreign_errors() as error:
                message._status = failure_from(error)
            except asyncio.CancelledError as cancelled:
                self.note_cancelled(message, cancelled)
            finally:
                if call.end() and not call.cut:
                    message._status = call.timeout_failure()
                if span is not None:
                    is_cut = call.cut and contains(self.unfinished, message)
                    self.spans.end(span, message, message._status, is_cut=is_cut)

    def reset_after_crash(self) -> None:
        """Forget the chunk in hand and its thread. Called after a crash of the processor."""
        super().reset_after_crash()
        self._running = None

    def take_rest(self) -> list[Message[Any]]:
        """Take out and return the messages that the thread has not started."""
        running = self._running
        if running is None:
            return []
        rest = running.unstarted()
        taken = [m for m in rest if m._status is None and id(m) not in self.taken and can_give_back(m)]
        # The thread checks `taken` after it has set its position. Messages that it started meanwhile are not taken.
        self.taken.update(id(message) for message in taken)
        late = {id(message) for message in rest} - {id(message) for message in running.unstarted()}
        self.taken -= late
        return [message for message in taken if id(message) not in late]

    def _began_at(self) -> float | None:
        return None if self._running is None else self._running.began_at


class _ThreadedChunk:
    """Calls ``handle_message`` for each message of a chunk, in one thread.

    The thread first sets which message it is at, then checks whether that message was taken back or the chunk was
    abandoned. The event loop first takes back (or abandons), then checks where the thread is. So the second of the two
    always sees what the first did.
    """

    def __init__(self, runner: ThreadRunner, messages: list[Message[Any]]) -> None:
        self.finished = 0
        self.abandoned = False
        #: For each finished message: None, its failure, or an awaitable to wait for; and its context, if it has set
        #: variables or has an awaitable.
        self.results: list[tuple[Any, Context | None]] = []
        #: What was told of the message that the thread is at.
        self.span: Any = None
        #: The same of each message whose callback has returned an awaitable, by ``id()``.
        self.awaiting: dict[int, Any] = {}
        self._base = runner.call.clean_context()
        self._clock = runner.call.clock
        self.began_at = self._clock.monotonic()
        self._at = -1
        self._messages = messages
        self._runner = runner

    def unstarted(self) -> list[Message[Any]]:
        """Returns the messages that the thread has not started."""
        return self._messages[self._at + 1 :]

    def __call__(self) -> None:
        taken, spans = self._runner.taken, self._runner.spans.are_wanted()
        monotonic = self._clock.monotonic
        context = self._base.copy()
        for place, message in enumerate(self._messages):
            self.began_at = monotonic()
            self._at = place
            if self.abandoned:
                return
            if id(message) in taken:
                self.results.append((None, None))
            else:
                result = context.run(self._handle, message, spans)
                if is_changed(context, self._base) or not (result is None or isinstance(result, Failed)):
                    self.results.append((result, context))
                    context = self._base.copy()
                else:
                    self.results.append((result, None))
            self.finished += 1

    def _handle(self, message: Message[Any], spans: bool) -> Any:  # noqa: FBT001  # Context.run passes it on
        result: Any = None
        span = self.span = self._runner.spans.begin(message) if spans else None
        try:
            returned = self._runner.handle_message(message)
            if inspect.isawaitable(returned):
                result = returned
            elif returned is not None and returned is not message:
                result = refused_return("handle_message", returned)
        except BaseException as error:  # noqa: BLE001  # user code in a thread: any error fails this message
            result = failure_from(error)
        if span is None or self.abandoned:
            return result
        if result is not None and not isinstance(result, Failed):
            # It ends when the awaitable does.
            self.awaiting[id(message)] = span
        else:
            self._runner.spans.end(span, message, result if isinstance(result, Failed) else message._status)
        return result
