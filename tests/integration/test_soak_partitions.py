"""Ten times two of four workers are killed while 100,000 messages flow; ``make soak`` alone selects it.

``make soak ARGS="-k partitions"``: ``SOAK_SEED`` repeats the messages and the choices of an earlier run; ``SOAK_LOG``
names a file that gets a line about the run. ``SOAK_MINUTES`` has no effect: the number of messages says how long it
takes, a few minutes for each kind of queue.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.queue import Queue
from tests.integration.parted_kills import killed_two_at_a_time, left_at_rabbitmq, publish_by_key, put_by_key
from tests.integration.storms import own_node
from tests.integration.window_counts import emitted, messages, repeated, wrong_windows
from tests.support.rabbitmq import RabbitMQ
from tests.support.soak_log import note

pytestmark = [pytest.mark.integration, pytest.mark.soak]

MESSAGES: Final = 100_000
KILLS: Final = 10
PER_SECOND: Final = 2_000


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))


@pytest.mark.timeout(0)
async def test_partitions_of_the_embedded_queue_are_exact_after_twenty_dead_workers(tmp_path: Path, seed: int) -> None:
    path = str(tmp_path / "q.db")
    sent = await asyncio.to_thread(messages, seed, MESSAGES)
    async with Queue(path, "orders") as queue:
        await put_by_key(queue, sent)
        source = {"kind": "queue", "path": path, "queue": "orders"}
        await run(tmp_path, source, queue.size, sent, what="partitions, embedded queue", seed=seed)


@pytest.mark.timeout(0)
@pytest.mark.delivery_path("fast")  # what the pipelines in the other processes choose
async def test_partitions_of_quorum_queues_are_exact_after_twenty_dead_workers(
    tmp_path: Path, rabbitmq: RabbitMQ, seed: int
) -> None:
    quorum = {"declare": "active", "declare_options": {"arguments": {"x-queue-type": "quorum"}}}
    sent = await asyncio.to_thread(messages, seed, MESSAGES)
    await publish_by_key(rabbitmq, sent, declare_options=quorum["declare_options"])
    version = await asyncio.to_thread(own_node(rabbitmq).ask, "rabbit_misc:version()")

    async def left() -> int:
        return await left_at_rabbitmq(rabbitmq)

    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "prefetch_count": 500, **quorum}
    await run(tmp_path, source, left, sent, what=f"partitions, quorum, {version.strip(chr(34))}", seed=seed)


async def run(
    folder: Path,
    source: dict[str, Any],
    left: Callable[[], Awaitable[int]],
    sent: Sequence[str],
    *,
    what: str,
    seed: int,
) -> None:
    """Kill workers while *sent* flows, count, and leave a line in the log."""
    print(f"{what}: seed {seed}")
    began = time.monotonic()
    marks = sorted(random.Random(seed).sample(range(MESSAGES // 10, MESSAGES), KILLS), reverse=True)
    await killed_two_at_a_time(folder, source, left, count=MESSAGES, marks=marks, per_second=PER_SECOND, seed=seed)
    minutes = (time.monotonic() - began) / 60
    wrong = await asyncio.to_thread(wrong_windows, folder, sent)
    rows = await asyncio.to_thread(emitted, folder)
    again = repeated(rows)
    print(f"{what}: {len(rows)} results, {again} of them again, {len(wrong)} windows wrong, {minutes:.1f} min")
    await asyncio.to_thread(
        note,
        minutes=round(minutes, 1),
        what=what,
        seed=seed,
        published=MESSAGES,
        faults=2 * KILLS,
        repeated=again,
        lost=len(wrong),
        grown=None,
    )
    assert wrong == {}
