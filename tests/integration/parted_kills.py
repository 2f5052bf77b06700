"""A daemon with four workers on four partitions, two of them killed at a time, and the count from outside."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import aio_pika

from broadway_py.producers import RabbitMQProducer
from broadway_py.queue import NewMessage, Queue
from broadway_py.testing.driving import opened
from tests.integration.window_counts import emitted
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

__all__ = ["PARTITIONS", "killed_two_at_a_time", "left_at_rabbitmq", "publish_by_key", "put_by_key"]

PARTITIONS: Final = 4


async def put_by_key(queue: Queue, sent: Sequence[str]) -> None:
    """Put the messages *sent* on the embedded queue, each with its key."""
    for start in range(0, len(sent), 1_000):
        part = sent[start : start + 1_000]
        await queue.put_many([NewMessage(data=line, key=json.loads(line)["key"]) for line in part])


async def publish_by_key(rabbitmq: RabbitMQ, sent: Sequence[str], **settings: Any) -> None:
    """Make the partitions of the source ``work``, and publish the messages *sent*, each with its key and an id."""
    source = RabbitMQProducer("work", rabbitmq.url, partitions=PARTITIONS, declare="active", **settings)
    async with opened(source.partition(0)):
        pass  # one reader makes the queues of all partitions
    exchange = await rabbitmq.channel.get_exchange("work")
    for start in range(0, len(sent), 500):
        await asyncio.gather(
            *(
                exchange.publish(
                    aio_pika.Message(line.encode(), message_id=str(number), delivery_mode=2), json.loads(line)["key"]
                )
                for number, line in enumerate(sent[start : start + 500], start)
            )
        )


async def left_at_rabbitmq(rabbitmq: RabbitMQ) -> int:
    """How many messages of all partitions are not settled yet."""
    counts = [await rabbitmq.counts(f"work.{number}") for number in range(PARTITIONS)]
    return sum(one.ready + one.unacked for one in counts)


async def killed_two_at_a_time(
    folder: Path,
    source: dict[str, Any],
    left: Callable[[], Awaitable[int]],
    *,
    count: int,
    marks: Sequence[int],
    per_second: int,
    seed: int,
) -> None:
    """Run the daemon on *source*, and kill two of its workers at a time while the messages flow; then let it finish.

    Args:
        folder: for its state and what it emits. In the end the file ``emitted`` has the results of all partitions.
        source: a section of settings, without the partitions.
        left: returns how many messages are not settled yet.
        count: how many messages there are in all.
        marks: two workers are killed each time that no more than this number is left.
        per_second: the most messages that all workers together handle.
        seed: of the choice of the workers.
    """
    chance = random.Random(seed)
    patience = 60 + 2 * count / per_second
    with daemon(folder, _settings(folder, source, per_second=per_second)) as running:
        for mark in marks:
            await _until_below(left, mark, patience)
            await _kill_two(running, chance)
        await eventually(lambda: _gather(folder) >= count, timeout=patience, what="all messages are in the results")
        await _until_below(left, 1, patience)
        await asyncio.to_thread(running.until_ready)
        ready = json.loads((await asyncio.to_thread(running.get, "/readyz"))[1])["pipelines"]["counting"]
        code, _ = await asyncio.to_thread(running.terminated)
    assert ready == {"ready": True, "reasons": [], "owners": {str(index): [index] for index in range(PARTITIONS)}}
    assert code == 0, "\n".join(running.lines)
    keys = [{row[2] for row in emitted(place)} for place in sorted(folder.glob("partition *"))]
    assert len(keys) == PARTITIONS
    assert not any(one & other for one, other in combinations(keys, 2)), "a key lies in one partition"


def _settings(folder: Path, source: dict[str, Any], *, per_second: int) -> Path:
    path = folder / "settings.json"
    pipeline = {
        "class": "tests.integration.parted_pipelines:PartedCounting",
        "context": {"folder": str(folder)},
        "producer": {**source, "partitions": PARTITIONS},
        "state": str(folder / "state"),
        "rate_limit": {"allowed_messages": per_second // 10, "interval": "100ms"},
    }
    path.write_text(json.dumps({"pipelines": {"counting": pipeline}, "workers": PARTITIONS}))
    return path


async def _kill_two(running: Daemon, chance: random.Random) -> None:
    """Kill two workers at the same moment, and wait until both are started again."""
    before = running.workers()
    chosen = chance.sample(sorted(before), 2)
    for index in chosen:
        os.kill(before[index], signal.SIGKILL)
    await eventually(
        lambda: all(running.workers()[index] != before[index] for index in chosen),
        timeout=60,
        what="the workers that were killed are started again",
    )


async def _until_below(left: Callable[[], Awaitable[int]], mark: int, timeout: float) -> None:
    async def is_below() -> bool:
        return await left() < mark

    await eventually(is_below, timeout=timeout, what=f"fewer than {mark} messages are left")


def _gather(folder: Path) -> int:
    """Write what all partitions have emitted into one file ``emitted``. Returns how many messages it counts."""
    files = sorted(folder.glob("partition */emitted"))
    # A line that a kill cut off has no end.
    (folder / "emitted").write_text("\n".join(file.read_text() for file in files))
    newest = {row[0]: row for row in sorted(emitted(folder), key=lambda row: row[1])}
    return sum(row[5] for row in newest.values())
