"""A pipeline on a real RabbitMQ that is stopped or paused at any moment: what it has not finished is on the queue."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from broadway_py import Batcher, Pipeline, Processors, RateLimit
from tests.integration.aftermath import until_connected, until_lost
from tests.integration.gated_pipelines import (
    PREFETCH,
    Hands,
    Work,
    WorkInBatches,
    assert_none_lost,
    at_work,
    source,
)
from tests.pipeline.support import check_books, outcomes
from tests.support.conformance import conforms
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy

pytestmark = [pytest.mark.integration, pytest.mark.faults]


# --- stops ------------------------------------------------------------------------------------------------------------


async def stopped(
    pipeline: Pipeline[Any], *, within: float, in_time: bool = True, timeout: float | None = None
) -> None:
    began = time.monotonic()
    report = await pipeline.stop(timeout)
    assert time.monotonic() - began < within
    assert report.in_time is in_time
    assert {outcome: count for outcome, count in report.outcomes.items() if count} == outcomes(pipeline)


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_a_stop_while_connecting_takes_no_time(job: Job, hands: Hands, proxy: FaultProxy, fault: str) -> None:
    await job.publish(10)
    pipeline = Work(producer=source(job, proxy), context=hands)
    if fault == "refused":
        await proxy.refuse()
    else:
        proxy.black_hole()
    async with at_work(pipeline, job.broker):
        if fault == "refused":
            await eventually(lambda: "refused" in (pipeline.stats().trouble or ""), what="it was refused")
        else:
            await proxy.until_connections(1)
        await stopped(pipeline, within=2)
        assert outcomes(pipeline) == {}
        proxy.heal()
    await job.broker.until(ready=10, unacked=0)


async def test_a_stop_while_paused_gives_everything_back(job: Job, hands: Hands) -> None:
    await job.publish(500)
    hands.gate.clear()
    pipeline = Work(producer=source(job), context=hands, processors=Processors(concurrency=2, max_demand=1))
    async with at_work(pipeline, job.broker):
        await job.broker.until(ready=400, unacked=100)
        await eventually(lambda: hands.begun == 2, what="two are in hand")
        await pipeline.pause()
        await job.broker.until(ready=498, unacked=2)
        hands.gate.set()
        await job.broker.until(ready=498, unacked=0)
        await stopped(pipeline, within=2)
    assert job.notes == 2
    await job.broker.until(ready=498, unacked=0)


@pytest.mark.parametrize("finishes", [True, False])
async def test_a_stop_with_full_batches_finishes_them_or_gives_them_back(
    job: Job, hands: Hands, *, finishes: bool
) -> None:
    await job.publish(500)
    hands.gate.clear()
    batcher = Batcher(batch_size=15, batch_timeout=60)
    pipeline = WorkInBatches(producer=source(job), context=hands, batchers={"default": batcher})
    async with at_work(pipeline, job.broker):
        await job.broker.until(ready=400, unacked=100)
        await eventually(lambda: hands.begun == 1, what="a batch is in hand")
        stopping = asyncio.create_task(stopped(pipeline, within=5, in_time=finishes, timeout=None if finishes else 2))
        if finishes:
            await eventually(lambda: pipeline.phase == "draining", what="the drain has begun")
            hands.gate.set()
        await stopping
    handled = job.notes
    assert (handled > 0) is finishes
    assert job.counted.duplicates == {}
    assert job.counted.strangers == []
    # What was not handled is on the queue, and nothing else.
    await job.broker.until(ready=500 - handled, unacked=0)
    assert len(job.counted.missing) == 500 - handled
    assert outcomes(pipeline).get("acked", 0) == handled


async def test_a_stop_behind_the_rate_limit_gives_back_what_was_not_let_through(job: Job, hands: Hands) -> None:
    await job.publish(500)
    limit = RateLimit(allowed_messages=10, interval=3_600)
    pipeline = Work(producer=source(job), context=hands, rate_limit=limit)
    async with at_work(pipeline, job.broker):
        await job.until_noted(10)
        await job.broker.until(ready=390, unacked=100)
        await stopped(pipeline, within=2)
    assert job.notes == 10
    assert job.counted.duplicates == {}
    await job.broker.until(ready=490, unacked=0)


async def test_a_stop_on_a_silent_network_ends_in_time_and_what_was_not_told_comes_again(
    job: Job, hands: Hands, proxy: FaultProxy
) -> None:
    await job.publish(500)
    hands.gate.clear()
    pipeline = Work(producer=source(job, proxy), context=hands)
    async with at_work(pipeline, job.broker):
        await job.broker.until(ready=400, unacked=100)
        await eventually(lambda: hands.begun > 0, what="something is in hand")
        proxy.black_hole()
        hands.gate.set()
        await job.until_noted(hands.begun)
        # The consumer cannot be cancelled, for nobody answers; that is not waited for until the deadline.
        await stopped(pipeline, within=10, timeout=15)
        check_books(pipeline)
        proxy.reset()
        proxy.heal()
        await job.broker.until(ready=500, unacked=0)
    second = Work(producer=source(job, proxy), context=hands)
    async with at_work(second, job.broker):
        await job.until_empty()
    assert_none_lost(job)
    assert len(job.counted.duplicates) <= PREFETCH


@conforms("R-050")
async def test_a_stop_in_the_middle_of_a_broken_connection_loses_nothing(
    job: Job, hands: Hands, proxy: FaultProxy
) -> None:
    await job.publish(1_000)
    limit = RateLimit(allowed_messages=100, interval=0.1)
    pipeline = WorkInBatches(
        producer=source(job, proxy), context=hands, rate_limit=limit, batchers={"default": Batcher(batch_size=30)}
    )
    async with at_work(pipeline, job.broker):
        await job.until_noted(200)
        proxy.reset()
        await stopped(pipeline, within=5)
    second = WorkInBatches(producer=source(job, proxy), context=hands, batchers={"default": Batcher(batch_size=30)})
    async with at_work(second, job.broker):
        await job.until_empty()
    assert_none_lost(job)
    assert len(job.counted.duplicates) <= PREFETCH


# --- pause and resume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_demand", [1, 10])
async def test_a_paused_pipeline_holds_nothing_unstarted_and_goes_on_when_resumed(
    job: Job, hands: Hands, max_demand: int
) -> None:
    await job.publish(500)
    hands.gate.clear()
    processors = Processors(concurrency=3, max_demand=max_demand)
    pipeline = Work(producer=source(job), context=hands, processors=processors)
    async with at_work(pipeline, job.broker):
        await job.broker.until(ready=400, unacked=100)
        await eventually(lambda: hands.begun == 3, what="each processor has one in hand")
        async with asyncio.timeout(5):
            await pipeline.pause()
            # Those that are in a handler stay; the rest goes back.
            await job.broker.until(ready=497, unacked=3)
        assert pipeline.stats().trouble == "paused"
        hands.gate.set()
        await job.broker.until(ready=497, unacked=0)
        assert job.notes == 3
        await job.publish(100)
        await job.broker.until(ready=597, unacked=0)

        await pipeline.resume()

        await job.until_empty()
        assert pipeline.stats().trouble is None
    assert_none_lost(job)
    assert job.counted.duplicates == {}


async def test_a_connection_that_breaks_during_a_pause_is_made_again_without_consuming(
    job: Job, hands: Hands, proxy: FaultProxy
) -> None:
    await job.publish(100)
    hands.gate.clear()
    pipeline = Work(producer=source(job, proxy), context=hands)
    async with at_work(pipeline, job.broker):
        await pipeline.ready(10)
        await pipeline.pause()
        proxy.cut()
        await until_lost(pipeline)
        await until_connected(pipeline)
        await job.broker.until(ready=100, unacked=0)
        hands.gate.set()
        await pipeline.resume()
        await job.until_empty()
    assert_none_lost(job)
