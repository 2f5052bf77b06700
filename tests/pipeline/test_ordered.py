"""``ordered=True``: a failed message is tried again in place, and later ones of its key wait for it."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, FailurePolicy, Message, OptionsError, Pipeline, Processors
from broadway_py.producers import DummyProducer, MemoryProducer
from tests.pipeline.support import (
    DEADLINE,
    Breaking,
    ManualProducer,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    in_flight,
    outcomes,
    running,
    soon,
)

#: Gaps of 0.5 to 1, 1 to 2, 2 to 4 and 4 to 8 seconds.
FIVE = FailurePolicy(attempts=5, backoff=(1.0, 60.0), final="reject")


def key_of(message: Message[Any]) -> Any:
    """``"a1"`` belongs to ``"a"``."""
    return "ab".index(str(message.data)[0])


class InOrder(Pipeline[Any]):
    """Calls what the test wrote; remembers when each attempt was made."""

    ordered = True
    partition_by = staticmethod(key_of)
    processors = Processors(concurrency=2, max_demand=10, partition_by=key_of)
    failure = FIVE

    def __init__(self, fails: Callable[[Message[Any]], bool], **options: Any) -> None:
        super().__init__(**options)
        self.fails = fails
        self.attempts: list[tuple[float, Any, int | None]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        self.attempts.append((self.clock.monotonic() - 1000.0, message.data, message.attempt))
        if self.fails(message):
            message.data = "spoilt"
            raise ValueError("not yet")

    def handled(self, key: str) -> list[Any]:
        """What was handled of *key*, in order."""
        return [data for _, data, _ in self.attempts if data.startswith(key)]


def first(times: int, wanted: str) -> Callable[[Message[Any]], bool]:
    """Fails *wanted* that many times."""
    left = Counter({wanted: times})

    def fails(message: Message[Any]) -> bool:
        left[message.data] -= 1
        return left[message.data] >= 0

    return fails


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(OptionsError) as raised:
        make()
    return str(raised.value)


class Unordered(Pipeline[Any]):
    producer = DummyProducer()

    async def handle_message(self, message: Message[Any]) -> None:
        pass


def test_ordered_without_partition_by_is_refused() -> None:
    assert refused(lambda: Unordered(ordered=True)) == (
        "ordered: needs partition_by, which says what must stay in order; got none"
    )


def test_ordered_with_two_workers_is_refused() -> None:
    def make() -> object:
        return InOrder.from_settings({}, name="orders", path=("pipelines", "orders"), share=(0, 2))

    assert refused(make) == (
        "pipelines.orders.ordered: a key must have one owner, but 2 workers read the same source; set workers: 1, "
        "leave ordered off, part the source (partitions), or use an embedded queue with partitioned: true, whose "
        "messages are put with a key"
    )


def test_ordered_in_a_file_is_refused_with_two_workers_and_taken_with_one() -> None:
    class Keyed(Unordered):
        partition_by = staticmethod(key_of)

    assert refused(lambda: Keyed.from_settings({"ordered": True}, name="k", share=(1, 2))).startswith("ordered: a key ")
    assert Keyed.from_settings({"ordered": True}, name="k").ordered is True


async def test_a_failed_message_is_tried_again_before_later_ones_of_its_key_with_growing_gaps() -> None:
    recorder = Recorder()
    pipeline = InOrder(first(3, "a1"), producer=ManualProducer(*recorder.messages(["a0", "a1", "a2", "a3"])))
    async with running(pipeline) as clock:
        await clock.advance(0.4)
        assert pipeline.handled("a") == ["a0", "a1"]
        assert in_flight(pipeline) == 3
        await clock.advance(7.0)

    assert pipeline.handled("a") == ["a0", "a1", "a1", "a1", "a1", "a2", "a3"]
    assert [attempt for _, data, attempt in pipeline.attempts if data == "a1"] == [None, 2, 3, 4]
    times = [at for at, data, _ in pipeline.attempts if data == "a1"]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [low <= gap <= 2 * low for low, gap in zip((0.5, 1.0, 2.0), gaps, strict=True)] == [True] * 3
    # In order also at the source.
    assert recorder.successful == ["a0", "a1", "a2", "a3"]
    assert outcomes(pipeline) == {"acked": 4}
    recorder.check_once()


async def test_other_keys_on_other_processors_go_on() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(["a1", "b1", "a2", "b2", "b3"]))
    pipeline = InOrder(first(2, "a1"), producer=producer)
    async with running(pipeline) as clock:
        await clock.advance(0.1)
        assert recorder.successful == ["b1", "b2", "b3"]
        await clock.advance(5.0)

    assert recorder.successful == ["b1", "b2", "b3", "a1", "a2"]
    recorder.check_once()


async def test_when_its_attempts_are_used_up_the_policy_has_its_final_word_and_the_next_one_starts() -> None:
    recorder = Recorder()
    pipeline = InOrder(lambda m: m.data == "a1", producer=ManualProducer(*recorder.messages(["a1", "a2"])))
    async with running(pipeline) as clock:
        await clock.advance(20.0)

    assert pipeline.handled("a") == ["a1"] * 5 + ["a2"]
    assert (recorder.failed, recorder.successful) == (["spoilt"], ["a2"])
    assert outcomes(pipeline) == {"rejected": 1, "acked": 1}
    recorder.check_once()


async def test_dropped_is_what_the_policy_says_too() -> None:
    recorder = Recorder()
    policy = FailurePolicy(attempts=2, final="drop")
    producer = ManualProducer(*recorder.messages(["a1", "a2"]))
    pipeline = InOrder(lambda m: m.data == "a1", producer=producer, failure=policy)
    async with running(pipeline) as clock:
        await clock.advance(2.0)
        assert outcomes(pipeline) == {"dropped": 1, "acked": 1}


async def test_a_stop_gives_back_what_waits_in_place_and_what_waits_behind_it() -> None:
    recorder = ReturningRecorder()
    producer = ManualProducer(*recorder.messages(["a0", "a1", "a2", "a3"]))
    pipeline = InOrder(first(9, "a1"), producer=producer)
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    report = await soon(pipeline.stop())

    assert report.in_time
    assert pipeline.handled("a") == ["a0", "a1"]
    assert (recorder.successful, recorder.failed) == (["a0"], [])
    assert sorted(recorder.returned) == ["a2", "a3", "spoilt"]
    recorder.check_once()
    check_books(pipeline)


async def test_a_stop_settles_what_waits_in_place_as_failed_where_it_cannot_go_back() -> None:
    recorder = Recorder()
    pipeline = InOrder(first(9, "a1"), producer=MemoryProducer(recorder.messages(["a1", "a2"])))
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    report = await soon(pipeline.stop())

    assert report.in_time
    assert (recorder.failed, recorder.successful) == (["spoilt"], ["a2"])
    recorder.check_once()


async def test_a_pause_gives_back_what_waits_behind_a_message_that_is_tried_again() -> None:
    recorder = ReturningRecorder()
    pipeline = InOrder(first(1, "a1"), producer=ManualProducer(*recorder.messages(["a1", "a2", "a3"])))
    async with running(pipeline) as clock:
        await clock.advance(0.1)
        await pipeline.pause()
        assert recorder.returned == ["a2", "a3"]
        await clock.advance(5.0)
        assert recorder.successful == ["a1"]
        await pipeline.resume()

    recorder.check_once()


async def test_what_it_spawned_before_it_failed_is_spawned_once() -> None:
    class Splitting(InOrder):
        batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            message.spawn(f"{message.data} child")
            await super().handle_message(message)

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            batched.extend(message.data for message in messages)

    batched: list[Any] = []
    recorder = Recorder()
    pipeline = Splitting(first(2, "a1"), producer=ManualProducer(*recorder.messages(["a1"])))
    async with running(pipeline) as clock:
        await clock.advance(5.0)

    assert batched == ["a1 child"]
    recorder.check_once()


async def test_one_that_is_late_in_a_thread_is_tried_again_when_the_thread_has_returned() -> None:
    class Threaded(Pipeline[Any]):
        ordered = True
        processors = Processors(concurrency=1, timeout=2.0)
        partition_by = staticmethod(key_of)
        failure = FIVE

        def handle_message(self, message: Message[Any]) -> None:
            started.append(message.data)
            if len(started) == 1:
                blocked.set()
                go.wait(DEADLINE)

    started: list[Any] = []
    blocked, go = threading.Event(), threading.Event()
    recorder = Recorder()
    try:
        pipeline = Threaded(producer=ManualProducer(*recorder.messages(["a1", "a2"])))
        async with running(pipeline) as clock:
            assert await asyncio.to_thread(blocked.wait, DEADLINE)
            await clock.advance(30.0)
            assert (started, pipeline.stats().stuck_handlers, recorder.count) == (["a1"], 1, 0)
            go.set()
            await recorder.until(2)
    finally:
        go.set()

    assert started == ["a1", "a1", "a2"]
    assert recorder.successful == ["a1", "a2"]
    recorder.check_once()


# --- batches --------------------------------------------------------------------------------------------------------


class BatchesInOrder(InOrder):
    """Batches of two; the failing is done there."""

    batchers = {"default": Batcher(batch_size=2, concurrency=2)}  # noqa: RUF012  # never changed

    async def handle_message(self, message: Message[Any]) -> None:
        pass

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        assert info.size == len(messages)
        for message in messages:
            self.attempts.append((self.clock.monotonic() - 1000.0, message.data, message.attempt))
            if self.fails(message):
                message.fail("not yet")


async def test_those_of_a_batch_that_failed_are_tried_again_in_place_without_the_others() -> None:
    recorder = Recorder()
    pipeline = BatchesInOrder(first(2, "a1"), producer=ManualProducer(*recorder.messages(["a1", "a2", "a3", "a4"])))
    async with running(pipeline) as clock:
        await clock.advance(5.0)

    assert pipeline.handled("a") == ["a1", "a2", "a1", "a1", "a3", "a4"]
    assert recorder.successful == ["a1", "a2", "a3", "a4"]
    recorder.check_once()


async def test_a_batch_that_raises_is_tried_again_whole_and_in_order_before_the_next_one() -> None:
    class Raising(BatchesInOrder):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            self.attempts += [(self.clock.monotonic(), message.data, message.attempt) for message in messages]
            if any([self.fails(message) for message in messages]):  # noqa: C419  # each is to be asked
                raise ValueError("the whole batch")

    recorder = Recorder()
    pipeline = Raising(first(2, "a1"), producer=ManualProducer(*recorder.messages(["a1", "a2", "a3", "a4"])))
    async with running(pipeline) as clock:
        await clock.advance(5.0)

    assert pipeline.handled("a") == ["a1", "a2", "a1", "a2", "a1", "a2", "a3", "a4"]
    assert recorder.successful == ["a1", "a2", "a3", "a4"]
    recorder.check_once()


async def test_a_stop_gives_back_what_waits_in_place_in_a_batch_and_settles_the_others() -> None:
    recorder = ReturningRecorder()
    pipeline = BatchesInOrder(first(9, "a1"), producer=ManualProducer(*recorder.messages(["a1", "a2"])))
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    report = await soon(pipeline.stop())

    assert report.in_time
    assert (recorder.successful, recorder.returned, recorder.failed) == (["a2"], ["a1"], [])
    recorder.check_once()
    check_books(pipeline)


async def test_a_second_attempt_that_is_late_does_not_fail_those_that_were_done() -> None:
    class Hanging(BatchesInOrder):
        batchers = {"default": Batcher(batch_size=2, timeout=2.0)}  # noqa: RUF012  # never changed

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            await super().handle_batch(messages, info)
            if messages[0].attempt == 2:
                await asyncio.Event().wait()

    recorder = Recorder()
    policy = FailurePolicy(attempts=2, final="reject")
    producer = ManualProducer(*recorder.messages(["a1", "a2"]))
    pipeline = Hanging(first(9, "a1"), producer=producer, failure=policy)
    async with running(pipeline) as clock:
        await clock.advance(5.0)

    assert (recorder.successful, recorder.failed) == (["a2"], ["a1"])
    assert recorder.statuses["a1"].cause == "timeout"
    recorder.check_once()


async def test_a_crash_of_its_processor_loses_nothing_of_the_chunk() -> None:
    recorder = Recorder()
    policy = FailurePolicy(attempts=1, final="reject")
    producer = ManualProducer(*recorder.messages(["a1", "a2", "a3"]))
    pipeline = InOrder(lambda m: m.data == "a1", producer=producer, failure=policy)
    pipeline._meters["processors"].failed = Breaking()
    async with running(pipeline) as clock:
        await clock.advance(5.0)

    assert sorted([*recorder.successful, *recorder.failed]) == ["a2", "a3", "spoilt"]
    recorder.check_once()


async def test_every_attempt_starts_from_what_the_transformer_makes_of_the_payload() -> None:
    def shout(message: Message[Any]) -> None:
        message.data = message.data + "!"

    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(["a1"]))
    pipeline = InOrder(first(2, "a1!"), producer=producer, transformer=shout)
    async with running(pipeline) as clock:
        await clock.advance(5.0)

    assert pipeline.handled("a") == ["a1!", "a1!", "a1!"]
    recorder.check_once()
