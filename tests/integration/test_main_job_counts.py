"""The main job, counted from outside: what the broker confirmed, what handlers did, what the queue still holds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from broadway_py import Pipeline
from tests.integration.main_job_pipelines import InBatches, OneByOne, RaisesOnEveryTenth, is_tenth
from tests.support.counter import message_id
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually
from tests.support.main_job import Job, aside
from tests.support.rabbitmq import Counts, RabbitMQ

# What is looked at here is the same on every delivery path.
pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast")]


@pytest.mark.parametrize(
    ("count", "workers", "pipeline"),
    [(100_000, 1, InBatches), (30_000, 2, OneByOne)],
    ids=["100000-one-process", "30000-two-workers"],
)
async def test_every_message_is_handled_and_acked_once(
    tmp_path: Path, job: Job, count: int, workers: int, pipeline: type[Pipeline[Any]]
) -> None:
    with daemon(tmp_path, job.settings(pipeline), options=("--workers", str(workers))) as running:
        await job.publish(count)
        await job.until_noted(count)
        await job.until_empty()
        await job.stopped_cleanly(running)

    assert len(job.counted.published) == count
    assert job.counted.missing == []
    assert job.counted.duplicates == {}
    assert job.counted.strangers == []
    # Acked, not rejected; and a second ack of one delivery would have made the broker close the channel.
    assert await job.broker.counts("work.dead") == Counts(0, 0)
    assert lost_connections(running) == []
    await job.broker.until_alone()


def lost_connections(running: Daemon) -> list[dict[str, Any]]:
    return [line for line in running.log if line["event"] == "the source is not available; trying again"]


@pytest.mark.faults
@pytest.mark.parametrize("victim", ["the daemon", "all workers", "one worker"])
async def test_what_a_killed_process_had_in_hand_is_handled_by_the_next(tmp_path: Path, job: Job, victim: str) -> None:
    count, prefetch = 20_000, 500
    settings = job.settings(InBatches, producer={"prefetch_count": prefetch})
    workers = 1 if victim == "the daemon" else 2
    options = ("--workers", str(workers))
    await job.publish(count)
    with daemon(tmp_path, settings, options=options) as running:
        await job.until_noted(count // 4)
        assert job.notes < count, "it is killed in the middle"
        if victim == "one worker":
            os.kill(running.workers()[0], signal.SIGKILL)
            await aside(running.until_logged, "worker died; starting it again")
            await job.until_empty()
            await job.stopped_cleanly(running)
        else:
            os.killpg(running.process.pid, signal.SIGKILL)
            assert await aside(running.exit_code) == -signal.SIGKILL
    if victim != "one worker":
        with daemon(tmp_path, settings, options=options) as running:
            await job.until_empty()
            await job.stopped_cleanly(running)

    assert len(job.counted.published) == count
    assert job.counted.missing == []
    assert job.counted.strangers == []
    # At most what the broker had handed out came again.
    assert len(job.counted.duplicates) <= prefetch * workers
    assert await job.broker.counts("work.dead") == Counts(0, 0)
    await job.broker.until_alone()


async def test_exactly_the_messages_that_a_handler_raises_for_are_rejected(tmp_path: Path, job: Job) -> None:
    count = 5_000
    with daemon(tmp_path, job.settings(RaisesOnEveryTenth)) as running:
        await aside(running.until_ready)
        publishing = asyncio.create_task(job.publish(count))
        while not publishing.done():
            assert_adds_up(await aside(running.metrics))
        await publishing
        await job.until_empty()
        await eventually(lambda: job.notes == count * 9 // 10, what="the others are handled")
        scrape = await aside(running.metrics)
        await job.stopped_cleanly(running)

    expected = {one for one in job.counted.published if is_tenth(one)}
    assert len(expected) == count // 10
    assert await ids_on(job.broker, "work.dead") == Counter(expected)
    assert job.counted.handled == Counter(job.counted.published - expected)

    assert_adds_up(scrape)
    assert of_pipeline(scrape, "broadway_messages_received_total") == count
    assert of_pipeline(scrape, "broadway_messages_in_flight") == 0
    assert of_pipeline(scrape, "broadway_messages_settled_total", outcome="rejected") == count // 10
    assert of_pipeline(scrape, "broadway_messages_settled_total", outcome="acked") == count * 9 // 10
    assert of_pipeline(scrape, "broadway_messages_settled_total") == count
    assert of_pipeline(scrape, "broadway_messages_failed_total", stage="processors", cause="raised") == count // 10
    assert of_pipeline(scrape, "broadway_messages_failed_total") == count // 10

    shown = [line for line in running.log if line["event"] == "a message failed"]
    assert len(shown) == 5
    assert {(line["stage"], line["cause"], line["exception"]) for line in shown} == {
        ("processors", "raised", "RuntimeError")
    }
    (summary,) = [line for line in running.log if line["event"] == "more messages failed in the same way"]
    assert summary["not_shown"] == count // 10 - 5


Scrape = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def of_pipeline(scrape: Scrape, name: str, **labels: str) -> float:
    wanted = {"pipeline": "main", **labels}.items()
    return sum(value for (found, series), value in scrape.items() if found == name and wanted <= dict(series).items())


def assert_adds_up(scrape: Scrape) -> None:
    received = of_pipeline(scrape, "broadway_messages_received_total")
    settled = of_pipeline(scrape, "broadway_messages_settled_total")
    assert received == settled + of_pipeline(scrape, "broadway_messages_in_flight")


async def ids_on(broker: RabbitMQ, queue: str) -> Counter[str]:
    """Takes everything off *queue*."""
    found: Counter[str] = Counter()
    source = await broker.channel.get_queue(queue)
    while (message := await source.get(fail=False)) is not None:
        assert isinstance(message, aio_pika.IncomingMessage)
        found[message_id(message.body)] += 1
        await message.ack()
    return found
