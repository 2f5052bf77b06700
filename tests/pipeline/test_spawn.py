"""``message.spawn``: one message into many, and the settlement of the one when the many are done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors, RateLimit, ack_immediately
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import (
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    finish,
    in_flight,
    outcomes,
    received,
    running,
    soon,
)

Handle = Callable[[Message[Any]], Any]


class Spawning(Pipeline[Any]):
    """Spawns what the test wrote; remembers what came to each callback."""

    processors = Processors(concurrency=1, max_demand=10)
    batchers = {"default": Batcher(batch_size=2), "other": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

    def __init__(self, handle: Handle, in_batch: Handle | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.handle = handle
        self.in_batch = in_batch
        self.handled: list[Any] = []
        self.batched: list[tuple[str, Any]] = []
        self.failures: list[tuple[Any, str, str]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append(message.data)
        self.handle(message)

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        for message in messages:
            self.batched.append((info.batcher, message.data))
            if self.in_batch is not None:
                returned = self.in_batch(message)
                if returned is not None:
                    await returned

    async def handle_failed(self, messages: list[Message[Any]]) -> None:
        self.failures += [(m.data, m.status.cause, m.status.reason) for m in messages if m.status]


def three(message: Message[Any]) -> None:
    for number in range(3):
        message.spawn(f"{message.data}{number}")


def spawn_too_late(message: Message[Any]) -> None:
    message.spawn("too late")


async def spawned(
    handle: Handle, in_batch: Handle | None = None, items: tuple[Any, ...] = ("a",), **options: Any
) -> tuple[Spawning, Recorder]:
    """Run *items* through, from their beginning to their end."""
    recorder = Recorder()
    pipeline = Spawning(handle, in_batch, producer=MemoryProducer(recorder.messages(items)), **options)
    await finish(pipeline)
    recorder.check_once()
    assert received(pipeline) == len(items) == recorder.count
    return pipeline, recorder


async def test_children_go_straight_to_their_batchers_and_the_parent_is_acked_after_all_of_them() -> None:
    def split(message: Message[Any]) -> None:
        message.spawn("one")
        message.spawn("two", {"is": "metadata"}, batcher="other")

    pipeline, recorder = await spawned(split)

    assert pipeline.handled == ["a"]
    assert sorted(pipeline.batched) == [("default", "one"), ("other", "two")]
    assert recorder.successful == ["a"]
    assert outcomes(pipeline) == {"acked": 1}


async def test_children_know_their_parent_and_their_number_also_when_they_go_different_ways() -> None:
    def split(message: Message[Any]) -> None:
        for number in range(4):
            message.spawn(f"{message.data}{number}", batcher="default" if number % 2 else "other")

    origins: dict[str, Any] = {}
    await spawned(split, lambda message: origins.update({message.data: message.acknowledgement.data}), items=("a", "b"))

    assert {name: (origin.parent.data, origin.number) for name, origin in origins.items()} == {
        f"{parent}{number}": (parent, number) for parent in "ab" for number in range(4)
    }


async def test_the_parent_waits_for_its_last_child() -> None:
    go = asyncio.Event()

    recorder = Recorder()
    pipeline = Spawning(
        three,
        lambda message: go.wait() if message.data == "a2" else None,
        producer=ManualProducer(recorder.message("a")),
    )
    async with running(pipeline) as clock:
        await clock.advance(5.0)
        assert len(pipeline.batched) == 3
        assert (recorder.count, received(pipeline), in_flight(pipeline)) == (0, 1, 1)
        check_books(pipeline)
        go.set()
        await recorder.until(1)

    assert recorder.successful == ["a"]


async def test_a_child_takes_the_batcher_of_its_parent_unless_it_names_one() -> None:
    def split(message: Message[Any]) -> None:
        message.batcher = "other"
        message.spawn("one")
        message.spawn("two", batcher="default")

    pipeline, _ = await spawned(split)

    assert sorted(pipeline.batched) == [("default", "two"), ("other", "one")]


async def test_children_need_no_permission_of_the_rate_limit() -> None:
    recorder = Recorder()
    limit = RateLimit(allowed_messages=2, interval=60.0)
    producer = ManualProducer(*recorder.messages("abc"))
    pipeline = Spawning(three, producer=producer, rate_limit=limit)
    async with running(pipeline) as clock:
        await clock.advance(2.0)
        assert pipeline.handled == ["a", "b"]
        assert len(pipeline.batched) == 6
        assert recorder.successful == ["a", "b"]
        await clock.advance(60.0)
        assert recorder.successful == ["a", "b", "c"]

    recorder.check_once()


async def test_the_parent_fails_when_a_child_failed_and_says_which_part() -> None:
    def some_fail(message: Message[Any]) -> None:
        if message.data != "a1":
            message.fail("the payload is secret")

    pipeline, recorder = await spawned(three, some_fail)

    status = recorder.statuses["a"]
    assert status.cause == "failed"
    assert status.reason == "2 of 3 messages spawned from it failed; the first: failed"
    assert recorder.failed == ["a"]
    assert sorted(data for data, _, _ in pipeline.failures) == ["a", "a0", "a2"]
    assert outcomes(pipeline) == {"rejected": 1}


async def test_the_cause_and_the_exception_of_a_child_are_those_of_its_parent() -> None:
    def one_raises(message: Message[Any]) -> None:
        raise KeyError(message.data)

    _, recorder = await spawned(lambda message: message.spawn("child"), one_raises)

    status = recorder.statuses["a"]
    assert (status.cause, status.reason) == ("raised", "1 of 1 messages spawned from it failed; the first: raised")
    assert isinstance(status.exception, KeyError)


async def test_the_children_of_a_parent_that_fails_are_not_sent() -> None:
    def split_and_fail(message: Message[Any]) -> None:
        three(message)
        message.fail("after all")

    pipeline, recorder = await spawned(split_and_fail)

    assert (pipeline.batched, recorder.failed) == ([], ["a"])


async def test_a_child_for_a_batcher_that_does_not_exist_fails_its_parent() -> None:
    def split(message: Message[Any]) -> None:
        message.spawn("good")
        message.spawn("lost", batcher="nowhere")

    pipeline, recorder = await spawned(split)

    assert pipeline.batched == [("default", "good")]
    assert recorder.statuses["a"].cause == "unknown_batcher"
    assert pipeline.failures == [
        ("lost", "unknown_batcher", "handle_message chose batcher 'nowhere'; this pipeline has default, other"),
        ("a", "unknown_batcher", "1 of 2 messages spawned from it failed; the first: unknown_batcher"),
    ]


async def test_without_batchers_the_children_are_done_at_once() -> None:
    class Flat(Pipeline[Any]):
        async def handle_message(self, message: Message[Any]) -> None:
            three(message)

    recorder = Recorder()
    pipeline = Flat(producer=MemoryProducer(recorder.messages("ab")))

    assert await finish(pipeline) == {"acked": 2}
    recorder.check_once()


async def test_spawn_in_handle_batch_is_refused() -> None:
    pipeline, recorder = await spawned(lambda _: None, spawn_too_late)

    status = recorder.statuses["a"]
    assert status.cause == "raised"
    assert status.reason == (
        "spawn() was called in handle_batch, which comes after the batchers; call it in handle_message"
    )
    assert isinstance(status.exception, TypeError)
    assert pipeline.batched == [("default", "a")]


async def test_a_child_that_spawns_in_handle_batch_fails_its_parent() -> None:
    _, recorder = await spawned(lambda message: message.spawn("child"), spawn_too_late)

    assert recorder.statuses["a"].reason == "1 of 1 messages spawned from it failed; the first: raised"


async def test_prepare_messages_may_spawn_too() -> None:
    class Preparing(Spawning):
        async def prepare_messages(self, messages: list[Message[Any]]) -> None:
            for message in messages:
                three(message)

    recorder = Recorder()
    pipeline = Preparing(lambda _: None, producer=MemoryProducer(recorder.messages("a")))

    assert await finish(pipeline) == {"acked": 1}
    assert sorted(pipeline.batched) == [("default", "a0"), ("default", "a1"), ("default", "a2")]


async def test_children_that_are_given_back_give_their_parent_back() -> None:
    recorder = ReturningRecorder()
    pipeline = Spawning(three, lambda _: asyncio.Event().wait(), producer=ManualProducer(recorder.message("a")))
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    stopping = asyncio.ensure_future(pipeline.stop(timeout=2.0))
    await clock.advance(2.5)
    report = await soon(stopping)

    assert not report.in_time
    assert (recorder.returned, recorder.successful, recorder.failed) == (["a"], [], [])
    assert outcomes(pipeline) == {"returned": 1}
    recorder.check_once()
    check_books(pipeline)


async def test_a_parent_that_cannot_go_back_fails_as_stopped() -> None:
    recorder = Recorder()
    pipeline = Spawning(three, lambda _: asyncio.Event().wait(), producer=ManualProducer(recorder.message("a")))
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    stopping = asyncio.ensure_future(pipeline.stop(timeout=2.0))
    await clock.advance(2.5)
    await soon(stopping)

    assert recorder.statuses["a"].cause == "stopped"
    recorder.check_once()
    check_books(pipeline)


async def test_ack_immediately_on_a_child_counts_for_its_parent_and_only_once() -> None:
    settled: list[Any] = []

    async def settle(message: Message[Any]) -> None:
        await ack_immediately(message)
        settled.append(recorder.successful)

    recorder = Recorder()
    pipeline = Spawning(three, settle, producer=MemoryProducer(recorder.messages("a")))

    assert await finish(pipeline) == {"acked": 1}
    assert settled == [[], [], ["a"]]
    recorder.check_once()


async def test_a_parent_that_was_settled_before_is_not_settled_again() -> None:
    class Early(Spawning):
        async def handle_message(self, message: Message[Any]) -> None:
            await ack_immediately(message)
            three(message)

    recorder = Recorder()
    pipeline = Early(lambda _: None, lambda m: m.fail("late"), producer=MemoryProducer(recorder.messages("a")))

    assert await finish(pipeline) == {"acked": 1}
    assert recorder.successful == ["a"]
    recorder.check_once()


async def test_the_books_count_deliveries_and_not_children() -> None:
    recorder = Recorder()
    pipeline = Spawning(
        three, lambda m: m.fail("no") if m.data == "b2" else None, producer=MemoryProducer(recorder.messages("abcd"))
    )

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}
    (producer,) = pipeline.stats().producers
    assert (producer.received, producer.in_flight, producer.bytes_in_flight) == (4, 0, 0)
    assert recorder.failed == ["b"]


async def test_a_child_knows_where_it_came_from() -> None:
    seen: list[tuple[str | None, int | None]] = []

    def look(message: Message[Any]) -> None:
        seen.append((message.producer, message.attempt))

    recorder = Recorder()
    parent = recorder.message("a")
    parent.attempt = 3
    pipeline = Spawning(lambda m: m.spawn("child"), look, producer=ManualProducer(parent))
    async with running(pipeline) as clock:
        await clock.advance(2.0)

    assert seen == [("manual", 3)]


async def test_settling_a_parent_does_not_disturb_what_its_processor_does_meanwhile() -> None:
    """The processor's own handler is still cut off at the deadline after a parent failed in another task."""
    cut: list[Any] = []

    class Busy(Spawning):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == "a":
                message.spawn("child")
                return
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cut.append(message.data)
                raise

    recorder = ReturningRecorder()
    producer = ManualProducer(recorder.message("a"))
    pipeline = Busy(lambda _: None, lambda message: message.fail("no"), producer=producer)
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    producer.feed.put(recorder.message("hangs"))
    await clock.advance(1.5)
    assert [data for data, _, _ in pipeline.failures] == ["child", "a"]
    stopping = asyncio.ensure_future(pipeline.stop(timeout=2.0))
    await clock.advance(1.7)
    assert cut == ["hangs"]
    await clock.advance(1.0)
    await soon(stopping)

    assert (recorder.failed, recorder.returned) == (["a"], ["hangs"])
    recorder.check_once()
