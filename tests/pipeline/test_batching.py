"""Batchers: what closes a batch, and with what trigger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from broadway_py.producers import DummyProducer, MemoryProducer
from tests.pipeline.support import ONE, ManualProducer, Recorder, check_books, finish, in_flight, running, soon
from tests.support.conformance import conforms


def even_odd(message: Message[Any]) -> None:
    """Odd numbers to one batcher, even ones to the other."""
    message.batcher = "odd" if message.data % 2 else "even"


class Batches(Pipeline[Any]):
    """Notes its batches, and lets a test wait for them."""

    processors = ONE
    producer = DummyProducer()

    def __init__(self, route: Callable[[Message[Any]], None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.route = route
        self.batches: list[tuple[list[Any], BatchInfo]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        if self.route is not None:
            self.route(message)

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        assert info.size == len(messages)
        assert {message.batch_key for message in messages} == {info.batch_key}
        assert {message.batcher for message in messages} == {info.batcher}
        self.batches.append(([message.data for message in messages], info))

    def shapes(self, batcher: str = "default") -> list[tuple[list[Any], str]]:
        """Payloads and trigger of each batch of *batcher*."""
        return [(data, info.trigger) for data, info in self.batches if info.batcher == batcher]

    def sizes(self, batcher: str) -> list[tuple[int, str]]:
        """Size and trigger of each batch of *batcher*."""
        return [(info.size, info.trigger) for _, info in self.batches if info.batcher == batcher]


def batched(**settings: Any) -> dict[str, Batcher]:
    """One batcher."""
    return {"default": Batcher(**settings)}


@conforms("B-042")
async def test_messages_of_two_batchers_come_in_exact_batch_sizes() -> None:
    recorder = Recorder()
    pipeline = Batches(
        even_odd,
        producer=MemoryProducer(recorder.messages(range(1, 41))),
        batchers={"odd": Batcher(batch_size=10), "even": Batcher(batch_size=5)},
        processors=Processors(concurrency=1),
    )

    assert await finish(pipeline) == {"acked": 40}
    assert pipeline.sizes("odd") == [(10, "size")] * 2
    assert pipeline.sizes("even") == [(5, "size")] * 4
    assert [data for data, info in pipeline.batches if info.batcher == "odd"] == [
        list(range(1, 21, 2)),
        list(range(21, 41, 2)),
    ]
    assert {info for _, info in pipeline.batches} == {
        BatchInfo("odd", "default", None, 10, "size"),
        BatchInfo("even", "default", None, 5, "size"),
    }


@conforms("B-043")
async def test_flush_mode_sends_what_is_left_and_nothing_else_follows() -> None:
    pipeline = Batches(even_odd, batchers={"odd": Batcher(batch_size=10), "even": Batcher(batch_size=10)})

    async with running(pipeline) as clock:
        settled = await soon(pipeline.submit_batch([1, 2, 3, 4, 5], batch_mode="flush"))
        assert len(settled.successful) == 5
        assert pipeline.shapes("odd") == [([1, 3, 5], "flush")]
        assert pipeline.shapes("even") == [([2, 4], "flush")]
        await clock.advance(10.0)

    assert len(pipeline.batches) == 2


@conforms("B-044")
async def test_batches_form_for_each_key() -> None:
    def by_parity(message: Message[Any]) -> None:
        message.batch_key = "odd" if message.data % 2 else "even"

    pipeline = Batches(by_parity, producer=MemoryProducer(range(1, 9)), batchers=batched(batch_size=2))

    await finish(pipeline)

    assert sorted((info.batch_key, data, info.trigger) for data, info in pipeline.batches) == [
        ("even", [2, 4], "size"),
        ("even", [6, 8], "size"),
        ("odd", [1, 3], "size"),
        ("odd", [5, 7], "size"),
    ]


@conforms("B-045")
async def test_flush_mode_with_two_keys_gives_two_single_batches() -> None:
    def own_key(message: Message[Any]) -> None:
        message.batch_key = message.data

    pipeline = Batches(own_key, batchers=batched(batch_size=10))

    async with running(pipeline):
        await soon(pipeline.submit_batch([1, 2], batch_mode="flush"))

    assert sorted(pipeline.shapes()) == [([1], "flush"), ([2], "flush")]


@pytest.mark.parametrize("key", [(1, "x"), frozenset({2}), None, 0, "text"])
async def test_any_hashable_key_will_do(key: Hashable) -> None:
    def same_key(message: Message[Any]) -> None:
        message.batch_key = key

    pipeline = Batches(same_key, producer=MemoryProducer([1, 2]), batchers=batched(batch_size=2))

    await finish(pipeline)

    ((data, info),) = pipeline.batches
    assert (data, info.batch_key) == ([1, 2], key)


async def test_a_key_that_cannot_be_hashed_fails_its_message_alone() -> None:
    def odd_key(message: Message[Any]) -> None:
        if message.data == 2:
            message.batch_key = []  # type: ignore[assignment]  # the mistake this test is about

    recorder = Recorder()
    pipeline = Batches(odd_key, producer=MemoryProducer(recorder.messages([1, 2, 3])), batchers=batched(batch_size=2))

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}
    assert recorder.statuses[2].cause == "raised"
    assert [data for data, _ in pipeline.batches] == [[1, 3]]


# --- batch_size as a function


def by_sum(limit: int) -> tuple[int, Callable[[Message[Any], int], tuple[str, int]]]:
    """Closes a batch once its numbers reach *limit*."""

    def split(message: Message[Any], so_far: int) -> tuple[str, int]:
        total = so_far + int(message.data)
        return ("emit", 0) if total >= limit else ("cont", total)

    return 0, split


@conforms("B-046")
async def test_a_function_closes_the_batches_of_each_key_on_its_own() -> None:
    def by_key(message: Message[Any]) -> None:
        message.batch_key = "large" if message.data > 5 else "small"

    pipeline = Batches(
        by_key,
        producer=MemoryProducer([2, 10, 3, 5]),
        batchers=batched(batch_size=by_sum(10), max_demand=10),
    )

    await finish(pipeline)

    assert sorted(pipeline.shapes()) == [([2, 3, 5], "size"), ([10], "size")]


@conforms("B-047")
async def test_each_batcher_has_its_own_function() -> None:
    producer = ManualProducer(*range(1, 11))
    pipeline = Batches(
        even_odd,
        producer=producer,
        batchers={
            "odd": Batcher(batch_size=(1, lambda _, n: ("emit", 1) if n == 4 else ("cont", n + 1)), max_demand=10),
            "even": Batcher(
                batch_size=(0, lambda m, total: ("emit", 0) if total + m.data >= 12 else ("cont", total + m.data)),
                max_demand=10,
            ),
        },
    )

    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert pipeline.shapes("odd") == [([1, 3, 5, 7], "size")]
        await clock.advance(1.0)
        assert pipeline.shapes("odd") == [([1, 3, 5, 7], "size"), ([9], "timeout")]
        assert pipeline.shapes("even") == [([2, 4, 6], "size"), ([8, 10], "size")]


@conforms("B-048")
async def test_flush_mode_overrides_the_function() -> None:
    pipeline = Batches(
        even_odd,
        batchers={
            "odd": Batcher(batch_size=by_sum(1000), max_demand=10),
            "even": Batcher(batch_size=by_sum(1000), max_demand=10),
        },
    )

    async with running(pipeline):
        await soon(pipeline.submit_batch([1, 2, 3, 4], batch_mode="flush"))

    assert sorted(pipeline.batches, key=lambda batch: batch[0]) == [
        ([1, 3], BatchInfo("odd", "default", None, 2, "flush")),
        ([2, 4], BatchInfo("even", "default", None, 2, "flush")),
    ]


async def test_what_the_function_returned_with_emit_is_where_the_next_batch_begins() -> None:
    def carry(message: Message[Any], so_far: int) -> tuple[str, int]:
        total = so_far + int(message.data)
        return ("emit", total - 10) if total >= 10 else ("cont", total)

    pipeline = Batches(producer=MemoryProducer([8, 8, 4, 10]), batchers=batched(batch_size=(0, carry), max_demand=10))

    await finish(pipeline)

    assert pipeline.shapes() == [([8, 8], "size"), ([4], "size"), ([10], "size")]


@pytest.mark.parametrize("verdict", ["stop", None, 1])
async def test_a_function_that_answers_nonsense_fails_that_message_alone(verdict: Any) -> None:
    def nonsense(message: Message[Any], count: int) -> Any:
        return (verdict if message.data == 2 else "cont", count + 1)

    recorder = Recorder()
    pipeline = Batches(
        producer=MemoryProducer(recorder.messages([1, 2, 3])),
        batchers=batched(batch_size=(0, nonsense), max_demand=10),
    )

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}
    assert recorder.statuses[2].reason == (
        f"ValueError: the batch_size function returned {verdict!r}; expected 'emit' or 'cont'"
    )
    assert pipeline.shapes() == [([1, 3], "flush")]


@pytest.mark.parametrize("answer", [None, "emit", 17])
async def test_a_function_that_answers_no_pair_fails_that_message_alone(answer: Any) -> None:
    recorder = Recorder()
    pipeline = Batches(
        producer=MemoryProducer(recorder.messages([1, 2, 3])),
        batchers=batched(batch_size=(0, lambda m, n: answer if m.data == 2 else ("cont", n)), max_demand=10),
    )

    assert await finish(pipeline) == {"acked": 2, "rejected": 1}
    assert recorder.failed == [2]


# --- time, bytes, flush


@conforms("B-053")
async def test_in_flush_mode_each_message_that_comes_alone_is_a_batch() -> None:
    pipeline = Batches(batchers=batched(batch_size=2), processors=Processors(concurrency=1, max_demand=1))

    async with running(pipeline):
        await soon(pipeline.submit_batch([1, 2, 3, 4, 5], batch_mode="flush"))

    assert pipeline.shapes() == [([number], "flush") for number in range(1, 6)]


@conforms("B-054")
async def test_in_bulk_mode_batches_leave_by_size_and_the_rest_by_time() -> None:
    recorder = Recorder()
    pipeline = Batches(batchers=batched(batch_size=2, batch_timeout=1.0))

    async with running(pipeline) as clock:
        await soon(pipeline.push_messages(recorder.messages([1, 2, 3, 4, 5])))
        await clock.advance(0.99)
        assert pipeline.shapes() == [([1, 2], "size"), ([3, 4], "size")]
        await clock.advance(0.01)
        assert pipeline.shapes()[2:] == [([5], "timeout")]

    assert recorder.successful == [1, 2, 3, 4, 5]


async def test_the_time_of_a_batch_begins_with_its_first_message_and_later_ones_do_not_extend_it() -> None:
    producer = ManualProducer(1)
    pipeline = Batches(producer=producer, batchers=batched(batch_size=10, batch_timeout=1.0))

    async with running(pipeline) as clock:
        await clock.advance(0.6)
        producer.feed.put(2)
        await clock.advance(0.39)
        assert pipeline.shapes() == []
        await clock.advance(0.01)
        assert pipeline.shapes() == [([1, 2], "timeout")]
        producer.feed.put(3)
        await clock.advance(0.99)
        assert pipeline.shapes() == [([1, 2], "timeout")]
        await clock.advance(0.02)
        assert pipeline.shapes() == [([1, 2], "timeout"), ([3], "timeout")]


async def test_each_key_has_a_time_of_its_own() -> None:
    def own_key(message: Message[Any]) -> None:
        message.batch_key = message.data

    producer = ManualProducer("a")
    pipeline = Batches(own_key, producer=producer, batchers=batched(batch_size=10, batch_timeout=1.0))

    async with running(pipeline) as clock:
        await clock.advance(0.5)
        producer.feed.put("b")
        await clock.advance(0.5)
        assert pipeline.shapes() == [(["a"], "timeout")]
        await clock.advance(0.5)
        assert pipeline.shapes() == [(["a"], "timeout"), (["b"], "timeout")]


async def test_an_empty_batch_is_never_made() -> None:
    pipeline = Batches(batchers=batched(batch_size=10))

    async with running(pipeline) as clock:
        await clock.advance(100.0)

    assert pipeline.batches == []


async def test_a_batch_is_closed_before_it_would_grow_past_its_bytes() -> None:
    pipeline = Batches(
        producer=MemoryProducer([b"x" * 40, b"y" * 40, b"z" * 40, b"w" * 200, b"v" * 100]),
        batchers=batched(batch_size=100, max_batch_bytes=100),
    )

    await finish(pipeline)

    assert [([len(each) for each in data], trigger) for data, trigger in pipeline.shapes()] == [
        ([40, 40], "bytes"),
        ([40], "bytes"),
        ([200], "bytes"),
        ([100], "bytes"),
    ]


async def test_the_end_of_all_sources_flushes_at_once() -> None:
    recorder = Recorder()
    pipeline = Batches(
        producer=MemoryProducer(recorder.messages([1, 2, 3])),
        batchers=batched(batch_size=100, batch_timeout=3600.0),
    )

    assert await finish(pipeline) == {"acked": 3}
    assert pipeline.shapes() == [([1, 2, 3], "flush")]


async def test_a_flush_takes_along_what_waits_under_the_same_key() -> None:
    recorder = Recorder()
    pipeline = Batches(batchers=batched(batch_size=10))

    async with running(pipeline):
        await soon(pipeline.push_messages(recorder.messages([1, 2])))
        await soon(pipeline.submit(3))
        assert pipeline.shapes() == [([1, 2, 3], "flush")]


@pytest.mark.parametrize(("size", "demand"), [(1000, 5), (300, 1)])
async def test_a_batch_larger_than_many_demands_still_fills(size: int, demand: int) -> None:
    pipeline = Batches(
        producer=MemoryProducer(range(size)),
        batchers=batched(batch_size=size, max_demand=demand, batch_timeout=60.0),
    )

    await finish(pipeline)

    assert pipeline.sizes("default") == [(size, "size")]


async def test_more_open_keys_than_a_batcher_may_hold_do_not_hold_up_a_drain() -> None:
    def own_key(message: Message[Any]) -> None:
        message.batch_key = message.data

    recorder = Recorder()
    pipeline = Batches(
        own_key,
        producer=MemoryProducer(recorder.messages(range(500))),
        batchers=batched(batch_size=3, max_demand=1, batch_timeout=3600.0),
    )

    assert await finish(pipeline) == {"acked": 500}
    recorder.check_once()


async def test_batch_sizes_and_triggers_are_counted() -> None:
    pipeline = Batches(producer=MemoryProducer(range(7)), batchers=batched(batch_size=3))
    await finish(pipeline)

    (figures,) = [stage for stage in pipeline.stats().stages if stage.name == "batcher:default"]
    assert dict(figures.batches) == {"size": 2, "flush": 1}
    assert figures.batch_sizes is not None
    assert (figures.batch_sizes.count, figures.batch_sizes.total) == (3, 7.0)


@conforms("B-118")
async def test_a_batcher_asks_each_processor_for_one_full_batch() -> None:
    assert Batcher(batch_size=123).demand == 123
    assert Batcher(batch_size=123, max_demand=7).demand == 7


@conforms("B-012")
async def test_each_batcher_has_one_batch_processor_unless_told_otherwise() -> None:
    pipeline = Batches(batchers={"one": Batcher(), "two": Batcher()})

    async with running(pipeline):
        layers = {stage.name: stage.concurrency for stage in pipeline.stats().stages}

    assert layers["batch_processors:one"] == layers["batch_processors:two"] == 1


@conforms("B-013")
async def test_the_concurrency_of_batch_processors_is_honoured() -> None:
    pipeline = Batches(batchers={"two": Batcher(concurrency=2), "three": Batcher(concurrency=3)})

    async with running(pipeline):
        layers = {stage.name: stage.concurrency for stage in pipeline.stats().stages}

    assert (layers["batch_processors:two"], layers["batch_processors:three"]) == (2, 3)
    assert (layers["batcher:two"], layers["batcher:three"]) == (1, 1)


class SlowSink(Batches):
    """Its batches wait until the test opens the gate."""

    gate: asyncio.Event

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        await self.gate.wait()
        await super().handle_batch(messages, info)


async def test_behind_a_slow_sink_the_messages_in_flight_stay_bounded() -> None:
    pipeline = SlowSink(
        producer=MemoryProducer(range(10_000)),
        batchers=batched(batch_size=10),
        processors=Processors(concurrency=2, max_demand=10),
    )
    pipeline.gate = asyncio.Event()

    async with running(pipeline) as clock:
        await clock.advance(10.0)
        assert 0 < in_flight(pipeline) <= 200
        check_books(pipeline)
        pipeline.gate.set()
        await soon(pipeline.wait())

    assert sum(info.size for _, info in pipeline.batches) == 10_000


async def test_a_slow_batcher_does_not_stop_the_other_at_once() -> None:
    class TwoSinks(SlowSink):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            if info.batcher == "odd":
                await self.gate.wait()
            await Batches.handle_batch(self, messages, info)

    pipeline = TwoSinks(
        even_odd,
        producer=MemoryProducer(range(30)),
        batchers={"odd": Batcher(batch_size=10), "even": Batcher(batch_size=5)},
    )
    pipeline.gate = asyncio.Event()

    async with running(pipeline) as clock:
        await clock.advance(2.0)
        assert sum(info.size for _, info in pipeline.batches if info.batcher == "even") == 15
        pipeline.gate.set()
        await soon(pipeline.wait())
