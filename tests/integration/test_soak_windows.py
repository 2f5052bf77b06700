"""Twenty kills while 200,000 messages flow through windows, and the count from outside. Only ``make soak`` selects it.

``make soak ARGS="-k windows"``: ``SOAK_SEED`` repeats the messages and the moments of an earlier run; ``SOAK_LOG``
names a file that gets a line about the run. ``SOAK_MINUTES`` has no effect: the number of messages says how long it
takes, a few minutes for each kind of queue.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py.queue import Queue
from tests.integration.storms import own_node
from tests.integration.window_counts import (
    emitted,
    killed_while_they_flow,
    messages,
    publish,
    repeated,
    wrong_windows,
)
from tests.support.rabbitmq import RabbitMQ
from tests.support.soak_log import note

pytestmark = [pytest.mark.integration, pytest.mark.soak]

MESSAGES: Final = 200_000
KILLS: Final = 20


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("SOAK_SEED", str(random.SystemRandom().randrange(1 << 32))))


@pytest.mark.timeout(0)
async def test_windows_of_the_embedded_queue_are_exact_after_twenty_kills(tmp_path: Path, seed: int) -> None:
    path = str(tmp_path / "q.db")
    sent = await asyncio.to_thread(messages, seed, MESSAGES)
    async with Queue(path, "orders") as queue:
        for start in range(0, MESSAGES, 1_000):
            await queue.put_many(sent[start : start + 1_000])
        source = {"kind": "queue", "path": path, "queue": "orders"}
        await run(tmp_path, source, queue.size, sent, what="windows, embedded queue", seed=seed)


@pytest.mark.timeout(0)
@pytest.mark.delivery_path("fast")  # what the pipeline in the other process chooses
async def test_windows_of_a_quorum_queue_are_exact_after_twenty_kills(
    tmp_path: Path, rabbitmq: RabbitMQ, seed: int
) -> None:
    sent = await asyncio.to_thread(messages, seed, MESSAGES)
    await rabbitmq.declare(**{"x-queue-type": "quorum"})
    await publish(rabbitmq, sent)
    version = await asyncio.to_thread(own_node(rabbitmq).ask, "rabbit_misc:version()")

    async def left() -> int:
        counts = await rabbitmq.counts()
        return counts.ready + counts.unacked

    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "prefetch_count": 500}
    what = f"windows, quorum, {version.strip(chr(34))}"
    await run(tmp_path, source, left, sent, what=what, seed=seed)


async def run(
    folder: Path,
    source: dict[str, Any],
    left: Callable[[], Awaitable[int]],
    sent: list[str],
    *,
    what: str,
    seed: int,
) -> None:
    """Kill it while *sent* flows, count, and leave a line in the log."""
    print(f"{what}: seed {seed}")
    began = time.monotonic()
    await killed_while_they_flow(folder, source, left, count=MESSAGES, kills=KILLS, seed=seed)
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
        faults=KILLS,
        repeated=again,
        lost=len(wrong),
        grown=None,
    )
    assert wrong == {}
