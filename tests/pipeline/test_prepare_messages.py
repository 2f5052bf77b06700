"""``prepare_messages``: once for each chunk, before ``handle_message``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from broadway_py import Failed, Message, Pipeline, Processors
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ONE, Recorder, finish
from tests.support.conformance import conforms

Messages = list[Message[Any]]


class Prepared(Pipeline[Any]):
    """Calls what the test wrote; chunks hold five."""

    processors = ONE

    def __init__(self, prepare: Callable[[Messages], Any], **options: Any) -> None:
        super().__init__(**options)
        self.prepare = prepare
        self.handled: list[Any] = []

    async def prepare_messages(self, messages: Messages) -> Any:
        return self.prepare(messages)

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append(message.data)


async def run_through(prepare: Callable[[Messages], Any], items: list[Any]) -> tuple[Recorder, Prepared]:
    """What became of *items*."""
    recorder = Recorder()
    pipeline = Prepared(prepare, producer=MemoryProducer(recorder.messages(items)))
    ended = await finish(pipeline)
    assert ended.get("acked", 0) == len(recorder.successful)
    assert ended.get("rejected", 0) == len(recorder.failed)
    assert sum(ended.values()) == len(items)
    recorder.check_once()
    assert pipeline.stats().restarts == 0
    return recorder, pipeline


@conforms("B-027")
@pytest.mark.parametrize("returned", [lambda given: given, lambda _: None, lambda given: tuple(reversed(given))])
async def test_all_succeed_when_all_or_none_are_returned(returned: Callable[[Messages], Any]) -> None:
    recorder, pipeline = await run_through(returned, [1, 2, 3, 4])

    assert recorder.successful == [1, 2, 3, 4]
    assert pipeline.handled == [1, 2, 3, 4]


async def test_it_is_called_once_for_each_chunk_and_before_any_message_of_it() -> None:
    seen: list[tuple[list[Any], int]] = []
    pipeline = Prepared(
        lambda given: seen.append(([m.data for m in given], len(pipeline.handled))),
        producer=MemoryProducer(range(12)),
        processors=Processors(concurrency=1, max_demand=8, min_demand=4),
    )

    await finish(pipeline)

    assert seen == [([0, 1, 2, 3], 0), ([4, 5, 6, 7], 4), ([8, 9, 10, 11], 8)]


@conforms("B-025")
async def test_one_that_is_left_out_fails_and_the_others_go_on() -> None:
    recorder, pipeline = await run_through(lambda given: [m for m in given if m.data != 2], [1, 2, 3, 4])

    assert pipeline.handled == [1, 3, 4]
    assert recorder.statuses == {2: Failed("not_returned", "prepare_messages did not return this message")}


async def test_one_that_is_returned_twice_counts_once() -> None:
    recorder, pipeline = await run_through(lambda given: [*given, given[0]], [1, 2])

    assert pipeline.handled == [1, 2]
    assert recorder.successful == [1, 2]


@conforms("B-026")
async def test_a_raise_fails_the_whole_chunk_and_the_processor_goes_on() -> None:
    def prepare(given: Messages) -> None:
        if given[0].data == 0:
            raise KeyError("x")

    recorder, pipeline = await run_through(prepare, list(range(10)))

    assert pipeline.handled == [5, 6, 7, 8, 9]
    assert recorder.failed == [0, 1, 2, 3, 4]
    assert {status.cause for status in recorder.statuses.values()} == {"raised"}


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (
            lambda _: 17,
            "prepare_messages returned an int; expected None or a list of the messages it was given",
        ),
        (
            lambda _: "text",
            "prepare_messages returned a str; expected None or a list of the messages it was given",
        ),
        (
            lambda given: [*given, Message("mine")],
            (
                "prepare_messages returned a Message it was not given; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
        (
            lambda given: [m.data for m in given],
            (
                "prepare_messages returned a list holding an int; expected None or the messages it was given, "
                "changed in place (message.data = …)"
            ),
        ),
    ],
)
async def test_anything_else_fails_the_chunk_with_the_whole_sentence(
    returned: Callable[[Messages], Any], sentence: str
) -> None:
    recorder, pipeline = await run_through(returned, [1, 2])

    assert pipeline.handled == []
    assert {status.reason for status in recorder.statuses.values()} == {sentence}
    assert recorder.failed == [1, 2]


async def test_a_generator_of_the_messages_is_as_good_as_a_list() -> None:
    recorder, _ = await run_through(lambda given: (message for message in given), [1, 2])

    assert recorder.successful == [1, 2]


async def test_a_generator_that_raises_fails_the_chunk() -> None:
    def broken(given: Messages) -> Iterator[Message[Any]]:
        yield given[0]
        raise ValueError("half way")

    recorder, _ = await run_through(broken, [1, 2])

    assert recorder.failed == [1, 2]
    assert {status.cause for status in recorder.statuses.values()} == {"raised"}


async def test_a_cancellation_that_nobody_asked_for_fails_the_chunk() -> None:
    def cancelled(given: Messages) -> None:
        raise asyncio.CancelledError

    recorder, _ = await run_through(cancelled, [1, 2])

    assert {status.cause for status in recorder.statuses.values()} == {"cancelled"}


async def test_one_that_it_marks_as_failed_skips_handle_message() -> None:
    def mark(given: Messages) -> None:
        given[1].fail("closed account")

    recorder, pipeline = await run_through(mark, [1, 2, 3])

    assert pipeline.handled == [1, 3]
    assert recorder.statuses == {2: Failed("failed", "closed account")}


async def test_one_that_is_marked_as_failed_and_left_out_keeps_its_own_reason() -> None:
    def mark(given: Messages) -> Messages:
        given[1].fail("closed account")
        return [given[0], given[2]]

    recorder, pipeline = await run_through(mark, [1, 2, 3])

    assert pipeline.handled == [1, 3]
    assert recorder.statuses == {2: Failed("failed", "closed account")}


async def test_an_async_generator_function_is_refused_for_each_chunk_with_the_whole_sentence() -> None:
    class Yields(Pipeline[Any]):
        processors = ONE

        async def prepare_messages(self, messages: Messages) -> AsyncIterator[Message[Any]]:
            for message in messages:
                yield message

        async def handle_message(self, message: Message[Any]) -> None:
            pass

    recorder = Recorder()
    pipeline = Yields(producer=MemoryProducer(recorder.messages([1])))

    assert await finish(pipeline) == {"rejected": 1}
    assert recorder.statuses[1].reason == (
        "prepare_messages returned an async_generator; expected None or a list of the messages it was given"
    )
