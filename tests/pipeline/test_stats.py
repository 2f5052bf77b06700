"""``pipeline.stats()``: every figure of one moment, and books that always add up."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Processors, ProducerError
from broadway_py.producers import MemoryProducer, Producer
from tests.pipeline.support import (
    ONE,
    Call,
    ManualProducer,
    Quiet,
    Recorder,
    check_books,
    finish,
    in_flight,
    running,
    soon,
)


async def test_a_pipeline_that_has_not_started_has_empty_figures() -> None:
    stats = Quiet(name="orders").stats()

    assert (stats.name, stats.state, stats.producers, stats.stages) == ("orders", "new", (), ())
    assert stats.trouble == "new"


async def test_the_figures_are_a_picture_of_their_moment() -> None:
    pipeline = Quiet(producer=ManualProducer(1))
    async with running(pipeline) as clock:
        before = pipeline.stats()
        await clock.advance(1.0)
        assert before.producers[0].received == 0
        assert pipeline.stats().producers[0].received == 1
        with pytest.raises(dataclasses.FrozenInstanceError):
            before.restarts = 3  # type: ignore[misc]  # frozen


class Charged(Producer):
    """A source that charges for requests: each copy makes one."""

    concurrency = 2

    async def handle_demand(self, demand: int) -> None:
        self.context.requests.requests["receive", "ok"] += 1


async def test_requests_are_counted_for_each_producer_of_each_pipeline() -> None:
    for _ in range(2):  # a second pipeline with the same names counts anew
        pipeline = Quiet(name="orders", producer=[Charged(), MemoryProducer([1])])
        await finish(pipeline)
        charged, free = (one.requests for one in pipeline.stats().producers)
        assert charged is not None
        assert (charged.requests, free) == ({("receive", "ok"): 2}, None)


async def test_the_requests_of_a_snapshot_do_not_change() -> None:
    pipeline = Quiet(producer=Charged())
    await finish(pipeline)
    before = pipeline.stats().producers[0].requests
    pipeline.stats()
    run = pipeline._life_cycle.run
    assert run is not None
    run.stages.ledgers[0].requests.received(1)

    assert before is not None
    assert before.messages == 0


async def test_the_books_add_up_at_every_step() -> None:
    steps = 0

    class Watches(Quiet):
        batchers = {"default": Batcher(batch_size=3)}  # noqa: RUF012  # never changed

        async def prepare_messages(self, messages: list[Message[Any]]) -> None:
            self.check()

        async def handle_message(self, message: Message[Any]) -> None:
            self.check()
            if message.data % 5 == 0:
                message.fail("fifth")

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            self.check()

        async def handle_failed(self, messages: list[Message[Any]]) -> None:
            self.check()

        def check(self) -> None:
            nonlocal steps
            steps += 1
            check_books(self)

    pipeline: Watches

    async def look(call: Call) -> None:
        pipeline.check()

    recorder = Recorder(look)
    pipeline = Watches(producer=MemoryProducer(recorder.messages(range(100))))

    assert await finish(pipeline) == {"acked": 80, "rejected": 20}
    assert steps > 200


async def test_in_flight_bytes_and_age_are_those_of_what_is_not_settled() -> None:
    gate = asyncio.Event()

    class Slow(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data != b"quick":
                await gate.wait()

    pipeline = Slow(producer=ManualProducer(b"x" * 100, "é" * 10), processors=Processors(concurrency=2, max_demand=1))
    async with running(pipeline) as clock:
        await clock.advance(7.0)
        (producer,) = pipeline.stats().producers
        assert (producer.in_flight, producer.bytes_in_flight) == (2, 120)
        assert producer.oldest_in_flight_seconds == pytest.approx(7.0)
        gate.set()
        await clock.advance(0.0)
        (producer,) = pipeline.stats().producers
        assert (producer.in_flight, producer.bytes_in_flight, producer.oldest_in_flight_seconds) == (0, 0, 0.0)
        assert producer.latency.count == 2
        assert producer.latency.total == pytest.approx(14.0)


async def test_bytes_in_flight_are_those_that_came_in_whatever_becomes_of_the_data() -> None:
    class Changes(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            message.data = "something else and longer"

    pipeline = Changes(producer=ManualProducer(b"x" * 10, b"y" * 20))
    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert pipeline.stats().producers[0].bytes_in_flight == 0


async def test_redelivered_messages_are_counted() -> None:
    recorder = Recorder()
    items = [recorder.message(1, redelivered=True), recorder.message(2), recorder.message(3, redelivered=False)]
    pipeline = Quiet(producer=MemoryProducer(items))
    await finish(pipeline)

    assert pipeline.stats().producers[0].redelivered == 1


async def test_failures_are_counted_by_stage_and_cause() -> None:
    class Fails(Quiet):
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 1:
                message.fail("one")
            if message.data == 2:
                raise ValueError("two")
            if message.data == 3:
                message.batcher = "nowhere"

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> list[Message[Any]]:
            return messages[1:]

    pipeline = Fails(producer=MemoryProducer(range(1, 6)), failure=None)
    await finish(pipeline)

    failed = {stage.name: {cause: n for cause, n in stage.failed.items() if n} for stage in pipeline.stats().stages}
    assert failed == {
        "processors": {"failed": 1, "raised": 1, "unknown_batcher": 1},
        "batcher:default": {},
        "batch_processors:default": {"not_returned": 1},
    }


async def test_busy_time_counts_what_is_under_way() -> None:
    gate = asyncio.Event()

    class Slow(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

    pipeline = Slow(producer=ManualProducer(1, 2), processors=Processors(concurrency=4, max_demand=1))
    async with running(pipeline) as clock:
        await clock.advance(3.0)
        (stage,) = pipeline.stats().stages
        assert stage.concurrency == 4
        assert stage.busy_seconds == pytest.approx(6.0)
        gate.set()
        await clock.advance(5.0)
        (stage,) = pipeline.stats().stages
        assert stage.busy_seconds == pytest.approx(6.0)
        assert stage.duration is not None
        assert stage.duration.count == 2


async def test_what_waits_in_front_of_a_layer_is_counted() -> None:
    gate = asyncio.Event()

    class Slow(Quiet):
        processors = ONE
        batchers = {"default": Batcher(batch_size=2)}  # noqa: RUF012  # never changed

        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            await gate.wait()

    pipeline = Slow(producer=ManualProducer(*range(100)))
    async with running(pipeline) as clock:
        await clock.advance(1.0)
        queued = {stage.name: stage.queued for stage in pipeline.stats().stages}
        assert queued["batcher:default"] > 0
        assert sum(queued.values()) < in_flight(pipeline) <= 30
        assert sum(stage.backpressure_seconds for stage in pipeline.stats().stages) >= 0.0
        gate.set()
        await clock.advance(10.0)
        assert {stage.queued for stage in pipeline.stats().stages} == {0}
        assert sum(stage.backpressure_seconds for stage in pipeline.stats().stages) > 0.9


async def test_trouble_names_the_first_reason_why_it_is_not_ready() -> None:
    producer = ManualProducer()
    producer.feed.opening.append(ProducerError("host unknown"))
    pipeline = Quiet(producer=producer)
    async with running(pipeline) as clock:
        await producer.feed.until("close")
        assert pipeline.stats().trouble == "manual: host unknown"
        await clock.advance(5.0)
        assert pipeline.stats().trouble is None
    assert pipeline.stats().trouble == "stopped"


async def test_the_source_of_submitted_messages_is_shown_once_it_was_used() -> None:
    async with running(pipeline := Quiet()):
        assert [producer.name for producer in pipeline.stats().producers] == ["dummy"]
        await soon(pipeline.submit(1))
        assert [producer.name for producer in pipeline.stats().producers] == ["dummy", "push"]
