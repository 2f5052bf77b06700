"""What a pipeline says about itself: topology, names, states, who runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors, RateLimit, all_running, telemetry
from broadway_py.producers import DummyProducer
from tests.pipeline.support import ManualProducer, Quiet, clock_of, running, soon, telemetry_events
from tests.support.conformance import conforms


class Batched(Quiet):
    """With two batchers."""

    batchers = {"default": Batcher(), "audit": Batcher(concurrency=3)}  # noqa: RUF012  # never changed
    processors = Processors(concurrency=4)

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        pass


@conforms("B-098", "B-100")
def test_the_topology_names_every_layer_in_order_with_its_concurrency() -> None:
    pipeline = Batched(name="orders", producer=[ManualProducer(name="eu", concurrency=2), ManualProducer(name="us")])

    assert pipeline.topology() == {
        "name": "orders",
        "producers": [
            {"name": "orders.producer:eu", "producer": "eu", "concurrency": 2},
            {"name": "orders.producer:us", "producer": "us", "concurrency": 1},
        ],
        "processors": [{"name": "orders.processors", "concurrency": 4}],
        "batchers": [
            {
                "batcher": "default",
                "name": "orders.batcher:default",
                "batch_processors": "orders.batch_processors:default",
                "concurrency": 1,
            },
            {
                "batcher": "audit",
                "name": "orders.batcher:audit",
                "batch_processors": "orders.batch_processors:audit",
                "concurrency": 3,
            },
        ],
    }


@conforms("B-099", "B-038")
async def test_without_batchers_there_is_no_batching_layer() -> None:
    async with running(pipeline := Quiet()):
        assert pipeline.topology()["batchers"] == []
        assert [stage.name for stage in pipeline.stats().stages] == ["processors"]
        names = {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("Quiet.")}

    assert names == {"Quiet.pipeline", "Quiet.producer:dummy.0", "Quiet.producer:push.0", "Quiet.processors.0"}


@conforms("B-008")
async def test_a_producer_runs_as_one_copy_unless_told_otherwise() -> None:
    pipeline = Quiet(producer=DummyProducer())

    async with running(pipeline):
        await soon(pipeline.ready())
        (producer,) = pipeline.stats().producers
        assert (producer.name, producer.copies, producer.connected) == ("dummy", 1, 1)

    assert pipeline.topology()["producers"] == [{"name": "Quiet.producer:dummy", "producer": "dummy", "concurrency": 1}]


@conforms("B-009")
async def test_a_producer_runs_in_as_many_copies_as_it_says_and_telemetry_announces_the_topology() -> None:
    producer = ManualProducer(concurrency=3)
    with telemetry_events("broadway.topology.init") as seen:
        async with running(pipeline := Quiet(producer=producer, context="the context")) as clock:
            await soon(pipeline.ready())
            assert len(producer.feed.copies) == 3
            assert sorted(copy.context.index for copy in producer.feed.copies) == [0, 1, 2]

    ((event, measurements, metadata),) = seen
    assert event == "broadway.topology.init"
    assert measurements["system_time"] == pytest.approx(clock.wall(), abs=1.0)
    assert metadata == {"pipeline": "Quiet", "context": "the context", "topology": pipeline.topology()}


async def test_the_topology_can_be_asked_for_when_it_is_announced() -> None:
    states: list[tuple[str, int]] = []

    class Asks(Quiet):
        pass

    pipeline = Asks()
    telemetry.attach(
        "asks",
        "broadway.topology.init",
        lambda *_: states.append((pipeline.phase, len(pipeline.stats().producers))),
    )
    try:
        async with running(pipeline):
            pass
    finally:
        telemetry.detach("asks")

    assert states == [("running", 1)]


@conforms("B-117", "B-119")
async def test_the_tasks_of_batchers_and_batch_processors_are_named_after_pipeline_key_and_index() -> None:
    async with running(Batched(name="orders")):
        names = {task.get_name() for task in asyncio.all_tasks()}

    assert {"orders.batcher:default.0", "orders.batcher:audit.0"} <= names
    assert {"orders.batch_processors:default.0", "orders.batch_processors:audit.2"} <= names


@conforms("B-121", "B-135")
async def test_the_tasks_of_processors_and_producers_are_named_after_pipeline_and_index() -> None:
    async with running(Batched(name="orders", producer=ManualProducer(concurrency=2))):
        names = {task.get_name() for task in asyncio.all_tasks()}

    assert {"orders.processors.0", "orders.processors.3"} <= names
    assert {"orders.producer:manual.0", "orders.producer:manual.1"} <= names


@conforms("B-101", "B-102")
async def test_the_running_pipelines_are_known_by_name_until_they_are_stopped() -> None:
    one, two = Quiet(name="one"), Quiet(name="two")
    assert all_running() == []

    async with running(two), running(one):
        assert all_running() == ["one", "two"]
        await soon(one.stop())
        assert all_running() == ["two"]
    assert all_running() == []


async def test_a_pipeline_that_crashed_or_failed_to_start_does_not_run() -> None:
    class Broken(Quiet):
        async def setup(self) -> None:
            raise LookupError

    with pytest.raises(LookupError):
        await soon(Broken().start())
    assert all_running() == []


@conforms("B-105", "B-106")
async def test_any_text_is_a_name_under_which_a_pipeline_runs() -> None:
    name = "orders / EU west №1"
    pipeline = Quiet(name=name, rate_limit=RateLimit(allowed_messages=5, interval=1.0))

    async with running(pipeline):
        assert all_running() == [name]
        assert pipeline.rate_limit == RateLimit(allowed_messages=5, interval=1.0)


@conforms("B-107", "B-108", "B-109")
async def test_any_text_is_a_name_that_its_parts_are_named_after() -> None:
    name = "orders / EU west №1"
    pipeline = Batched(name=name)

    async with running(pipeline):
        assert pipeline.topology()["name"] == name
        assert pipeline.topology()["producers"][0]["name"] == f"{name}.producer:dummy"
        assert (await soon(pipeline.submit(1))).ok


@conforms("B-104")
async def test_the_tasks_of_a_pipeline_of_any_name_carry_it() -> None:
    name = "orders / EU west №1"
    async with running(Quiet(name=name)):
        names = {task.get_name() for task in asyncio.all_tasks()}

    assert {f"{name}.pipeline", f"{name}.producer:dummy.0", f"{name}.processors.0"} <= names


async def test_a_pipeline_tells_the_station_of_its_life() -> None:
    gate = asyncio.Event()
    states: list[str] = []

    class Slow(Quiet):
        async def setup(self) -> None:
            states.append(self.phase)

        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()

        async def teardown(self) -> None:
            states.append(self.phase)

    pipeline = Slow(producer=ManualProducer(1))
    states.append(pipeline.phase)
    assert repr(pipeline) == "<Slow name='Slow' new>"
    assert repr(Slow.__new__(Slow)) == "<Slow not built>"  # what a traceback shows of one whose options were refused
    async with running(pipeline) as clock:
        states.append(pipeline.phase)
        await soon(pipeline.pause())
        states.append(pipeline.phase)
        await soon(pipeline.resume())
        await clock.advance(0.0)
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(0.0)
        states.append(pipeline.phase)
        assert pipeline.is_running
        gate.set()
        await soon(stopping)
    states.append(pipeline.phase)

    assert states == ["new", "starting", "running", "paused", "draining", "stopped", "stopped"]
    assert not pipeline.is_running


async def test_many_pipelines_of_one_class_run_side_by_side() -> None:
    pipelines = [Quiet(name=f"number {number}") for number in range(20)]
    for pipeline in pipelines:
        clock_of(pipeline)
        await soon(pipeline.start())
    settled = await soon(asyncio.gather(*(pipeline.submit(pipeline.name) for pipeline in pipelines)))
    for pipeline in pipelines:
        await soon(pipeline.stop())

    assert [message.data for message in settled] == [pipeline.name for pipeline in pipelines]


async def test_one_description_of_a_producer_may_serve_two_pipelines() -> None:
    producer = ManualProducer(1, 2)
    first: Pipeline[Any] = Quiet(name="first", producer=producer)
    second: Pipeline[Any] = Quiet(name="second", producer=producer)

    async with running(first), running(second) as clock:
        await clock.advance(1.0)

    assert {copy.context.pipeline for copy in producer.feed.copies} == {"first", "second"}
