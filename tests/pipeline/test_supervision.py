"""Crashes of stages: what was in hand fails, the stage starts again, and too many crashes end the pipeline.

A stage is made to crash by figures that cannot be written (:class:`Breaking`), by a dispatcher that breaks, or by a
producer with a bug: what user code raises in a callback crashes nothing.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from contextvars import Context, ContextVar
from typing import Any

import pytest

from broadway_py import Batcher, BatchInfo, Message, Pipeline, PipelineCrashed, Processors, RateLimit
from broadway_py._core.dispatch import DemandDispatcher
from broadway_py.pipeline.callbacks.in_loop import LoopRunner
from broadway_py.producers import Producer, ProducerDescription
from tests.pipeline.support import (
    ONE,
    Breaking,
    Call,
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    check_books,
    clock_of,
    in_flight,
    logged,
    outcomes,
    received,
    running,
    soon,
)
from tests.support.conformance import conforms


class Fragile(Pipeline[Any]):
    """``"bad"`` fails, which crashes a stage whose figures are broken. Notes what it handled."""

    processors = Processors(concurrency=1, max_demand=2, min_demand=1)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handled: list[Any] = []
        self.batches: list[list[Any]] = []

    async def handle_message(self, message: Message[Any]) -> None:
        self.handled.append(message.data)
        if message.data == "bad":
            message.fail("bad")

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        self.batches.append([message.data for message in messages])
        for message in messages:
            if message.data == "bad batch":
                message.fail("bad")


def break_figures(pipeline: Pipeline[Any], layer: str, times: int = 1) -> None:
    """Let the stages of *layer* crash the first *times* they count a failure."""
    pipeline._meters[layer].failed = Breaking(times)


class BreaksOnce(DemandDispatcher[Any, Any]):
    """Breaks when something comes through it for the first time; serves *edges*, which have asked for all they may."""

    def __init__(self, edges: Sequence[Any]) -> None:
        super().__init__()
        self._demand = {edge: edge.credit.max_demand for edge in edges}
        self._broken = False

    def take_whole(self, count: int) -> Any:
        return super().take_whole(count) if self._broken else None

    def dispatch(self, events: Sequence[Any]) -> Any:
        if not self._broken:
            self._broken = True
            raise OSError("the dispatcher is broken")
        return super().dispatch(events)


def break_outlet(pipeline: Pipeline[Any], stage: str) -> None:
    """Let the first *stage* crash when it sends something on; it must have sent nothing yet."""
    run = pipeline._life_cycle.run
    assert run is not None
    stages: dict[str, Any] = {
        "source": run.stages.sources[0],
        "processor": run.stages.processors[0],
    }
    if run.stages.batchers:
        stages["batcher"] = run.stages.batchers[0]
    outlet = stages[stage].outlet
    outlet._dispatcher = BreaksOnce(outlet._edges)


def stages_of(pipeline: Pipeline[Any]) -> set[asyncio.Task[Any]]:
    """The stages' tasks."""
    return {task for task in asyncio.all_tasks() if task.get_name().startswith(f"{pipeline.name}.")}


# --- producers


@conforms("B-072", "B-073")
async def test_a_source_that_crashes_starts_again_alone_and_the_processors_go_on() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2]))
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await recorder.until(2)
        producer.feed.fail(ZeroDivisionError("a bug"))
        producer.feed.put(recorder.message(3))
        await clock.advance(1.0)
        assert recorder.successful == [1, 2, 3]
        assert pipeline.stats().restarts == 1

    assert producer.feed.journal.count("opened") == 2
    assert outcomes(pipeline) == {"acked": 3}


async def test_the_log_of_a_crash_tells_the_place_and_not_the_text(caplog: pytest.LogCaptureFixture) -> None:
    producer = ManualProducer()
    async with running(Quiet(producer=producer)) as clock:
        producer.feed.fail(ValueError("amqp://guest:canary@host"))
        await clock.advance(1.0)

    (line,) = logged(caplog)
    assert line.pop("at").endswith(" handle_demand")
    assert line == {
        "event": "a stage crashed",
        "pipeline": "Quiet",
        "stage": "producer:manual",
        "index": 0,
        "messages": 0,
        "exception": "ValueError",
    }
    assert "canary" not in caplog.text


@pytest.mark.parametrize("where", ["create", "open"])
async def test_a_source_that_crashes_while_it_opens_starts_again(where: str) -> None:
    producer = ManualProducer(1)

    class Buggy(ProducerDescription):
        def create(self) -> Producer:
            producer.feed.note("create")
            if where == "create" and producer.feed.journal.count("create") == 1:
                raise ZeroDivisionError
            return copy.copy(producer)

    if where == "open":
        producer.feed.opening.append(ZeroDivisionError())
    pipeline = Quiet(producer=Buggy())

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert outcomes(pipeline) == {"acked": 1}


async def test_a_source_that_crashes_loses_nothing_that_waits_behind_the_rate_limit() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(range(4)))
    pipeline = Quiet(producer=producer, rate_limit=RateLimit(allowed_messages=1, interval=10.0))

    async with running(pipeline) as clock:
        await clock.advance(31.0)
        producer.feed.fail(ZeroDivisionError())
        await clock.advance(60.0)

    assert recorder.successful == [0, 1, 2, 3]


# --- processors


@conforms("B-074", "B-076")
async def test_a_processor_that_crashes_fails_what_it_had_in_hand_and_handles_what_comes_later() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, "bad", 3, 4, 5, 6]))
    pipeline = Fragile(producer=producer, processors=ONE)
    break_figures(pipeline, "processors")

    async with running(pipeline) as clock:
        await clock.advance(1.0)
        assert pipeline.stats().restarts == 1

    assert pipeline.handled == [1, "bad", 3, 4, 5, 6]
    assert recorder.successful == [6]
    assert recorder.failed == [1, "bad", 3, 4, 5]
    assert {status.cause for status in recorder.statuses.values()} == {"crashed"}
    assert recorder.statuses[1].reason == "processors crashed: OSError"
    recorder.check_once()


async def test_a_crash_between_two_messages_of_a_chunk_leaves_nothing_behind_for_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting, go_on = asyncio.Event(), asyncio.Event()
    mark: ContextVar[str] = ContextVar("mark")

    async def crash(runner: LoopRunner, base: Context) -> Context:
        # As a defect of ours would: by now no value of a handler crashes its processor.
        raise RuntimeError("a defect")

    class Odd(Fragile):
        async def handle_message(self, message: Message[Any]) -> Any:
            if message.data == "wait":
                waiting.set()
                await go_on.wait()
            if message.data == "odd":
                monkeypatch.setattr(LoopRunner, "_fresh", crash)
                mark.set("so that the context is exchanged")

    takes_back, stays = ReturningRecorder(), Recorder()
    producer = ManualProducer()
    pipeline = Odd(producer=producer, processors=Processors(concurrency=1, max_demand=10, min_demand=0))
    async with running(pipeline) as clock:
        producer.feed.put(takes_back.message("wait"), takes_back.message("back"), stays.message("odd"))
        await soon(waiting.wait())
        await soon(pipeline.pause())
        go_on.set()
        await clock.advance(1.0)
        assert takes_back.returned == ["back"]
        assert stays.failed == ["odd"]
        monkeypatch.undo()
        # Whoever takes back what was not started must not look for a message that is long gone.
        await soon(pipeline.pause())
        run = pipeline._life_cycle.run
        assert run is not None
        # An identity may come again with another message, which would be left out.
        assert run.stages.processors[0]._runner.taken == set()
        await soon(pipeline.resume())
        producer.feed.put(takes_back.message("later"))
        await clock.advance(1.0)
        assert takes_back.successful == ["later"]


@conforms("B-075")
async def test_a_processor_that_crashes_takes_nobody_with_it() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(["bad"]))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=2)})
    break_figures(pipeline, "processors")

    async with running(pipeline) as clock:
        before = stages_of(pipeline)
        await clock.advance(1.0)
        producer.feed.put(*recorder.messages([1, 2]))
        await recorder.until(3)
        assert stages_of(pipeline) == before

    assert producer.feed.journal.count("opened") == 1


@conforms("B-077")
async def test_batches_form_without_what_was_lost_in_a_crash() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2]))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=4)})
    break_figures(pipeline, "processors")

    async with running(pipeline) as clock:
        await clock.advance(0.1)
        producer.feed.put(recorder.message("bad"))
        await clock.advance(0.3)
        producer.feed.put(*recorder.messages([3, 4]))
        await recorder.until(5)

    assert pipeline.batches == [[1, 2, 3, 4]]


@pytest.mark.parametrize("layer", ["processors", "batch_processors:default"])
async def test_a_stage_that_has_crashed_many_times_still_asks_for_as_much_as_before(layer: str) -> None:
    recorder = Recorder()
    items = ["bad" if layer == "processors" else "bad batch"] * 30
    producer = ManualProducer(*recorder.messages(items))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=1)}, max_restarts=1000)
    break_figures(pipeline, layer, times=20)

    async with running(pipeline) as clock:
        await clock.advance(600.0)
        assert recorder.count == 30

    assert pipeline.stats().restarts == 20
    recorder.check_once()


async def test_what_failed_by_a_crash_is_counted_with_its_cause() -> None:
    producer = ManualProducer(1, "bad")
    pipeline = Fragile(producer=producer)
    break_figures(pipeline, "processors")

    async with running(pipeline) as clock:
        await clock.advance(1.0)

    (figures,) = pipeline.stats().stages
    assert figures.failed["crashed"] >= 1
    assert figures.busy_seconds < 1.0


# --- batchers


@conforms("B-078", "B-079")
async def test_a_batcher_that_crashes_starts_again_alone_and_makes_later_batches() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2]))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=2)})

    async with running(pipeline) as clock:
        break_outlet(pipeline, "batcher")
        tasks = stages_of(pipeline)
        await recorder.until(2)
        await clock.advance(1.0)
        producer.feed.put(*recorder.messages([3, 4]))
        await recorder.until(4)
        assert stages_of(pipeline) == tasks

    assert pipeline.batches == [[3, 4]]
    assert recorder.statuses.keys() == {1, 2}
    assert {status.cause for status in recorder.statuses.values()} == {"crashed"}
    assert producer.feed.journal.count("opened") == 1


@conforms("B-080")
async def test_the_batch_being_handled_is_settled_although_its_batcher_crashes() -> None:
    gate = asyncio.Event()

    class Slow(Fragile):
        async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
            await gate.wait()
            await super().handle_batch(messages, info)

    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2]))
    pipeline = Slow(producer=producer, batchers={"default": Batcher(batch_size=2)})

    async with running(pipeline) as clock:
        await clock.advance(0.1)
        break_outlet(pipeline, "batcher")
        producer.feed.put(*recorder.messages([3, 4]))
        await clock.advance(0.1)
        gate.set()
        await clock.advance(1.0)
        producer.feed.put(*recorder.messages([5, 6]))
        await recorder.until(6)

    assert pipeline.batches == [[1, 2], [5, 6]]
    assert recorder.successful == [1, 2, 5, 6]
    assert recorder.failed == [3, 4]
    recorder.check_once()


async def test_messages_that_waited_in_an_open_batch_are_not_lost_when_the_batcher_crashes() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2, 3]))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=4)})

    async with running(pipeline) as clock:
        break_outlet(pipeline, "batcher")
        await clock.advance(0.1)
        producer.feed.put(recorder.message(4))
        await clock.advance(5.0)
        assert in_flight(pipeline) == 0

    assert recorder.count == 4
    recorder.check_once()


@pytest.mark.parametrize("stage", ["source", "processor", "batcher"])
async def test_a_dispatcher_that_breaks_loses_nothing(stage: str) -> None:
    recorder = Recorder()
    producer = ManualProducer()
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=2)})

    async with running(pipeline) as clock:
        break_outlet(pipeline, stage)
        producer.feed.put(*recorder.messages([1, 2, 3, 4]))
        await clock.advance(10.0)
        assert in_flight(pipeline) == 0

    assert recorder.count == received(pipeline) == 4
    assert pipeline.stats().restarts == 1
    recorder.check_once()


# --- batch processors


async def test_a_batch_processor_that_crashes_fails_its_batch_and_handles_the_next() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, "bad batch", 3, 4]))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=2)})
    break_figures(pipeline, "batch_processors:default")

    async with running(pipeline) as clock:
        await clock.advance(1.0)

    assert pipeline.batches == [[1, "bad batch"], [3, 4]]
    assert recorder.successful == [3, 4]
    assert recorder.failed == [1, "bad batch"]
    assert recorder.statuses[1].reason == "batch_processors:default crashed: OSError"


# --- too many


@conforms("B-086")
async def test_a_stage_that_crashes_once_too_often_ends_the_pipeline_with_the_whole_sentence() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(["bad"] * 10))
    pipeline = Fragile(producer=producer)
    break_figures(pipeline, "processors", times=10)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    waiting = asyncio.ensure_future(pipeline.wait())
    await clock.advance(20.0)

    with pytest.raises(PipelineCrashed) as crashed:
        await soon(waiting)

    assert str(crashed.value) == (
        "pipeline 'Fragile': processors crashed too often (OSError: see the log); "
        "raise max_restarts if this is expected"
    )
    assert isinstance(crashed.value.__cause__, OSError)
    assert pipeline.phase == "crashed"
    assert pipeline.stats().restarts == 4
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    assert recorder.count == received(pipeline)
    assert producer.feed.journal[-1] == "close"


async def test_crashes_that_lie_far_apart_do_not_add_up() -> None:
    producer = ManualProducer()
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        for number in range(1, 11):
            await producer.feed.until("demand", number)
            producer.feed.fail(ZeroDivisionError())
            await clock.advance(10.0)

    assert pipeline.stats().restarts == 10


async def test_with_no_restarts_the_first_crash_is_the_last() -> None:
    producer = ManualProducer()
    pipeline = Quiet(producer=producer, max_restarts=0)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    producer.feed.fail(ZeroDivisionError())

    waiting = asyncio.ensure_future(pipeline.wait())
    await clock.advance(10.0)
    with pytest.raises(PipelineCrashed):
        await soon(waiting)


async def test_a_crashed_pipeline_gives_back_what_is_in_flight_and_has_time_for_it() -> None:
    gate = asyncio.Event()

    async def slow(call: Call) -> None:
        await gate.wait()

    recorder = ReturningRecorder(slow)

    class Hanging(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            await asyncio.Event().wait()

    crashing = ManualProducer(name="crashing")
    pipeline = Hanging(producer=[ManualProducer(*recorder.messages([1, 2, 3]), name="good"), crashing], max_restarts=0)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.0)
    crashing.feed.fail(ZeroDivisionError())
    await recorder.until(3)
    await clock.advance(1.0)
    gate.set()
    await soon(asyncio.wait({asyncio.ensure_future(pipeline.wait())}))

    assert outcomes(pipeline) == {"returned": 3}
    assert in_flight(pipeline) == 0


async def test_an_exception_that_is_no_exception_ends_the_pipeline_and_loses_nothing() -> None:
    class Strange(BaseException):
        pass

    class Raises(Quiet):
        async def handle_message(self, message: Message[Any]) -> None:
            if message.data == 2:
                raise Strange

    recorder = ReturningRecorder()
    pipeline = Raises(producer=ManualProducer(*recorder.messages([1, 2, 3])))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(30.0)
    waiting = asyncio.ensure_future(pipeline.wait())
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    await soon(asyncio.wait({waiting, stopping}))

    assert in_flight(pipeline) == 0
    assert recorder.count == 3
    recorder.check_once()
    waiting.exception()
    stopping.exception()


@pytest.mark.parametrize(
    "layer", ["producer:manual.0", "processors.0", "batcher:default.0", "batch_processors:default.0"]
)
async def test_a_stage_that_somebody_cancels_is_a_crash_and_loses_nothing(layer: str) -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages([1, 2]))
    pipeline = Fragile(producer=producer, batchers={"default": Batcher(batch_size=2)})

    async with running(pipeline) as clock:
        await recorder.until(2)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name() == f"Fragile.{layer}"]
        task.cancel()
        await clock.advance(1.0)
        if pipeline.is_running:
            producer.feed.put(*recorder.messages([3, 4]))
            await recorder.until(4)

    assert recorder.count == received(pipeline)


async def test_a_stop_does_not_wait_for_the_back_off_of_a_crashed_stage() -> None:
    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(["bad", 1]))
    pipeline = Fragile(producer=producer)
    break_figures(pipeline, "processors")

    async with running(pipeline):
        await recorder.until(1)

    assert recorder.count == received(pipeline)


async def test_a_crash_while_draining_does_not_keep_the_drain_from_ending() -> None:
    gate = asyncio.Event()

    class Slow(Fragile):
        async def handle_message(self, message: Message[Any]) -> None:
            await gate.wait()
            await super().handle_message(message)

    recorder = Recorder()
    producer = ManualProducer(*recorder.messages(["bad"] * 6))
    pipeline = Slow(producer=producer, processors=ONE, max_restarts=0)
    break_figures(pipeline, "processors", times=10)
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(0.0)
    gate.set()
    await clock.advance(6.0)
    await soon(stopping)

    assert in_flight(pipeline) == 0
    assert recorder.count == received(pipeline)
    recorder.check_once()


async def test_two_pipelines_in_one_loop_do_not_feel_each_others_crash() -> None:
    crashing = ManualProducer()
    one = Quiet(name="one", producer=crashing, max_restarts=0)
    two = Quiet(name="two")
    async with running(two):
        clock = clock_of(one)
        await soon(one.start())
        crashing.feed.fail(ZeroDivisionError())
        waiting = asyncio.ensure_future(one.wait())
        await clock.advance(10.0)
        with pytest.raises(PipelineCrashed):
            await soon(waiting)
        assert (await soon(two.submit(1))).ok
