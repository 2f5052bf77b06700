"""Consume, publish, ack: a process that is killed again and again loses nothing, as counted from outside."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

import aio_pika
import pytest

from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Queue
from broadway_py.testing.driving import opened, settle, take
from tests.integration.relays import killed_while_it_relays, names
from tests.support.eventually import eventually
from tests.support.localstack import REGION, SQS
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

MESSAGES: Final = 1_000
KILLS: Final = 2
#: SQS hides what a dead process had for as long as its visibility timeout, and LocalStack is slow.
MESSAGES_OF_SQS: Final = 150


async def embedded(folder: Path, *, count: int, kills: int, seed: int) -> Counter[str]:
    """What has arrived, from one queue of a file to another."""
    path = folder / "q.db"
    async with Queue(path, "orders") as queue:
        await queue.put_many(names(count))
        source, out = ({"kind": "queue", "path": str(path), "queue": name} for name in ("orders", "out"))
        source["visibility"] = "2s"
        await killed_while_it_relays(folder, source, out, queue.size, count=count, kills=kills, seed=seed)
    async with Queue(path, "out") as queue:
        arrived = await queue.size()
    async with opened(QueueProducer(path, "out")) as copy:
        messages = await take(copy, arrived)
        await settle(messages)
    return Counter(message.data.decode() for message in messages)


async def rabbit(folder: Path, rabbitmq: RabbitMQ, *, count: int, kills: int, seed: int) -> Counter[str]:
    """What has arrived, from one queue of a broker to another."""
    for name in ("work", "out"):
        await rabbitmq.declare(name)
    await rabbitmq.publish([name.encode() for name in names(count)])

    async def left() -> int:
        # What the pipeline holds was not settled.
        counts = await rabbitmq.counts()
        return counts.ready + counts.unacked

    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "prefetch_count": 200}
    out = {"kind": "rabbitmq", "queue": "out", "url": rabbitmq.url}
    await killed_while_it_relays(folder, source, out, left, count=count, kills=kills, seed=seed)
    arrived: Counter[str] = Counter()
    ready = await rabbitmq.ready("out")

    async def note(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        assert message.message_id == message.body.decode()
        arrived[message.body.decode()] += 1

    await (await rabbitmq.channel.get_queue("out")).consume(note, no_ack=True)
    await eventually(lambda: arrived.total() == ready, what="all that has arrived was taken")
    return arrived


async def of_sqs(folder: Path, sqs: SQS, *, count: int, kills: int, seed: int) -> Counter[str]:
    """What has arrived, from one queue of SQS to another."""
    work, target = await sqs.queue("work"), await sqs.queue("out")
    await work.send(names(count))

    async def left() -> int:
        counts = await work.counts()
        return counts.ready + counts.held

    place: dict[str, Any] = {"kind": "sqs", "region": REGION, "endpoint_url": sqs.endpoint}
    source = {**place, "queue_url": work.url, "visibility_timeout": 2, "wait_time_seconds": 1}
    out = {**place, "queue_url": target.url}
    await killed_while_it_relays(folder, source, out, left, count=count, kills=kills, seed=seed)
    await work.until(ready=0, held=0)
    arrived: Counter[str] = Counter()
    while taken := await target.take():
        for message in taken:
            arrived[message["Body"]] += 1
            await target.client.delete_message(QueueUrl=target.url, ReceiptHandle=message["ReceiptHandle"])
    return arrived


async def test_between_two_embedded_queues_each_message_arrives_once(tmp_path: Path) -> None:
    """The second queue stores a name once, so what a new process publishes again is not there twice."""
    assert await embedded(tmp_path, count=MESSAGES, kills=KILLS, seed=7) == Counter(names(MESSAGES))


@pytest.mark.delivery_path("fast")  # what the pipeline in the other process chooses
async def test_between_two_queues_of_rabbitmq_nothing_is_lost(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    arrived = await rabbit(tmp_path, rabbitmq, count=MESSAGES, kills=KILLS, seed=7)
    assert arrived.keys() == set(names(MESSAGES))


async def test_between_two_queues_of_sqs_nothing_is_lost(tmp_path: Path, sqs: SQS) -> None:
    arrived = await of_sqs(tmp_path, sqs, count=MESSAGES_OF_SQS, kills=KILLS, seed=7)
    assert arrived.keys() == set(names(MESSAGES_OF_SQS))
