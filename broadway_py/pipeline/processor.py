"""Processors: ``prepare_messages`` once per chunk, ``handle_message`` for each, then to a batcher or settled."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from broadway_py import telemetry
from broadway_py._core.settlement import not_returned, returned_list_problem, returned_one_problem
from broadway_py.message import Failed, Message
from broadway_py.pipeline.family import found_family
from broadway_py.pipeline.processes import CallbackProcess, ChunkRun
from broadway_py.pipeline.settler import can_give_back
from broadway_py.pipeline.worker import SUBMITTED, Meter, Shared, Span, Worker, failure_from, transform
from broadway_py.stage import Inlet, Outlet

__all__ = ["Processor"]

Chunk = Sequence[Message[Any]]


class Processor(Worker):
    """One of the pool.

    Args:
        shared: of the pipeline.
        index: position in the pool.
        meter: of the pool.
        batchers: the batchers' names, each as the name messages may use for it.
        timeout_s: for one message; None: as long as it likes.
    """

    inlet: Inlet[Message[Any]]

    def __init__(
        self,
        shared: Shared,
        index: int,
        meter: Meter,
        batchers: Mapping[str, str],
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(shared, "processors", index, meter, timeout_s)
        self.inlet = Inlet(self.wake)
        #: Towards the batchers; None when there are none.
        self.outlet: Outlet[Message[Any]] | None = None
        self._batchers = batchers
        self._ordered = shared.desk is not None and shared.desk.ordered
        self._is_async = shared.callbacks.is_async["handle_message"]
        # What the drain cut off.
        self._unfinished: list[Message[Any]] = []
        # Of the chunk in hand: what a drain or a pause took back before it was started, by identity.
        self._taken: set[int] = set()
        self._current: Message[Any] | None = None
        self._running: _ThreadedChunk | None = None
        # Settles parents after their children: in whichever task the last child ends, so never in the name of ours.
        self._parents = Worker(shared, "processors", index, meter)
        # Not started, because the slot is taken by a thread that is past its deadline.
        self._later: list[Message[Any]] = []

    async def run(self) -> None:
        """Work until every producer of this stage has ended, or until cut off."""
        inlet, outlet = self.inlet, self.outlet
        while not self.cut:
            if outlet is not None and outlet.backlog:
                await self._wait_for_room()
            elif self.stuck:
                if not await self.wait_for_slot() and await self._turn_away():
                    break
            elif self._later:
                later, self._later = self._later, []
                await (self._process_in_order(later) if self._ordered else self._process(later))
            elif inlet:
                edge, chunk, ask = inlet.take()
                try:
                    await (self._process_in_order(chunk) if self._ordered else self._process(chunk))
                finally:
                    # Also after a crash: what was counted as asked must be asked, or this stage starves.
                    if ask:
                        edge.ask(ask)
            elif inlet.finished:
                break
            elif not self._pass_flush_on():
                await self.wake.wait()
        if outlet is not None and not self.cut:
            outlet.close()

    def _pass_flush_on(self) -> bool:
        """Tell the batchers that nothing more may come for now, if the sources said so."""
        wanted, self.inlet.flush_wanted = self.inlet.flush_wanted, False
        if wanted and self.outlet is not None:
            self.outlet.flush()
        return wanted

    async def _wait_for_room(self) -> None:
        clock = self.shared.clock
        since = clock.monotonic()
        await self.wake.wait()
        self.meter.backpressure_seconds += clock.monotonic() - since

    async def _turn_away(self) -> bool:
        """The drain does not wait for the thread: what waits here goes back, or fails; True when no more can come."""
        later, self._later = self._later, []
        await self.shared.settler.give_back(later)
        while self.inlet:
            edge, chunk, ask = self.inlet.take()
            await self.shared.settler.give_back(chunk)
            if ask:
                edge.ask(ask)
        return await self.nothing_comes(self.inlet)

    def retire(self) -> None:
        """Take nothing more; finish what is here, then end."""
        for edge in list(self.inlet.edges):
            edge.outlet.unsubscribe(edge)

    def leftovers(self) -> list[Message[Any]]:
        """Take out everything that waits in this stage."""
        waiting = [*self._later, *self.inlet.remove(lambda _: True)]
        self._later = []
        return waiting if self.outlet is None else [*self.outlet.take_backlog(), *waiting]

    async def _process(self, chunk: Chunk) -> None:
        self.held = chunk
        monotonic = self.shared.clock.monotonic
        started = self.busy_since = monotonic()
        span = self.span("broadway.processor", name=self.name, messages=list(chunk)) if telemetry.active() else None
        try:
            settle, forward, failed = await self._work(chunk)
        except Exception as error:
            if span is not None:
                span.exception(error)
            raise
        self.held = ()
        self.busy_since = None
        took = monotonic() - started
        self.meter.busy_seconds += took
        self.meter.duration.observe(took)
        if span is not None:
            span.stop(successful_to_ack=settle, successful_to_forward=forward, failed=failed)

    async def _work(self, chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
        """What was settled as successful, what went to batchers, what failed."""
        chunk = await (self._call_back_until_done(chunk) if self._ordered else self._call_back(chunk))
        if any(message._children is not None for message in chunk):
            chunk = await self._send_children(chunk)
        settle, forward, failed = self._sort(chunk)
        if failed:
            await self.conclude(settle, failed)
        elif settle:
            await self.shared.settler.settle(settle)
        if forward and self.outlet is not None:
            self.outlet.dispatch(forward)
        return settle, forward, failed

    async def _call_back(self, chunk: Chunk) -> Chunk:
        """Run the callbacks on *chunk*; what is left of it here."""
        callbacks = self.shared.callbacks
        if callbacks.schema is not None:
            self._validate(chunk)
        if callbacks.prepare_messages is not None:
            await self._prepare(chunk)
        if self._is_async:
            await self._handle(chunk)
        elif self.process is not None:
            await self._handle_in_process(chunk, self.process)
        else:
            chunk = await self._handle_in_thread(chunk)
        if self._unfinished or self._taken:
            chunk = await self._without_unfinished(chunk)
        return chunk

    async def _process_in_order(self, chunk: Chunk) -> None:
        """One by one: a message that fails is done with, retries included, before the next one starts."""
        # They wait there also because a crash or a drain must find them.
        self._later = list(chunk)
        while self._later and not self.cut and not self.stuck:
            await self._process([self._later.pop(0)])

    async def _call_back_until_done(self, chunk: Chunk) -> Chunk:
        """The same, tried again in place as long as the failure policy says so."""
        left = await self._call_back(chunk)
        while again := await self.retry_in_place([message for message in left if message._status is not None]):
            self._make_fresh(again)
            left = await self._call_back(again)
        called_off = self.called_off([message for message in left if message._status is not None])
        if called_off:
            await self.shared.settler.give_back(called_off)
            left = [message for message in left if not _contains(called_off, message)]
        return left

    def _make_fresh(self, messages: Chunk) -> None:
        """Bring the data of *messages* to where they were when they came in here."""
        transformer = self.shared.callbacks.transformer
        for message in messages:
            message.data = message.raw
        if transformer is not None:
            transform([message for message in messages if message.producer != SUBMITTED], transformer)

    def _validate(self, chunk: Chunk) -> None:
        schema = self.shared.callbacks.schema
        for message in chunk:
            if message._status is not None or schema is None:
                continue
            data = message.data
            try:
                if isinstance(data, str | bytes | bytearray):
                    message.data = schema.validate_json(data)
                else:
                    message.data = schema.validate_python(data)
            except ValidationError as invalid:
                message._status = Failed("invalid", _without_input(invalid, self.shared.callbacks.schema_names))
            except Exception as error:  # noqa: BLE001  # a validator of the user may raise anything
                message._status = Failed("invalid", f"the schema raised {type(error).__name__}", error)

    async def _prepare(self, chunk: Chunk) -> None:
        given = [message for message in chunk if message._status is None]
        if not given:
            return
        try:
            returned = await self.call("prepare_messages", list(given))
            if returned is not None:
                problem, missing = returned_list_problem("prepare_messages", given, returned)
                if problem:
                    _fail(given, _refused(problem))
                else:
                    _fail([message for message in missing if message.ok], not_returned("prepare_messages"))
        except Exception as error:  # noqa: BLE001  # code of the user: it fails what it was given
            _fail(given, failure_from(error))
        except asyncio.CancelledError as cancelled:
            if self.was_cut():
                self._unfinished.extend(given)
            else:
                _fail(given, failure_from(cancelled))

    async def _handle(self, chunk: Chunk) -> None:
        handle, unfinished, taken = self.shared.callbacks.handle_message, self._unfinished, self._taken
        spans, limited = _message_listeners(), self.timeout_s is not None
        self._in_callback = True
        for message in chunk:
            if message._status is not None or (taken and id(message) in taken):
                continue
            if self.cut:
                if not _contains(unfinished, message):
                    unfinished.append(message)
                continue
            self._current = message
            span = self.span("broadway.processor.message", name=self.name, message=message) if spans else None
            if limited:
                self.begin_call()
            try:
                returned = await handle(message)
            except Exception as error:  # noqa: BLE001  # code of the user: it fails this message alone
                message._status = failure_from(error)
            except asyncio.CancelledError as cancelled:
                self._note_cancelled(message, cancelled)
            else:
                if returned is not None and returned is not message:
                    message._status = _refused(returned_one_problem("handle_message", returned))
            if limited and self.end_call() and not self.cut:
                # However it ended: it ended late.
                message._status = self.timeout_failure()
            if span is not None:
                _end_message_span(span, message, message._status)
        self._current = None
        self._in_callback = False

    def _note_cancelled(self, message: Message[Any], cancelled: asyncio.CancelledError) -> None:
        if self.was_cut():
            self._unfinished.append(message)
        else:
            message._status = failure_from(cancelled)

    async def _handle_in_thread(self, chunk: Chunk) -> Chunk:
        """One hop for the whole chunk; what is left of it."""
        given = [m for m in chunk if m._status is None and not _contains(self._unfinished, m)]
        if not given:
            return chunk
        run = self._running = _ThreadedChunk(self, given)
        try:
            self._in_callback = True
            self.begin_call()
            await self.shared.threads.run(run, self.came_back)
        except asyncio.CancelledError as cancelled:
            run.abandoned = True
            cut = self.was_cut()
            if self.end_call() and not cut:
                # Looked at once: the thread may get on meanwhile, but what it finishes now is late.
                finished = run.finished
                given, unfinished = given[:finished], given[finished:]
                chunk = await self._leave_behind(chunk, unfinished)
            elif not cut:
                _fail(given[run.finished :], failure_from(cancelled))
                given = given[: run.finished]
        finally:
            self.end_call()
            self._in_callback = False
            self._running = None
        self._unfinished.extend(m for m in given[run.finished :] if id(m) not in self._taken)
        for message, result in zip(given[: run.finished], run.results, strict=False):
            if isinstance(result, Failed):
                message._status = result
            elif result is not None:
                await self._await_result(message, result)
        return chunk

    async def _leave_behind(self, chunk: Chunk, unfinished: Chunk) -> list[Message[Any]]:
        """The first of *unfinished* is past its deadline in a thread that cannot be stopped; what is left of *chunk*.

        It fails now, as an object that the thread does not know. The others were not started: they go back to the
        source, or wait here until the thread returns.
        """
        unfinished = [message for message in unfinished if id(message) not in self._taken]
        if not unfinished:
            return list(chunk)
        self.leave_thread()
        overdue, *rest = unfinished
        mine = overdue.detached()
        mine._status = self.timeout_failure()
        self._later = [*(message for message in rest if not can_give_back(message)), *self._later]
        await self.shared.settler.give_back([message for message in rest if can_give_back(message)])
        gone = {id(message) for message in rest}
        kept = [mine if message is overdue else message for message in chunk if id(message) not in gone]
        self.held = kept
        return kept

    def current_deadline(self) -> float:
        """In a thread, it moves along with the messages of the chunk."""
        if self._running is None or self.timeout_s is None:
            return super().current_deadline()
        return self._running.began_at + self.timeout_s

    async def _handle_in_process(self, chunk: Chunk, process: CallbackProcess) -> None:
        given = [m for m in chunk if m._status is None and not _contains(self._unfinished, m)]
        if not given:
            return
        run = ChunkRun(given, self._taken_by_process, *_begin_and_end(self))
        try:
            self._in_callback = True
            await process.run(run)
        except asyncio.CancelledError as cancelled:
            if self.was_cut():
                self._unfinished.extend(run.unfinished())
            else:
                _fail(run.unfinished(), failure_from(cancelled))
        finally:
            self._in_callback = False

    def _taken_by_process(self, messages: Chunk) -> None:
        """The worker process, asked by :meth:`take_unstarted`, has not begun with *messages* and leaves them out."""
        self._taken.update(id(message) for message in messages)
        self.shared.settler.give_back_soon(messages)

    async def _await_result(self, message: Message[Any], awaitable: Any) -> None:
        """A plain function that returned an awaitable is an async one in disguise (a decorator's wrapper, often)."""
        self._in_callback = True
        self.begin_call()
        try:
            returned = await awaitable
            if returned is not None and returned is not message:
                message._status = _refused(returned_one_problem("handle_message", returned))
        except Exception as error:  # noqa: BLE001  # code of the user: it fails this message alone
            message._status = failure_from(error)
        except asyncio.CancelledError as cancelled:
            self._note_cancelled(message, cancelled)
        finally:
            self._in_callback = False
            if self.end_call() and not self.cut:
                message._status = self.timeout_failure()

    async def _send_children(self, chunk: Chunk) -> list[Message[Any]]:
        """Let the parents in *chunk* wait for their children, and send those on; the others."""
        others: list[Message[Any]] = []
        shared = self.shared
        for message in chunk:
            children = message._children
            if children is None or message._status is not None:
                others.append(message)
                continue
            give_back = shared.settler.give_back
            found_family(message, shared.children, shared.clock.monotonic(), self._parents.conclude, give_back)
            settle, forward, failed = self._sort(children)
            if settle or failed:
                await self.conclude(settle, failed)
            if forward and self.outlet is not None:
                self.outlet.dispatch(forward)
        return others

    def take_unstarted(self) -> list[Message[Any]]:
        """Take out what no callback has seen and can be given back: it will not be started here any more."""
        later = [message for message in self._later if can_give_back(message)]
        self._later = [message for message in self._later if not can_give_back(message)]
        return [*self._take_rest_of_chunk(), *later, *self.inlet.remove(can_give_back)]

    def _take_rest_of_chunk(self) -> list[Message[Any]]:
        if self.process is not None:
            taken = self.process.take_back(can_give_back)
            self._taken.update(id(message) for message in taken)
            return taken
        if self._running is not None:
            rest = self._running.unstarted()
        elif self._current is not None:
            rest = list(self.held)
            rest = rest[next(place for place, m in enumerate(rest) if m is self._current) + 1 :]
        else:
            return []
        taken = [m for m in rest if m._status is None and id(m) not in self._taken and can_give_back(m)]
        # The callback's loop looks at this before each message; a thread does so after it has said where it is.
        self._taken.update(id(message) for message in taken)
        if self._running is None:
            return taken
        late = {id(message) for message in rest} - {id(message) for message in self._running.unstarted()}
        self._taken -= late
        return [message for message in taken if id(message) not in late]

    async def _without_unfinished(self, chunk: Chunk) -> list[Message[Any]]:
        """Give back what was cut off; the rest of *chunk*, without what :meth:`take_unstarted` took."""
        unfinished, self._unfinished = self._unfinished, []
        gone = self._taken | {id(message) for message in unfinished}
        self._taken.clear()
        if unfinished:
            await self.shared.settler.give_back(unfinished)
        return [message for message in chunk if id(message) not in gone]

    def _sort(self, chunk: Chunk) -> tuple[Chunk, Chunk, Chunk]:
        """What to settle as successful, what goes to batchers, what failed."""
        if self.outlet is None:
            for message in chunk:
                if message._status is not None:
                    return (
                        [m for m in chunk if m._status is None],
                        (),
                        [m for m in chunk if m._status is not None],
                    )
            return chunk, (), ()
        settle: list[Message[Any]] = []
        forward: list[Message[Any]] = []
        failed: list[Message[Any]] = []
        batchers = self._batchers
        # Neighbours mostly go to one batcher: looked up once. None is no name here, it is handled before.
        last: str | None = None
        last_name = ""
        for message in chunk:
            if message._status is not None:
                failed.append(message)
            elif message.batcher is None:
                settle.append(message)
            elif message.batcher is last:
                message.batcher = last_name
                forward.append(message)
            elif (name := _look_up(batchers, message.batcher)) is not None:
                last, last_name = message.batcher, name
                message.batcher = name
                forward.append(message)
            else:
                known = ", ".join(sorted(set(batchers.values())))
                message._status = Failed(
                    "unknown_batcher",
                    f"handle_message chose batcher {message.batcher!r}; this pipeline has {known}",
                )
                failed.append(message)
        return settle, forward, failed


class _ThreadedChunk:
    """``handle_message`` for each message of a chunk, in one thread.

    The thread says which message it is at and then looks whether that one was taken back or all was abandoned; the
    event loop takes back (or abandons) and then looks where the thread is. So whichever comes second knows.
    """

    def __init__(self, processor: Processor, messages: list[Message[Any]]) -> None:
        self.finished = 0
        self.abandoned = False
        #: For each finished message: None, why it failed, or an awaitable to wait for.
        self.results: list[Any] = []
        self.began_at = processor.shared.clock.monotonic()
        self._at = -1
        self._messages = messages
        self._processor = processor

    def unstarted(self) -> list[Message[Any]]:
        """The messages that the thread has not come to."""
        return self._messages[self._at + 1 :]

    def __call__(self) -> None:
        taken, spans = self._processor._taken, _message_listeners()
        monotonic = self._processor.shared.clock.monotonic
        for place, message in enumerate(self._messages):
            self.began_at = monotonic()
            self._at = place
            if self.abandoned:
                return
            self.results.append(None if id(message) in taken else self._handle(message, spans=spans))
            self.finished += 1

    def _handle(self, message: Message[Any], *, spans: bool) -> Any:
        processor = self._processor
        result: Any = None
        span = processor.span("broadway.processor.message", name=processor.name, message=message) if spans else None
        try:
            returned = processor.shared.callbacks.handle_message(message)
            if inspect.isawaitable(returned):
                result = returned
            elif returned is not None and returned is not message:
                result = _refused(returned_one_problem("handle_message", returned))
        except BaseException as error:  # noqa: BLE001  # code of the user, in a thread of its own: it fails this message
            result = failure_from(error)
        if span is not None and not self.abandoned:
            _end_message_span(span, message, result if isinstance(result, Failed) else message._status)
        return result


def _contains(messages: Sequence[Message[Any]], wanted: Message[Any]) -> bool:
    return any(message is wanted for message in messages)


def _message_listeners() -> bool:
    return telemetry.active() and any(
        telemetry.listening(f"broadway.processor.message.{kind}") for kind in ("start", "stop", "exception")
    )


def _begin_and_end(processor: Processor) -> tuple[Callable[[Message[Any]], None], Callable[[Message[Any]], None]]:
    """What tells telemetry of a message that is handled in another process."""
    spans: dict[int, Span | None] = {}

    def begin(message: Message[Any]) -> None:
        if id(message) not in spans and _message_listeners():
            spans[id(message)] = processor.span("broadway.processor.message", name=processor.name, message=message)

    def end(message: Message[Any]) -> None:
        span = spans.pop(id(message), None)
        if span is not None:
            _end_message_span(span, message, message._status)

    return begin, end


def _end_message_span(span: Span, message: Message[Any], failure: Failed | None) -> None:
    if failure is not None and failure.exception is not None:
        span.exception(failure.exception)
    else:
        span.stop(message=message)


def _fail(messages: Chunk, status: Failed) -> None:
    for message in messages:
        message._status = status


def _refused(sentence: str) -> Failed:
    return Failed("raised", sentence, TypeError(sentence))


def _look_up(batchers: Mapping[str, str], name: object) -> str | None:
    return batchers.get(name) if isinstance(name, str) else None


def _without_input(invalid: ValidationError, names: frozenset[str]) -> str:
    """Place and type of each complaint; never the input, which is somebody's data, nor the keys of a dict in it."""
    complaints = [
        f"{'.'.join(_part(part, names) for part in error['loc']) or 'the whole'}: {error['type']}"
        for error in invalid.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "does not fit the schema: " + "; ".join(complaints[:5]) + ("; …" if len(complaints) > 5 else "")


def _part(part: int | str, names: frozenset[str]) -> str:
    return str(part) if isinstance(part, int) or part in names else "***"
