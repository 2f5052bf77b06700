"""``handle_message``: what it may return, raise and say, and what becomes of its message."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Failed, Message, Pipeline, Processors
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import (
    ONE,
    ManualProducer,
    Quiet,
    Recorder,
    events_logged,
    finish,
    logged,
    running,
    soon,
    telemetry_events,
)
from tests.support.conformance import conforms

Handler = Callable[[Message[Any]], Awaitable[Any]]


class Scripted(Pipeline[Any]):
    """Calls what the test wrote."""

    processors = ONE

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(**options)
        self.handler = handler
        self.failures: list[Any] = []

    async def handle_message(self, message: Message[Any]) -> Any:
        return await self.handler(message)

    async def handle_failed(self, messages: list[Message[Any]]) -> None:
        self.failures.extend(message.data for message in messages)


async def nothing(message: Message[Any]) -> None:
    """A handler that is content."""


async def run_through(handler: Handler, items: list[Any], **options: Any) -> tuple[Recorder, dict[str, int], Scripted]:
    """What became of *items* in a pipeline with *handler*."""
    recorder = Recorder()
    pipeline = Scripted(handler, producer=MemoryProducer(recorder.messages(items)), **options)
    ended = await finish(pipeline)
    recorder.check_once()
    return recorder, ended, pipeline


@conforms("B-039", "B-123")
async def test_each_message_is_acknowledged_by_the_processor_when_there_is_no_batcher() -> None:
    recorder, ended, _ = await run_through(nothing, [1, 2, 3])

    assert recorder.successful == [1, 2, 3]
    assert ended == {"acked": 3}


async def test_returning_the_message_is_the_same_as_returning_none() -> None:
    async def same(message: Message[Any]) -> Message[Any]:
        message.data *= 10
        return message

    recorder, ended, _ = await run_through(same, [1, 2])

    assert recorder.successful == [10, 20]
    assert ended == {"acked": 2}


@conforms("B-040")
async def test_a_message_marked_as_failed_is_settled_as_failed_with_its_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def choosy(message: Message[Any]) -> None:
        if message.data == "bad":
            message.fail("no such customer")

    recorder, ended, pipeline = await run_through(choosy, ["good", "bad", "fine"])

    assert recorder.successful == ["good", "fine"]
    assert recorder.statuses == {"bad": Failed("failed", "no such customer")}
    assert ended == {"acked": 2, "rejected": 1}
    assert pipeline.failures == ["bad"]
    assert [line["cause"] for line in logged(caplog)] == ["failed"]


@conforms("B-031", "B-111")
async def test_a_raise_fails_only_its_own_message_and_the_processor_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("no number")

    async def fragile(message: Message[Any]) -> None:
        if message.data == 2:
            raise error

    recorder, ended, _ = await run_through(fragile, [1, 2, 3])

    status = recorder.statuses[2]
    assert (status.cause, status.exception) == ("raised", error)
    assert status.exception.__traceback__ is not None
    assert recorder.successful == [1, 3]
    assert ended == {"acked": 2, "rejected": 1}
    (line,) = logged(caplog)
    assert (line["event"], line["stage"], line["exception"]) == ("a message failed", "processors", "ValueError")
    assert line["at"].endswith(" fragile")


@conforms("B-032")
@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (lambda _: "text", "a str"),
        (lambda _: 17, "an int"),
        (lambda m: [m], "a list"),
        (lambda _: Message("mine"), "another Message"),
        (lambda _: False, "a bool"),
    ],
)
async def test_returning_anything_else_fails_the_message_and_says_what_to_do(
    returned: Callable[[Message[Any]], Any], came: str
) -> None:
    async def wrong(message: Message[Any]) -> Any:
        return returned(message) if message.data == 2 else None

    recorder, ended, _ = await run_through(wrong, [1, 2, 3])

    status = recorder.statuses[2]
    assert status.cause == "raised"
    assert status.reason == (
        f"handle_message returned {came}; expected None or the message it was given: "
        "change the message in place (message.data = …) and return nothing"
    )
    assert isinstance(status.exception, TypeError)
    assert ended == {"acked": 2, "rejected": 1}


@conforms("B-036")
async def test_a_crash_in_a_task_that_the_handler_waits_for_fails_its_message_alone() -> None:
    async def crash() -> None:
        raise RuntimeError("inside")

    async def parent(message: Message[Any]) -> None:
        if message.data == 2:
            async with asyncio.TaskGroup() as group:
                group.create_task(crash())

    recorder, ended, _ = await run_through(parent, [1, 2, 3])

    assert isinstance(recorder.statuses[2].exception, ExceptionGroup)
    assert recorder.successful == [1, 3]
    assert ended == {"acked": 2, "rejected": 1}


@conforms("B-112")
async def test_an_exit_fails_its_message_alone() -> None:
    async def handle(message: Message[Any]) -> None:
        if message.data == 2:
            sys.exit(3)

    recorder, ended, pipeline = await run_through(handle, [1, 2, 3])

    assert ended == {"acked": 2, "rejected": 1}
    assert (recorder.statuses[2].cause, recorder.statuses[2].reason) == ("raised", "SystemExit: 3")
    assert pipeline.failures == [2]


@pytest.mark.parametrize("callback", ["prepare_messages", "handle_batch", "handle_failed"])
async def test_an_exit_in_another_callback_fails_what_it_was_given(callback: str) -> None:
    class Leaving(Scripted):
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # an option

        async def prepare_messages(self, messages: list[Message[Any]]) -> None:
            if callback == "prepare_messages":
                sys.exit(3)

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            if callback == "handle_batch":
                sys.exit(3)

        async def handle_failed(self, messages: list[Message[Any]]) -> None:
            sys.exit(3)

    async def handle(message: Message[Any]) -> None:
        if callback == "handle_failed":
            message.fail("no")

    recorder = Recorder()
    pipeline = Leaving(handle, producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"rejected": 2}


async def test_a_cancellation_that_nobody_asked_for_fails_its_message_alone() -> None:
    async def cancelled(message: Message[Any]) -> None:
        if message.data == 2:
            raise asyncio.CancelledError

    recorder, ended, pipeline = await run_through(cancelled, [1, 2, 3])

    assert recorder.statuses[2].cause == "cancelled"
    assert recorder.statuses[2].reason == "the callback was cancelled, but not by the pipeline"
    assert pipeline.failures == [2]
    assert ended == {"acked": 2, "rejected": 1}


async def test_waiting_for_a_task_that_somebody_cancelled_fails_the_message_alone() -> None:
    async def waiting(message: Message[Any]) -> None:
        if message.data == 2:
            task = asyncio.ensure_future(asyncio.Event().wait())
            task.cancel()
            await task

    recorder, ended, _ = await run_through(waiting, [1, 2, 3])

    assert recorder.statuses[2].cause == "cancelled"
    assert ended == {"acked": 2, "rejected": 1}


async def test_a_handler_that_cancels_its_own_task_fails_its_message_alone() -> None:
    async def suicidal(message: Message[Any]) -> None:
        if message.data == 2:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.Event().wait()

    recorder, ended, _ = await run_through(suicidal, [1, 2, 3])

    assert recorder.statuses[2].cause == "cancelled"
    assert ended == {"acked": 2, "rejected": 1}


async def test_an_exception_that_cannot_be_shown_fails_its_message_alone() -> None:
    class Unspeakable(Exception):  # what it is called is the point
        def __str__(self) -> str:
            raise RuntimeError("no words")

    async def fragile(message: Message[Any]) -> None:
        if message.data == 2:
            raise Unspeakable

    recorder, ended, pipeline = await run_through(fragile, [1, 2, 3])

    assert isinstance(recorder.statuses[2].exception, Unspeakable)
    assert ended == {"acked": 2, "rejected": 1}
    assert pipeline.stats().restarts == 0


async def test_a_payload_that_cannot_be_shown_fails_its_message_alone() -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise RuntimeError("no picture")

    item = Unshowable()

    async def fragile(message: Message[Any]) -> None:
        if message.data is item:
            raise ValueError("some words")

    recorder, ended, pipeline = await run_through(fragile, [1, item, 3])

    assert recorder.failed == [item]
    assert ended == {"acked": 2, "rejected": 1}
    assert pipeline.stats().restarts == 0


async def test_a_handler_may_replace_the_metadata_by_anything() -> None:
    async def careless(message: Message[Any]) -> None:
        message.metadata = None  # type: ignore[assignment]  # a user without a type checker
        raise ValueError("afterwards")

    _, ended, pipeline = await run_through(careless, [1, 2])

    assert ended == {"rejected": 2}
    assert pipeline.stats().restarts == 0


async def test_what_was_changed_before_a_raise_stays_changed() -> None:
    async def half(message: Message[Any]) -> None:
        message.data = "half done"
        raise ValueError("then it broke")

    recorder, _, _ = await run_through(half, ["whole"])

    assert recorder.failed == ["half done"]


# --- with a batcher


class Batched(Scripted):
    """One batcher of two."""

    batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

    def __init__(self, handler: Handler, **options: Any) -> None:
        super().__init__(handler, **options)
        self.batches: list[tuple[list[Any], BatchInfo]] = []

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        assert all(message.status is None for message in messages)
        self.batches.append(([message.data for message in messages], info))


@conforms("B-028")
async def test_successes_are_ok_in_the_batch_and_in_the_acknowledgement() -> None:
    recorder = Recorder()
    pipeline = Batched(nothing, producer=MemoryProducer(recorder.messages([1, 2])))

    assert await finish(pipeline) == {"acked": 2}
    assert [data for data, _ in pipeline.batches] == [[1, 2]]
    assert [message.status for call in recorder.calls for message in call.successful] == [None, None]


@conforms("B-029", "B-030")
async def test_a_failed_message_never_reaches_a_batcher_even_an_unknown_one() -> None:
    async def choosy(message: Message[Any]) -> None:
        if message.data == "bad":
            message.batcher = "nowhere"
            message.fail("not wanted")

    recorder = Recorder()
    pipeline = Batched(choosy, producer=MemoryProducer(recorder.messages([1, "bad", 2])))

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}
    assert [data for data, _ in pipeline.batches] == [[1, 2]]
    assert recorder.statuses == {"bad": Failed("failed", "not wanted")}


@conforms("B-033")
async def test_an_unknown_batcher_fails_the_message_and_lists_the_known_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def lost(message: Message[Any]) -> None:
        if message.data == 2:
            message.batcher = "archive"

    recorder = Recorder()
    pipeline = Batched(
        lost,
        producer=MemoryProducer(recorder.messages([1, 2, 3])),
        batchers={"default": Batcher(batch_size=2), "audit": Batcher()},
    )

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}
    assert recorder.statuses == {
        2: Failed("unknown_batcher", "handle_message chose batcher 'archive'; this pipeline has audit, default")
    }
    assert [line["cause"] for line in logged(caplog)] == ["unknown_batcher"]


@pytest.mark.parametrize("name", [17, ["default"], b"default", object])
async def test_a_batcher_that_is_no_name_at_all_fails_the_message(name: Any) -> None:
    async def odd(message: Message[Any]) -> None:
        message.batcher = name

    recorder = Recorder()
    pipeline = Batched(odd, producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"rejected": 1}
    assert recorder.statuses[1].cause == "unknown_batcher"


async def test_batcher_none_settles_the_message_without_a_batch() -> None:
    async def skip_batch(message: Message[Any]) -> None:
        if message.data % 2:
            message.batcher = None

    recorder = Recorder()
    pipeline = Batched(skip_batch, producer=MemoryProducer(recorder.messages([1, 2, 3, 4])))

    assert await finish(pipeline) == {"acked": 4}
    assert [data for data, _ in pipeline.batches] == [[2, 4]]


async def test_the_only_batcher_is_the_default_one_whatever_its_name() -> None:
    recorder = Recorder()
    pipeline = Batched(
        nothing,
        producer=MemoryProducer(recorder.messages([1, 2])),
        batchers={"sink": Batcher(batch_size=2)},
    )

    assert await finish(pipeline) == {"acked": 2}
    ((data, info),) = pipeline.batches
    assert (data, info.batcher) == ([1, 2], "sink")


async def test_with_two_batchers_none_is_the_default_one() -> None:
    recorder = Recorder()
    pipeline = Batched(
        nothing,
        producer=MemoryProducer(recorder.messages([1])),
        batchers={"sink": Batcher(), "audit": Batcher()},
    )

    assert await finish(pipeline) == {"rejected": 1}
    assert recorder.statuses[1].reason == (
        "message.batcher is 'default', and this pipeline has no batcher of that name; set it in handle_message, to "
        "one of audit, sink, or to None for no batch"
    )


async def test_without_batchers_the_name_of_one_is_ignored() -> None:
    async def choose(message: Message[Any]) -> None:
        message.batcher = "nowhere"

    recorder, ended, _ = await run_through(choose, [1])

    assert recorder.successful == [1]
    assert ended == {"acked": 1}


# --- many at a time


@conforms("B-120")
async def test_a_chunk_holds_at_most_what_demand_leaves_between_its_two_bounds() -> None:
    producer = ManualProducer(*range(40))
    with telemetry_events("broadway.processor.start") as seen:
        pipeline = Quiet(producer=producer, processors=Processors(concurrency=1, max_demand=6, min_demand=3))
        async with running(pipeline):
            producer.feed.end()
            await soon(pipeline.wait())

    assert {len(metadata["messages"]) for _, _, metadata in seen} <= {1, 2, 3}
    assert sum(len(metadata["messages"]) for _, _, metadata in seen) == 40
    assert max(producer.feed.demands) == 6


@conforms("B-011")
async def test_as_many_messages_are_handled_side_by_side_as_concurrency_says() -> None:
    together = asyncio.Barrier(13)

    async def meet(message: Message[Any]) -> None:
        await together.wait()

    recorder, ended, _ = await run_through(meet, list(range(26)), processors=Processors(concurrency=13, max_demand=1))

    assert sorted(recorder.successful) == list(range(26))
    assert ended == {"acked": 26}


async def test_a_list_is_spread_over_the_hungry_processors_instead_of_given_to_one() -> None:
    together = asyncio.Barrier(10)

    async def meet(message: Message[Any]) -> None:
        await together.wait()

    _, ended, _ = await run_through(meet, list(range(10)), processors=Processors(concurrency=10, max_demand=10))

    assert ended == {"acked": 10}


async def test_nothing_is_logged_when_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    await run_through(nothing, [1, 2, 3])

    assert events_logged(caplog) == []
