"""Windows on a real RabbitMQ whose connections end: what comes back is not late, and what may be stored stays away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from broadway_py import Message, Pipeline, Processors, State
from broadway_py.metrics import PipelineCollector
from broadway_py.producers import RabbitMQProducer
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import Commit
from tests.integration.aftermath import until_connected, until_lost
from tests.integration.window_counts import START, all_are_in, check, emitted, publish
from tests.integration.window_pipelines import Counting
from tests.pipeline.support import check_books, in_flight, outcomes
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import Counts, RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.delivery_path("fast")]

#: Seconds between two heartbeats. The broker misses a silent client after two to three of them.
HEARTBEAT: Final = 2


class Gated(Counting):
    """Takes one message after the other through the gate, and notes their numbers."""

    processors = Processors(concurrency=1, max_demand=1)
    shutdown_timeout = 10.0

    async def handle_message(self, message: Message[dict[str, Any]]) -> None:
        await self.context["gate"].wait()
        self.context["handled"].append(message.data["number"])


def numbered(numbers: range, *, at: float) -> list[str]:
    """Messages of one key, all within ten seconds from *at* after the start."""
    return [json.dumps({"number": one, "at": START + at + (one - numbers[0]) / 100, "key": "key"}) for one in numbers]


def gated(folder: Path, broker: RabbitMQ, proxy: FaultProxy) -> Gated:
    """A pipeline by way of *proxy*; its gate is shut."""
    producer = RabbitMQProducer(
        "work",
        broker.through(proxy.port),
        prefetch_count=100,  # a dead connection that holds so many gets no more
        heartbeat=HEARTBEAT,
        on_failure="reject",
    )
    context = {"folder": str(folder), "gate": asyncio.Event(), "handled": []}
    return Gated(producer=producer, state=State(str(folder / "state.db")), context=context)


def held_by_the_reconnect(pipeline: Pipeline[Any]) -> float:
    """What the metric says."""
    registry = CollectorRegistry()
    registry.register(PipelineCollector(lambda: (pipeline.stats(),)))
    (value,) = (
        sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "broadway_watermark_held_seconds" and sample.labels["by"] == "reconnect"
    )
    return value


async def test_what_a_dead_connection_held_comes_back_late_and_is_not_late(
    job: Job, proxy: FaultProxy, tmp_path: Path
) -> None:
    """The broker believes in the dead connection for two heartbeats more, and delivers newer messages meanwhile."""
    broker = job.broker
    early, newer = numbered(range(100), at=0), numbered(range(100, 200), at=100)
    await publish(broker, early)
    pipeline = gated(tmp_path, broker, proxy)
    async with pipeline:
        await until_connected(pipeline)
        await broker.until(ready=0, unacked=100)
        proxy.strand()
        await until_lost(pipeline)
        await publish(broker, newer, first=100)
        await until_connected(pipeline)
        # Until now the message in the handler holds the watermark.
        pipeline.context["gate"].set()
        await eventually(lambda: held_by_the_reconnect(pipeline) > 0, what="the metric says what holds the watermark")
        await eventually(lambda: set(pipeline.context["handled"]) >= set(range(100, 200)), what="the newer are through")
        if held_by_the_reconnect(pipeline) > 0:
            assert emitted(tmp_path) == [], "the watermark stands"
        await all_are_in(tmp_path, 200)
        await broker.until(ready=0, unacked=0)
        assert held_by_the_reconnect(pipeline) == 0
        check_books(pipeline)
    check(tmp_path, [*early, *newer])
    assert await broker.counts("work.dead") == Counts(0, 0), "nothing was late"
    # By a count of its own: the early ones came a second time, after newer ones.
    handled = pipeline.context["handled"]
    assert handled.index(199) < handled.index(99)


class HangingStore(SQLiteStore):
    """Its first commit is stored, and does not return before the test says so."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.first: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.may_return = asyncio.Event()

    async def commit(self, commit: Commit) -> None:
        await super().commit(commit)
        if not self.first.done():
            self.first.set_result(len(commit.identities) // 16)
            await self.may_return.wait()


async def test_a_stop_that_runs_out_of_time_gives_back_nothing_that_may_be_stored(
    job: Job, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = job.broker
    stores: list[HangingStore] = []

    def hanging(path: str) -> HangingStore:
        stores.append(HangingStore(path))
        return stores[-1]

    sent = numbered(range(60), at=0)
    with monkeypatch.context() as patched:
        patched.setattr("broadway_py.pipeline.runtime.stores.SQLiteStore", hanging)
        pipeline = gated(tmp_path, broker, proxy)
        pipeline.context["gate"].set()
        await pipeline.start()
    await publish(broker, sent[:30])
    # One worker, in order: these are the first ones.
    stored = await stores[0].first
    await publish(broker, sent[30:], first=30)
    await eventually(lambda: len(pipeline.context["handled"]) == 60, what="all are handled")
    stopping = asyncio.create_task(pipeline.stop(1.0))
    # What is open is back when the connection is gone.
    await broker.until(ready=60, unacked=0)
    stores[0].may_return.set()
    report = await stopping
    assert not report.in_time
    assert outcomes(pipeline) == {"unknown": stored, "returned": 60 - stored}
    assert in_flight(pipeline) == 0
    again = gated(tmp_path, broker, proxy)
    again.context["gate"].set()
    async with again:
        await all_are_in(tmp_path, 60)
        await broker.until(ready=0, unacked=0)
    check(tmp_path, sent)
    assert await broker.counts("work.dead") == Counts(0, 0)
