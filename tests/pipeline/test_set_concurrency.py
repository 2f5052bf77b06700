"""``pipeline.set_concurrency``: more or fewer processors while messages flow."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broadway_py import (
    Batcher,
    BatchInfo,
    Message,
    OptionsError,
    Pipeline,
    PipelineCrashed,
    PipelineNotRunning,
    Processors,
)
from tests.pipeline.support import (
    DEADLINE,
    Breaking,
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    in_flight,
    outcomes,
    received,
    running,
    soon,
)


class Busy(Pipeline[Any]):
    """Each message takes one second; knows how many are handled side by side."""

    processors = Processors(concurrency=2, max_demand=2)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.now = self.most = 0
        self.handled: list[Any] = []

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append(message.data)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.clock.sleep(1.0)
        finally:
            self.now -= 1

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        await self.clock.sleep(0.5)


def concurrency(pipeline: Pipeline[Any]) -> int:
    return next(stage.concurrency for stage in pipeline.stats().stages if stage.name == "processors")


async def test_more_processors_take_up_work_at_once() -> None:
    recorder = Recorder()
    pipeline = Busy(producer=ManualProducer(*recorder.messages(range(40))))
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert (pipeline.now, concurrency(pipeline)) == (2, 2)
        pipeline.set_concurrency(processors=6)
        await clock.advance(0.1)
        assert (pipeline.now, concurrency(pipeline), pipeline.processors.concurrency) == (6, 6, 6)
        check_books(pipeline)
        await clock.advance(20.0)

    assert outcomes(pipeline) == {"acked": 40}
    assert sorted(pipeline.handled) == list(range(40))
    recorder.check_once()


async def test_fewer_processors_finish_what_they_have_and_go() -> None:
    recorder = Recorder()
    pipeline = Busy(
        producer=ManualProducer(*recorder.messages(range(40))), processors=Processors(concurrency=6, max_demand=2)
    )
    async with running(pipeline) as clock:
        await clock.advance(0.5)
        assert pipeline.now == 6
        pipeline.set_concurrency(processors=1)
        assert concurrency(pipeline) == 1
        await clock.advance(3.0)
        assert pipeline.now == 1
        check_books(pipeline)
        await clock.advance(60.0)

    assert outcomes(pipeline) == {"acked": 40}
    assert sorted(pipeline.handled) == list(range(40))
    recorder.check_once()


async def test_up_and_down_under_load_loses_nothing_and_doubles_nothing() -> None:
    recorder = Recorder()
    pipeline = Busy(
        producer=[ManualProducer(*recorder.messages(range(100)), name=name) for name in ("one", "other")],
        batchers={"default": Batcher(batch_size=7, concurrency=2), "second": Batcher()},
    )
    async with running(pipeline) as clock:
        for wanted in (5, 1, 8, 3, 3, 1, 2, 9):
            await clock.advance(1.3)
            pipeline.set_concurrency(processors=wanted)
            check_books(pipeline)
        await clock.advance(100.0)

    assert outcomes(pipeline) == {"acked": 200}
    assert sorted(pipeline.handled) == sorted([*range(100), *range(100)])
    recorder.check_once()


async def test_those_that_are_gone_are_forgotten() -> None:
    pipeline = Busy(producer=ManualProducer())
    async with running(pipeline) as clock:
        for _ in range(50):
            pipeline.set_concurrency(processors=5)
            await clock.advance(0.1)
            pipeline.set_concurrency(processors=1)
            await clock.advance(0.1)
        run = pipeline._life_cycle.run
        assert run is not None
        assert len(run.stages.retired) <= 4
        assert len(run.tasks) <= 10


async def test_what_waits_in_a_processor_that_goes_is_given_back_by_a_pause() -> None:
    recorder = ReturningRecorder()
    pipeline = Busy(
        producer=ManualProducer(*recorder.messages(range(8))),
        processors=Processors(concurrency=2, max_demand=4, min_demand=0),
    )
    async with running(pipeline) as clock:
        await clock.advance(0.1)
        pipeline.set_concurrency(processors=1)
        await pipeline.pause()
        assert len(recorder.returned) == 6
        await clock.advance(2.0)
        await pipeline.resume()

    assert len(recorder.successful) == 2
    recorder.check_once()


async def test_a_stop_gives_back_what_waits_in_a_processor_that_goes() -> None:
    recorder = ReturningRecorder()
    pipeline = Busy(
        producer=ManualProducer(*recorder.messages(range(8))),
        processors=Processors(concurrency=2, max_demand=4, min_demand=0),
    )
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    pipeline.set_concurrency(processors=1)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(1.0)
    report = await soon(stopping)

    assert (report.in_time, len(recorder.returned), len(recorder.successful)) == (True, 6, 2)
    recorder.check_once()


async def test_a_processor_that_joined_counts_when_it_crashes_once_too_often() -> None:
    hold = asyncio.Event()

    class Failing(Pipeline[Any]):
        processors = Processors(concurrency=1, max_demand=1)
        max_restarts = 0

        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 1:
                await hold.wait()
            message.fail("always")

    recorder = Recorder()
    producer = ManualProducer(recorder.message(1))
    pipeline = Failing(producer=producer)
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    pipeline.set_concurrency(processors=2)
    pipeline._meters["processors"].failed = Breaking()
    producer.feed.put(recorder.message(2))
    await clock.advance(0.1)
    await clock.advance(30.0)

    with pytest.raises(PipelineCrashed) as raised:
        await soon(pipeline.wait())
    assert str(raised.value) == (
        "pipeline 'Failing': processors crashed too often (OSError: see the log); raise max_restarts if this is "
        "expected"
    )
    recorder.check_once()
    check_books(pipeline)


async def test_a_crash_of_a_processor_that_joined_is_mended() -> None:
    recorder = Recorder()

    class Failing(Busy):
        async def handle_message(self, message: Message[Any]) -> None:
            await super().handle_message(message)
            message.fail("always")

    pipeline = Failing(producer=ManualProducer(*recorder.messages(range(10))))
    async with running(pipeline) as clock:
        await clock.advance(0.1)
        pipeline.set_concurrency(processors=4)
        pipeline._meters["processors"].failed = Breaking()
        await clock.advance(30.0)

    assert outcomes(pipeline) == {"rejected": 10}
    recorder.check_once()


async def test_with_partition_by_it_is_refused() -> None:
    pipeline = Quiet(producer=ManualProducer(), partition_by=lambda _: 0)
    async with running(pipeline):
        with pytest.raises(OptionsError) as raised:
            pipeline.set_concurrency(processors=2)

    assert str(raised.value) == (
        "processors.concurrency: cannot change while the pipeline runs, because partition_by gives each key to one "
        "processor by their number; stop the pipeline and start it with the new one"
    )


async def test_a_number_below_one_is_refused_and_changes_nothing() -> None:
    pipeline = Busy(producer=ManualProducer())
    async with running(pipeline):
        with pytest.raises(OptionsError) as raised:
            pipeline.set_concurrency(processors=0)
        assert concurrency(pipeline) == 2

    assert str(raised.value) == "processors.concurrency: expected greater than or equal to 1, got 0"


async def test_a_pipeline_that_does_not_run_has_no_processors_to_change() -> None:
    pipeline = Busy(producer=ManualProducer())
    with pytest.raises(PipelineNotRunning) as before:
        pipeline.set_concurrency(processors=3)
    async with running(pipeline):
        pass
    with pytest.raises(PipelineNotRunning) as after:
        pipeline.set_concurrency(processors=3)

    assert str(before.value) == "set_concurrency(): pipeline 'Busy' is new; start it first"
    assert str(after.value) == "set_concurrency(): pipeline 'Busy' is stopped"


async def test_a_pipeline_that_drains_is_not_resized() -> None:
    pipeline = Busy(producer=ManualProducer(1))
    clock = clock_of(pipeline)
    await pipeline.start()
    await clock.advance(0.1)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(0.1)
    with pytest.raises(PipelineNotRunning) as raised:
        pipeline.set_concurrency(processors=3)
    await clock.advance(1.0)
    await soon(stopping)

    assert str(raised.value) == "set_concurrency(): pipeline 'Busy' is draining"


# --- at random ------------------------------------------------------------------------------------------------------


@dataclass
class Plan:
    """One story: what is done to the pipeline, and how it ends."""

    actions: list[tuple[str, int]]
    concurrency: int
    max_demand: int
    batch_size: int
    spawns: bool
    returns: bool
    timeout: float | None
    cap: int | None
    ends: bool


plans = st.builds(
    Plan,
    actions=st.lists(
        st.tuples(st.sampled_from(["put", "put", "advance", "advance", "resize", "resize", "pause", "resume"]),
                  st.integers(1, 8)),
        max_size=25,
    ),
    concurrency=st.integers(1, 4),
    max_demand=st.integers(1, 5),
    batch_size=st.integers(0, 4),
    spawns=st.booleans(),
    returns=st.booleans(),
    timeout=st.sampled_from([None, None, 0.5]),
    cap=st.sampled_from([None, 1, 3]),
    ends=st.booleans(),
)  # fmt: skip


class Resized(Pipeline[Any]):
    """Handlers that take their time by the message's number, and sometimes fail."""

    spawns = False

    async def handle_message(self, message: Message[Any]) -> None:
        number = int(message.data)
        await self.clock.sleep(0.1 * (number % 7))
        if number % 11 == 10:
            raise ValueError("a callback raised")
        if self.spawns and number % 3 == 0:
            for _ in range(number % 4):
                message.spawn(str(number + 1))

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        await self.clock.sleep(0.2)
        if int(messages[0].data) % 5 == 4:
            messages[0].fail("in a batch")


async def tell(plan: Plan) -> None:
    recorder = ReturningRecorder() if plan.returns else Recorder()
    producer = ManualProducer()
    pipeline = Resized(
        producer=producer,
        processors=Processors(concurrency=plan.concurrency, max_demand=plan.max_demand, timeout=plan.timeout),
        batchers={"default": Batcher(batch_size=plan.batch_size, batch_timeout=0.5)} if plan.batch_size else {},
        max_in_flight_bytes=plan.cap,
    )
    pipeline.spawns = plan.spawns
    clock = clock_of(pipeline)
    await pipeline.start()
    made = 0
    calls = []
    for action, number in plan.actions:
        match action:
            case "put":
                producer.feed.put(*(recorder.message(str(n)) for n in range(made, made + number)))
                made += number
            case "advance":
                await clock.advance(0.1 * number)
            case "resize":
                pipeline.set_concurrency(processors=number)
                assert concurrency(pipeline) == number
            case "pause":
                calls.append(asyncio.ensure_future(pipeline.pause()))
            case "resume":
                calls.append(asyncio.ensure_future(pipeline.resume()))
        check_books(pipeline)
    stopping = None
    if plan.ends and not pipeline.is_paused:
        await asyncio.gather(*calls)
        await pipeline.resume()
        producer.feed.end()
        await clock.advance(200.0)
        assert not pipeline.is_running, "the source has ended, and so must the pipeline"
        assert not producer.feed.items
    else:
        stopping = asyncio.ensure_future(pipeline.stop())
        await clock.advance(30.0)
        assert stopping.done(), "the pipeline did not end by its deadline"
        assert stopping.result().in_time
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    assert recorder.count == received(pipeline) == made - len(producer.feed.items)
    assert outcomes(pipeline).get("unknown", 0) == 0
    recorder.check_once()
    await asyncio.gather(*calls, return_exceptions=True)


@given(plan=plans)
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_resized_paused_and_stopped_at_any_moment_each_delivery_is_settled_once(plan: Plan) -> None:
    async def story() -> None:
        async with asyncio.timeout(DEADLINE * 4):
            await tell(plan)

    asyncio.run(story())
