"""``pause`` and ``resume``: a paused source is not read, and holds nothing that was not started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broadway_py import BroadwayError, Message, PipelineNotRunning, Processors, ProducerError, RateLimit
from broadway_py.producers import MemoryProducer
from tests.pipeline.support import (
    Call,
    ManualProducer,
    Quiet,
    Recorder,
    ReturningRecorder,
    clock_of,
    in_flight,
    outcomes,
    running,
    soon,
)


class Gated(Quiet):
    """Handlers wait for the gate."""

    processors = Processors(concurrency=1, max_demand=4, min_demand=0)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = asyncio.Event()
        self.inside = asyncio.Event()

    async def handle_message(self, message: Message[Any]) -> None:
        self.inside.set()
        await self.gate.wait()


async def test_a_paused_source_is_not_read_until_resume() -> None:
    recorder = Recorder()
    producer = ManualProducer(recorder.message(1))
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await recorder.until(1)
        before = pipeline.is_paused
        await soon(pipeline.pause())
        assert (before, pipeline.is_paused) == (False, True)
        stats = pipeline.stats()
        assert (stats.state, stats.trouble) == ("paused", "paused")
        await producer.feed.until("pause")
        await soon(pipeline.resume())
        assert pipeline.stats().state == "running"
        producer.feed.put(recorder.message(2))
        await recorder.until(2)
        await clock.advance(0.0)

    assert producer.feed.journal.count("resume") == 1


async def test_what_was_not_started_goes_back() -> None:
    recorder = ReturningRecorder()
    pipeline = Gated(
        producer=ManualProducer(*recorder.messages(range(30))),
        processors=Processors(concurrency=1, max_demand=8, min_demand=7),
    )

    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        await soon(pipeline.pause())
        await clock.advance(5.0)
        assert in_flight(pipeline) == 1
        assert recorder.returned == list(range(1, 8))
        pipeline.gate.set()
        await clock.advance(0.0)
        assert outcomes(pipeline) == {"acked": 1, "returned": 7}


async def test_what_waits_for_the_rate_limit_goes_back_too() -> None:
    recorder = ReturningRecorder()
    pipeline = Quiet(
        producer=ManualProducer(*recorder.messages(range(10))),
        rate_limit=RateLimit(allowed_messages=1, interval=3600.0),
    )

    async with running(pipeline) as clock:
        await recorder.until(1)
        await soon(pipeline.pause())
        await clock.advance(5.0)
        assert in_flight(pipeline) == 0
        assert outcomes(pipeline) == {"acked": 1, "returned": 9}


async def test_what_waits_for_its_partition_goes_back_too() -> None:
    recorder = ReturningRecorder()
    pipeline = Gated(
        producer=ManualProducer(*recorder.messages([1] * 12)),
        processors=Processors(concurrency=3, max_demand=4, min_demand=0),
        partition_by=lambda m: m.data,
    )

    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        await soon(pipeline.pause())
        await clock.advance(5.0)
        # The chunk that was begun stays; it holds at most max_demand.
        assert in_flight(pipeline) <= 4
        pipeline.gate.set()

    recorder.check_once()


async def test_what_comes_while_paused_goes_back_at_once() -> None:
    recorder = ReturningRecorder()
    producer = ManualProducer()
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("demand")
        await soon(pipeline.pause())
        producer.feed.put(recorder.message(1))
        await clock.advance(1.0)
        assert recorder.returned == [1]
        assert len(producer.feed.demands) == 1


async def test_nothing_is_lost_where_nothing_can_be_given_back() -> None:
    recorder = Recorder()
    pipeline = Gated(producer=MemoryProducer(recorder.messages(range(50))))

    async with running(pipeline) as clock:
        await soon(pipeline.inside.wait())
        await soon(pipeline.pause())
        pipeline.gate.set()
        await clock.advance(1.0)
        assert in_flight(pipeline) == 0
        assert len(recorder.successful) < 50
        await soon(pipeline.resume())
        await soon(pipeline.wait())

    assert recorder.successful == list(range(50))


async def test_a_source_that_connects_while_paused_is_paused_too() -> None:
    gate = asyncio.Event()
    producer = ManualProducer(1)
    producer.feed.opening.append(lambda: soon(gate.wait()))
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("open")
        await soon(pipeline.pause())
        gate.set()
        await clock.advance(1.0)
        assert producer.feed.journal == ["open", "opened", "pause"]
        await soon(pipeline.resume())
        await clock.advance(1.0)
        assert outcomes(pipeline) == {"acked": 1}


async def test_a_source_that_is_lost_while_paused_comes_back_paused() -> None:
    producer = ManualProducer()
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("demand")
        await soon(pipeline.pause())
        producer.feed.fail(ProducerError("gone"))
        await clock.advance(60.0)
        assert producer.feed.journal == ["open", "opened", "demand", "pause", "close", "open", "opened", "pause"]
        await soon(pipeline.resume())
        producer.feed.put(1)
        await clock.advance(1.0)
        assert outcomes(pipeline) == {"acked": 1}


@pytest.mark.parametrize("error", [ProducerError("gone"), asyncio.CancelledError()])
async def test_a_source_that_cannot_pause_is_opened_anew(error: BaseException) -> None:
    class Fails(ManualProducer):
        async def pause(self) -> None:
            await super().pause()
            if self.feed.journal.count("pause") == 1:
                self.feed.fail(ProducerError("gone too"))
                raise error

    producer = Fails()
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await producer.feed.until("demand")
        await soon(pipeline.pause())
        await clock.advance(60.0)
        assert producer.feed.journal.count("opened") == 2
        assert producer.feed.journal[-1] == "pause"
        await soon(pipeline.resume())
        producer.feed.put(1)
        await clock.advance(1.0)
        assert outcomes(pipeline) == {"acked": 1}


async def test_pausing_twice_and_resuming_twice_is_harmless() -> None:
    producer = ManualProducer(1, 2)
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await soon(asyncio.gather(pipeline.pause(), pipeline.pause()))
        await soon(pipeline.resume())
        await soon(pipeline.resume())
        await clock.advance(1.0)

    assert outcomes(pipeline) == {"acked": 2}


async def test_submit_works_after_resume() -> None:
    async with running(pipeline := Quiet()):
        await soon(pipeline.pause())
        submitting = asyncio.ensure_future(pipeline.submit(1))
        await soon(pipeline.resume())
        assert (await soon(submitting)).ok


@pytest.mark.parametrize("call", ["pause", "resume"])
async def test_a_pipeline_that_does_not_run_cannot_be_paused(call: str) -> None:
    pipeline = Quiet()
    with pytest.raises(PipelineNotRunning) as refused:
        await getattr(pipeline, call)()
    assert str(refused.value) == f"{call}(): pipeline 'Quiet' is new; start it first"

    async with running(pipeline):
        pass
    with pytest.raises(PipelineNotRunning):
        await getattr(pipeline, call)()


async def test_the_end_of_a_paused_source_is_not_missed() -> None:
    producer = ManualProducer(1)
    pipeline = Quiet(producer=producer)

    async with running(pipeline) as clock:
        await clock.advance(0.0)
        await soon(pipeline.pause())
        producer.feed.end()
        await clock.advance(1.0)
        await soon(pipeline.wait())


async def hang(call: Call) -> None:
    """A broker that does not answer."""
    await asyncio.Event().wait()


async def test_a_pause_whose_giving_back_hangs_ends_with_the_pipeline() -> None:
    recorder = ReturningRecorder(hang)
    pipeline = Gated(producer=ManualProducer(*recorder.messages(range(8))))
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await soon(pipeline.inside.wait())
    pausing = asyncio.ensure_future(pipeline.pause())
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    await soon(stopping)

    await soon(asyncio.wait({pausing}))
    assert in_flight(pipeline) == 0
    recorder.check_once()


async def test_who_submitted_while_giving_back_hangs_is_told_at_the_end() -> None:
    recorder = ReturningRecorder(hang)
    pipeline = Quiet()
    clock = clock_of(pipeline)
    await soon(pipeline.start())
    await clock.advance(0.0)
    await soon(pipeline.pause())
    await soon(pipeline.push_messages(recorder.messages([1])))
    submitting = asyncio.ensure_future(pipeline.submit(2))
    await clock.advance(1.0)
    stopping = asyncio.ensure_future(pipeline.stop())
    await clock.advance(30.0)
    await soon(stopping)

    with pytest.raises(BroadwayError):
        await soon(submitting)
    assert in_flight(pipeline) == 0
