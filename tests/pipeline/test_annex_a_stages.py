"""Two defects of the original: a stop that takes longer for each stuck stage, and siblings that lose messages."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from tests.pipeline.support import (
    Breaking,
    Call,
    ManualProducer,
    Recorder,
    ReturningRecorder,
    clock_of,
    outcomes,
    running,
    soon,
)
from tests.support.conformance import conforms


class Stuck(Pipeline[Any]):
    """Every stage that has anything to do waits for the gate; ``"batch"`` goes on to a batch processor first."""

    processors = Processors(concurrency=3, max_demand=1)
    batchers = {"default": Batcher(batch_size=1)}  # noqa: RUF012  # never changed

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.gate = asyncio.Event()
        self.stuck = asyncio.Semaphore(0)

    async def wait(self) -> None:
        self.stuck.release()
        await self.gate.wait()

    async def handle_message(self, message: Message[Any]) -> None:
        if message.data == "bad":
            message.fail("bad")
        elif message.data != "batch":
            await self.wait()

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        await self.wait()

    async def until_stuck(self, stages: int) -> None:
        for _ in range(stages):
            await soon(self.stuck.acquire())


async def start_stuck(recorder: Recorder) -> Stuck:
    """Three processors and a batch processor, none of which will ever end."""
    pipeline = Stuck(producer=ManualProducer(*recorder.messages(["batch", 1, 2, 3])))
    clock_of(pipeline)
    await soon(pipeline.start())
    await pipeline.until_stuck(4)
    return pipeline


@conforms("B-091")
async def test_the_time_of_a_drain_is_one_however_many_stages_are_stuck() -> None:
    recorder = ReturningRecorder()
    pipeline = await start_stuck(recorder)

    stopping = asyncio.ensure_future(pipeline.stop(timeout=10.0))
    await clock_of(pipeline).advance(10.0)

    assert stopping.done()
    assert not stopping.result().in_time
    assert stopping.result().outcomes["returned"] == 4
    recorder.check_once()


async def test_what_hangs_while_it_is_given_back_gets_no_time_of_its_own() -> None:
    async def hang(call: Call) -> None:
        await asyncio.Event().wait()

    recorder = ReturningRecorder(hang)
    pipeline = await start_stuck(recorder)

    stopping = asyncio.ensure_future(pipeline.stop(timeout=10.0))
    await clock_of(pipeline).advance(9.9)
    assert not stopping.done()
    await clock_of(pipeline).advance(0.1)

    assert recorder.count == 4
    assert (await soon(stopping)).outcomes["unknown"] == 4


@conforms("B-075", "B-076")
async def test_what_waits_in_front_of_the_siblings_of_a_crashed_stage_is_handled() -> None:
    recorder = Recorder()
    # Two lists of four: the first half of each is in hand, the second waits in front of its processor.
    producer = ManualProducer(*recorder.messages([1, 2, 3, 4, "bad", 6, 7, 8]))
    pipeline = Stuck(producer=producer, processors=Processors(concurrency=2, max_demand=4, min_demand=2), batchers={})
    pipeline._meters["processors"].failed = Breaking()

    async with running(pipeline) as clock:
        await pipeline.until_stuck(2)
        await clock.advance(0.0)
        pipeline.gate.set()
        await clock.advance(1.0)
        await recorder.until(8)

    assert sorted(recorder.successful) == [1, 2, 3, 4, 7, 8]
    assert {data: status.cause for data, status in recorder.statuses.items()} == {"bad": "crashed", 6: "crashed"}
    assert outcomes(pipeline) == {"acked": 6, "rejected": 2}
