"""``partition_by``: messages of one key stay together and in order."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import ManualProducer, Recorder, finish, running, soon
from tests.support.conformance import conforms


class Partitioned(Pipeline[Any]):
    """Two processors; notes in which stage task each message was handled; the tasks take turns at random places."""

    processors = Processors(concurrency=2, max_demand=4)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: defaultdict[str, list[Any]] = defaultdict(list)
        self.batches: defaultdict[str, list[tuple[list[Any], BatchInfo]]] = defaultdict(list)

    async def handle_message(self, message: Message[Any]) -> None:
        if isinstance(message.data, int) and message.data % 3 == 0:
            await asyncio.sleep(0)
        self.handled[here()].append(message.data)

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        if info.size % 2:
            await asyncio.sleep(0)
        self.batches[here()].append(([message.data for message in messages], info))


def here() -> str:
    """Name of the running stage task."""
    task = asyncio.current_task()
    assert task is not None
    return task.get_name()


def parity(message: Message[Any]) -> Any:
    """Odd or even."""
    return message.data % 2


def assert_each_in_order(places: dict[str, list[int]]) -> None:
    """One place for odd numbers, one for even ones, each in order."""
    assert len(places) == 2
    for numbers in places.values():
        assert len({number % 2 for number in numbers}) == 1
        assert numbers == sorted(numbers)


@conforms("B-049")
async def test_messages_of_one_key_stay_on_one_processor_in_order() -> None:
    pipeline = Partitioned(producer=MemoryProducer(range(200)), partition_by=parity)

    assert await finish(pipeline) == {"acked": 200}
    assert_each_in_order(pipeline.handled)


@conforms("B-050")
async def test_batches_of_one_key_stay_on_one_batch_processor_in_order() -> None:
    pipeline = Partitioned(
        producer=MemoryProducer(range(200)),
        partition_by=parity,
        batchers={"default": Batcher(batch_size=2, concurrency=2)},
    )

    assert await finish(pipeline) == {"acked": 200}
    assert_each_in_order({place: [n for data, _ in each for n in data] for place, each in pipeline.batches.items()})
    for place, batches in pipeline.batches.items():
        assert {info.partition for _, info in batches} == {int(place.rsplit(".", 1)[1])}
        assert {info.size for _, info in batches} == {2}


@conforms("B-051")
async def test_keys_of_batches_split_them_inside_a_partition() -> None:
    class Keyed(Partitioned):
        async def handle_message(self, message: Message[Any]) -> None:
            message.batch_key = "small" if message.data < 4 else "large"

    pipeline = Keyed(
        producer=MemoryProducer([0, 2, 4, 6, 1, 3, 5, 7]),
        partition_by=parity,
        batchers={"default": Batcher(batch_size=4, concurrency=2)},
    )

    await finish(pipeline)

    found = [(info.batch_key, data, info.trigger) for each in pipeline.batches.values() for data, info in each]
    assert sorted(found) == [
        ("large", [4, 6], "flush"),
        ("large", [5, 7], "flush"),
        ("small", [0, 2], "flush"),
        ("small", [1, 3], "flush"),
    ]


@conforms("B-052")
async def test_a_layer_may_have_a_function_of_its_own() -> None:
    def below_100(message: Message[Any]) -> bool:
        return bool(message.data < 100)

    pipeline = Partitioned(
        producer=MemoryProducer(range(200)),
        partition_by=parity,
        processors=Processors(concurrency=2, partition_by=below_100),
        batchers={"default": Batcher(batch_size=2, concurrency=2, partition_by=lambda m: m.data // 50 % 2)},
    )

    await finish(pipeline)

    assert sorted(pipeline.handled.values()) == [list(range(100)), list(range(100, 200))]
    halves = {place: {n // 50 % 2 for data, _ in each for n in data} for place, each in pipeline.batches.items()}
    assert sorted(map(sorted, halves.values())) == [[0], [1]]


async def test_a_layer_may_have_none_although_the_pipeline_has_one() -> None:
    pipeline = Partitioned(
        producer=MemoryProducer([2] * 40),
        partition_by=parity,
        processors=Processors(concurrency=2, max_demand=4, partition_by=None),
    )

    await finish(pipeline)

    assert len(pipeline.handled) == 2


async def test_as_a_method_of_the_class_it_sees_the_pipeline() -> None:
    class Method(Partitioned):
        modulus = 2

        def partition_by(self, message: Message[Any]) -> int:
            return int(message.data) % self.modulus

    pipeline = Method(producer=MemoryProducer(range(50)))

    await finish(pipeline)

    assert_each_in_order(pipeline.handled)


async def test_equal_keys_meet_whatever_their_type() -> None:
    keys = iter([1, 1.0, True] * 20)

    pipeline = Partitioned(producer=MemoryProducer(range(60)), partition_by=lambda _: next(keys))

    await finish(pipeline)

    assert len(pipeline.handled) == 1


async def test_negative_numbers_and_text_are_keys_like_any_other() -> None:
    pipeline = Partitioned(producer=MemoryProducer([-1, "a", -1, "a", -3, "b"]), partition_by=lambda m: m.data)

    assert await finish(pipeline) == {"acked": 6}
    for wanted in (-1, "a"):
        assert len([place for place, data in pipeline.handled.items() if wanted in data]) == 1


async def test_the_key_none_may_go_anywhere() -> None:
    together = asyncio.Barrier(2)

    class Meeting(Partitioned):
        async def handle_message(self, message: Message[Any]) -> None:
            await together.wait()

    pipeline = Meeting(producer=MemoryProducer(range(10)), partition_by=lambda _: None)

    assert await finish(pipeline) == {"acked": 10}


@pytest.mark.parametrize("key", [[], {}])
async def test_a_key_that_cannot_be_hashed_fails_its_message_alone(key: Any) -> None:
    recorder = Recorder()
    pipeline = Partitioned(
        producer=MemoryProducer(recorder.messages(range(4))),
        partition_by=lambda m: key if m.data == 2 else m.data,
    )

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}
    assert recorder.statuses[2].cause == "raised"


async def test_a_raise_fails_its_message_alone() -> None:
    def fragile(message: Message[Any]) -> int:
        if message.data == 2:
            raise LookupError("no key")
        return int(message.data)

    recorder = Recorder()
    pipeline = Partitioned(producer=MemoryProducer(recorder.messages(range(6))), partition_by=fragile)

    assert await finish(pipeline) == {"acked": 5, "rejected": 1}
    assert recorder.statuses[2].reason == "LookupError: no key"
    assert pipeline.stats().restarts == 0
    assert all(2 not in data for data in pipeline.handled.values())


async def test_a_raise_for_a_batcher_fails_its_message_alone() -> None:
    def fragile(message: Message[Any]) -> int:
        if message.data == 2:
            raise LookupError("no key")
        return 0

    recorder = Recorder()
    pipeline = Partitioned(
        producer=MemoryProducer(recorder.messages(range(4))),
        batchers={"default": Batcher(batch_size=3, partition_by=fragile)},
    )

    assert await finish(pipeline) == {"acked": 3, "rejected": 1}
    assert recorder.statuses[2].reason == "LookupError: no key"


async def test_for_batchers_the_key_is_taken_from_what_handle_message_made_of_it() -> None:
    class Renaming(Partitioned):
        async def handle_message(self, message: Message[Any]) -> None:
            message.data = "all the same"

    pipeline = Renaming(
        producer=MemoryProducer(range(10)),
        batchers={"default": Batcher(batch_size=5, concurrency=3, partition_by=lambda m: m.data)},
    )

    await finish(pipeline)

    assert len(pipeline.batches) == 1


async def test_failures_leave_the_order_and_the_partition_carries_on() -> None:
    class Fragile(Partitioned):
        async def handle_message(self, message: Message[Any]) -> None:
            await super().handle_message(message)
            if message.data % 10 < 2:
                raise ValueError("every tenth")

    pipeline = Fragile(producer=MemoryProducer(range(100)), partition_by=parity, failure=None)

    assert await finish(pipeline) == {"acked": 80, "rejected": 20}
    assert_each_in_order(pipeline.handled)


async def test_a_hot_partition_keeps_a_bounded_number_waiting() -> None:
    held = asyncio.Event()

    class Hot(Partitioned):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data % 2:
                await held.wait()

    def numbers() -> Iterator[int]:
        yield from range(1, 20_001, 2)

    producer = MemoryProducer(numbers())
    pipeline = Hot(producer=producer, partition_by=parity)

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert pipeline.stats().producers[0].in_flight <= 2 * 2 * 4
        held.set()
        await soon(pipeline.wait())


async def test_pushed_messages_of_one_key_go_where_the_sources_go() -> None:
    producer = ManualProducer(1, 3)
    pipeline = Partitioned(producer=producer, partition_by=parity)

    async with running(pipeline):
        await soon(pipeline.submit_batch([5, 7]))

    assert len(pipeline.handled) == 1
