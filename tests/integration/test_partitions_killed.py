"""Four workers on four partitions, two of them killed at a time: every message counts once, as counted from outside."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest

from broadway_py.queue import Queue
from tests.integration.parted_kills import killed_two_at_a_time, left_at_rabbitmq, publish_by_key, put_by_key
from tests.integration.window_counts import check, messages
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

MESSAGES: Final = 8_000
#: How many messages are left each time that two workers are killed.
MARKS: Final = (7_000, 4_500, 2_000)
PER_SECOND: Final = 4_000


async def test_every_message_of_a_parted_embedded_queue_counts_once(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    sent = messages(5, MESSAGES)
    async with Queue(path, "orders") as queue:
        await put_by_key(queue, sent)
        source = {"kind": "queue", "path": path, "queue": "orders"}
        await killed_two_at_a_time(
            tmp_path, source, queue.size, count=MESSAGES, marks=MARKS, per_second=PER_SECOND, seed=7
        )
    await asyncio.to_thread(check, tmp_path, sent)


@pytest.mark.delivery_path("fast")  # what the pipelines in the other processes choose
async def test_every_message_of_the_partitions_at_rabbitmq_counts_once(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    sent = messages(6, MESSAGES)
    await publish_by_key(rabbitmq, sent)

    async def left() -> int:
        return await left_at_rabbitmq(rabbitmq)

    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "declare": "active", "prefetch_count": 500}
    await killed_two_at_a_time(tmp_path, source, left, count=MESSAGES, marks=MARKS, per_second=PER_SECOND, seed=8)
    await asyncio.to_thread(check, tmp_path, sent)
