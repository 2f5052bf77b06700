"""Plain ``def`` callbacks: they run in threads of our own and never block the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import (
    DEADLINE,
    ONE,
    ManualProducer,
    Recorder,
    ReturningRecorder,
    clock_of,
    finish,
    in_flight,
    outcomes,
    received,
    running,
    soon,
    telemetry_events,
)


class Plain(Pipeline[Any]):
    """Calls what the test wrote, in a thread."""

    processors = ONE

    def __init__(self, handle: Callable[[Message[Any]], Any], **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle

    def handle_message(self, message: Message[Any]) -> Any:
        return self.handle(message)


@contextmanager
def gate() -> Iterator[threading.Event]:
    """An event that is set at the latest when the block is left, so that no thread outlives its test."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


async def run_through(handle: Callable[[Message[Any]], Any], items: list[Any]) -> tuple[Recorder, dict[str, int]]:
    recorder = Recorder()
    ended = await finish(Plain(handle, producer=MemoryProducer(recorder.messages(items))))
    recorder.check_once()
    return recorder, ended


async def test_a_plain_handler_runs_in_a_daemonic_thread_one_hop_for_a_chunk() -> None:
    seen: list[tuple[str, bool]] = []

    def handle(message: Message[Any]) -> None:
        thread = threading.current_thread()
        seen.append((thread.name, thread.daemon))

    _, ended = await run_through(handle, list(range(10)))

    assert ended == {"acked": 10}
    assert set(seen) == {("Plain.callback.1", True)}


async def test_results_and_failures_are_those_of_an_async_handler() -> None:
    def handle(message: Message[Any]) -> Any:
        if message.data == 1:
            raise ValueError("one")
        if message.data == 2:
            return "two"
        if message.data == 3:
            message.fail("three")
        return message if message.data == 4 else None

    recorder, ended = await run_through(handle, [1, 2, 3, 4, 5])

    assert ended == {"acked": 2, "rejected": 3}
    assert recorder.successful == [4, 5]
    assert {data: status.cause for data, status in recorder.statuses.items()} == {1: "raised", 2: "raised", 3: "failed"}
    assert recorder.statuses[2].reason.startswith("handle_message returned a str; expected None or the message")


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()])
async def test_even_an_exit_fails_its_message_alone(error: BaseException) -> None:
    def handle(message: Message[Any]) -> None:
        if message.data == 2:
            raise error

    recorder, ended = await run_through(handle, [1, 2, 3])

    assert ended == {"acked": 2, "rejected": 1}
    assert recorder.failed == [2]


async def test_the_event_loop_goes_on_while_a_handler_blocks() -> None:
    with gate() as opened:

        def handle(message: Message[Any]) -> None:
            opened.wait(DEADLINE)

        pipeline = Plain(handle, producer=ManualProducer(1))
        async with running(pipeline) as clock:
            await clock.advance(1.0)
            assert in_flight(pipeline) == 1
            opened.set()

    assert outcomes(pipeline) == {"acked": 1}


async def test_as_many_handlers_block_side_by_side_as_there_are_processors() -> None:
    together = threading.Barrier(4, timeout=DEADLINE)

    def handle(message: Message[Any]) -> None:
        together.wait()

    pipeline = Plain(handle, producer=MemoryProducer(range(8)), processors=Processors(concurrency=4, max_demand=1))

    assert await finish(pipeline) == {"acked": 8}


async def test_every_callback_may_be_a_plain_function() -> None:
    threads: dict[str, str] = {}

    def note(name: str) -> None:
        threads[name] = threading.current_thread().name

    class AllPlain(Pipeline[Any]):
        processors = ONE
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

        def setup(self) -> None:
            note("setup")

        def prepare_messages(self, messages: list[Message[Any]]) -> None:
            note("prepare_messages")

        def handle_message(self, message: Message[Any]) -> None:
            note("handle_message")

        def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> list[Message[Any]]:
            note("handle_batch")
            return messages[1:]

        def handle_failed(self, messages: list[Message[Any]]) -> None:
            note("handle_failed")

        def teardown(self) -> None:
            note("teardown")

    assert await finish(AllPlain(producer=MemoryProducer([1, 2]), failure=None)) == {"acked": 1, "rejected": 1}
    assert set(threads) == {
        "setup", "prepare_messages", "handle_message", "handle_batch", "handle_failed", "teardown",
    }  # fmt: skip
    assert all(name.startswith("AllPlain.callback.") for name in threads.values())


async def test_context_variables_reach_the_thread() -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []
    variable.set("from outside")

    await run_through(lambda _: seen.append(variable.get()), [1])

    assert seen == ["from outside"]


async def test_a_plain_function_that_returns_an_awaitable_is_awaited() -> None:
    def decorated(function: Callable[[Message[Any]], Awaitable[None]]) -> Callable[[Message[Any]], Awaitable[None]]:
        def wrapper(message: Message[Any]) -> Awaitable[None]:
            message.metadata["seen"] = True
            return function(message)

        return wrapper

    async def handle(message: Message[Any]) -> None:
        if message.data == 2:
            raise ValueError("two")
        message.data *= 10

    recorder, ended = await run_through(decorated(handle), [1, 2, 3])

    assert recorder.successful == [10, 30]
    assert recorder.failed == [2]
    assert ended == {"acked": 2, "rejected": 1}


async def test_message_events_of_telemetry_have_the_same_contents_as_for_an_async_handler() -> None:
    with telemetry_events("broadway.processor.message.start", "broadway.processor.message.stop") as seen:
        await run_through(lambda _: None, [1])

    assert [event.rsplit(".", 1)[1] for event, _, _ in seen] == ["start", "stop"]
    for _, _, metadata in seen:
        assert (metadata["pipeline"], metadata["name"], metadata["index"]) == ("Plain", "Plain.processors.0", 0)
        assert metadata["message"].data == 1


# --- at the end


async def stop_out_of_time(pipeline: Pipeline[Any]) -> None:
    clock = clock_of(pipeline)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    report = await soon(stopping)
    assert not report.in_time
    assert in_flight(pipeline) == 0
    assert sum(report.outcomes.values()) == received(pipeline)


async def test_a_thread_that_blocks_for_ever_keeps_nothing_back() -> None:
    recorder = ReturningRecorder()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    with gate() as opened:

        def handle(message: Message[Any]) -> None:
            if message.data == 2:
                loop.call_soon_threadsafe(began.set)
                opened.wait(DEADLINE)

        pipeline = Plain(handle, producer=ManualProducer(*recorder.messages([1, 2, 3])))
        clock_of(pipeline)
        await soon(pipeline.start())
        await soon(began.wait())
        await stop_out_of_time(pipeline)

        assert recorder.successful == [1]
        assert sorted(recorder.returned) == [2, 3]
        assert pipeline.stats().stuck_handlers == 1
        recorder.check_once()


async def test_a_thread_that_returns_late_settles_nothing_more() -> None:
    recorder = ReturningRecorder()
    began, ended = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    handled: list[Any] = []
    with gate() as opened:

        def handle(message: Message[Any]) -> None:
            handled.append(message.data)
            loop.call_soon_threadsafe(began.set)
            opened.wait(DEADLINE)
            loop.call_soon_threadsafe(ended.set)

        pipeline = Plain(handle, producer=ManualProducer(*recorder.messages([1, 2])))
        clock_of(pipeline)
        await soon(pipeline.start())
        await soon(began.wait())
        await stop_out_of_time(pipeline)
        opened.set()
        await soon(ended.wait())
        await clock_of(pipeline).advance(0.0)

    assert handled == [1]
    assert sorted(recorder.returned) == [1, 2]
    assert outcomes(pipeline) == {"returned": 2}
    recorder.check_once()


async def test_a_stop_lets_the_running_message_finish_and_gives_the_rest_of_its_chunk_back() -> None:
    recorder = ReturningRecorder()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    with gate() as opened:

        def handle(message: Message[Any]) -> None:
            loop.call_soon_threadsafe(began.set)
            opened.wait(DEADLINE)

        pipeline = Plain(handle, producer=ManualProducer(*recorder.messages([1, 2, 3])))
        async with running(pipeline) as clock:
            await soon(began.wait())
            stopping = asyncio.ensure_future(pipeline.stop())
            await clock.advance(0.0)
            opened.set()
            report = await soon(stopping)

    assert report.in_time
    assert recorder.successful == [1]
    assert sorted(recorder.returned) == [2, 3]


async def test_what_cannot_be_given_back_is_finished_although_its_neighbours_go_back() -> None:
    returning, keeping = ReturningRecorder(), Recorder()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    with gate() as opened:

        def handle(message: Message[Any]) -> None:
            loop.call_soon_threadsafe(began.set)
            opened.wait(DEADLINE)

        items = [keeping.message(1), returning.message(2), keeping.message(3), returning.message(4)]
        pipeline = Plain(handle, producer=ManualProducer(*items))
        async with running(pipeline) as clock:
            await soon(began.wait())
            stopping = asyncio.ensure_future(pipeline.stop())
            await clock.advance(0.0)
            opened.set()
            await soon(stopping)

    assert keeping.successful == [1, 3]
    assert returning.returned == [2, 4]


async def test_a_batch_in_a_thread_that_blocks_for_ever_goes_back() -> None:
    recorder = ReturningRecorder()
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    with gate() as opened:

        class PlainBatch(Pipeline[Any]):
            processors = ONE
            batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

            def handle_message(self, message: Message[Any]) -> None:
                pass

            def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
                loop.call_soon_threadsafe(began.set)
                opened.wait(DEADLINE)

        pipeline = PlainBatch(producer=ManualProducer(*recorder.messages([1, 2])))
        clock_of(pipeline)
        await soon(pipeline.start())
        await soon(began.wait())
        await stop_out_of_time(pipeline)

        assert sorted(recorder.returned) == [1, 2]


async def test_the_threads_end_with_the_pipeline() -> None:
    threads: list[threading.Thread] = []
    await run_through(lambda _: threads.append(threading.current_thread()), [1])

    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()
