"""An aggregator whose process is killed again and again: every message counts once, as counted from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from broadway_py.queue import Queue
from tests.integration.window_counts import check, killed_while_they_flow, messages, publish
from tests.support.localstack import REGION, SQS
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: How many messages there are, and how often the process is killed while they flow.
MESSAGES: Final = 10_000
KILLS: Final = 5


async def test_every_message_of_the_embedded_queue_counts_once(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    sent = messages(1, MESSAGES)
    async with Queue(path, "orders") as queue:
        for start in range(0, MESSAGES, 1_000):
            await queue.put_many(sent[start : start + 1_000])
        source = {"kind": "queue", "path": path, "queue": "orders"}
        await killed_while_they_flow(tmp_path, source, queue.size, count=MESSAGES, kills=KILLS, seed=7)
    await asyncio.to_thread(check, tmp_path, sent)


@pytest.mark.delivery_path("fast")  # what the pipeline in the other process chooses
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_every_message_of_a_queue_of_rabbitmq_counts_once(
    tmp_path: Path, rabbitmq: RabbitMQ, queue_type: str
) -> None:
    sent = messages(2, MESSAGES)
    await rabbitmq.declare(**{"x-queue-type": queue_type})
    await publish(rabbitmq, sent)

    async def left() -> int:
        # What the pipeline holds was not settled.
        counts = await rabbitmq.counts()
        return counts.ready + counts.unacked

    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "prefetch_count": 500}
    await killed_while_they_flow(tmp_path, source, left, count=MESSAGES, kills=KILLS, seed=7)
    await rabbitmq.until(ready=0, unacked=0)
    await asyncio.to_thread(check, tmp_path, sent)


async def test_every_message_of_a_queue_of_sqs_counts_once(tmp_path: Path, sqs: SQS) -> None:
    """What a dead process held comes back after its visibility timeout, in any order, and is not late."""
    count = 600
    sent = messages(3, count)
    work = await sqs.queue("work")
    await asyncio.gather(*(work.send(sent[start : start + 200]) for start in range(0, count, 200)))

    async def left() -> int:
        counts = await work.counts()
        return counts.ready + counts.held

    source = {
        "kind": "sqs",
        "queue_url": work.url,
        "region": REGION,
        "endpoint_url": sqs.endpoint,
        "visibility_timeout": 2,
        "wait_time_seconds": 1,
    }
    await killed_while_they_flow(tmp_path, source, left, count=count, kills=KILLS, seed=7)
    await work.until(ready=0, held=0)
    await asyncio.to_thread(check, tmp_path, sent)
