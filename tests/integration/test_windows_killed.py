"""An aggregator whose process is killed again and again: every message counts once, as counted from outside."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from broadway_py.queue import Queue
from tests.support.daemon import ROOT
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: How many messages there are, and how often the process is killed while they flow.
MESSAGES = 10_000
KILLS = 5
#: The first event time. The clock of the test does not matter: nothing lies ahead of it.
START = 1_000_000.0


def messages(seed: int) -> list[str]:
    """Messages out of order: each is up to four seconds older than the newest one before it."""
    chance = random.Random(seed)
    return [
        json.dumps({"at": START + number / 100 - chance.uniform(0, 4), "key": f"key-{chance.randrange(20)}"})
        for number in range(MESSAGES)
    ]


@contextmanager
def child(folder: Path, source: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """The pipeline in a process of its own, which is killed at the end."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.windows_killed", str(folder), json.dumps(source)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def emitted(folder: Path) -> list[list[Any]]:
    """The rows that ``emit`` has written. The last line may have been cut off by a kill: it comes again."""
    file = folder / "emitted"
    rows: list[list[Any]] = []
    for line in file.read_text().splitlines() if file.exists() else []:
        # The line after a line that was cut off stands right behind it.
        whole = line[line.rindex("[[") :] if line.endswith("]]") else "[]"
        rows += json.loads(whole)
    return rows


def newest(rows: list[list[Any]]) -> dict[str, list[Any]]:
    """The row with the largest firing of each id."""
    found: dict[str, list[Any]] = {}
    for row in sorted(rows, key=lambda row: row[1]):
        found[row[0]] = row
    return found


async def killed_while_they_flow(folder: Path, source: dict[str, Any], left: Callable[[], Awaitable[int]]) -> None:
    chance = random.Random(7)
    marks = sorted((chance.randrange(MESSAGES // 50, MESSAGES) for _ in range(KILLS)), reverse=True)
    for mark in marks:
        with child(folder, source) as process:
            await eventually(
                lambda mark=mark: _is_below(left, mark),  # type: ignore[misc]  # it is called within this round
                timeout=60,
                what=f"fewer than {mark} messages are left",
            )
            assert process.poll() is None, (folder / "log").read_text()
    with child(folder, source):
        await eventually(
            lambda: sum(row[5] for row in newest(emitted(folder)).values()) >= MESSAGES,
            timeout=90,
            what="all messages are in the results",
        )


async def _is_below(left: Callable[[], Awaitable[int]], mark: int) -> bool:
    return await left() < mark


def check(folder: Path, sent: list[str]) -> None:
    expected: Counter[tuple[str, float]] = Counter()
    for line in sent:
        message = json.loads(line)
        expected[message["key"], message["at"] // 10 * 10] += 1
    rows = emitted(folder)
    values: dict[tuple[str, int], int] = {}
    for name, firing, _, _, value, _ in rows:
        assert values.setdefault((name, firing), value) == value, "one value for each id and firing"
    assert {(key, start): value for _, _, key, start, value, _ in newest(rows).values()} == expected


async def test_every_message_of_the_embedded_queue_counts_once(tmp_path: Path) -> None:
    path = str(tmp_path / "q.db")
    sent = messages(1)
    async with Queue(path, "orders") as queue:
        for start in range(0, MESSAGES, 1_000):
            await queue.put_many(sent[start : start + 1_000])

        async def left() -> int:
            return await queue.size()

        source = {"kind": "queue", "path": path, "queue": "orders"}
        await killed_while_they_flow(tmp_path, source, left)
        await eventually(lambda: _is_below(left, 1), what="everything is acked")
    await asyncio.to_thread(check, tmp_path, sent)


@pytest.mark.delivery_path("fast")  # what the pipeline in the other process chooses
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_every_message_of_a_queue_of_rabbitmq_counts_once(
    tmp_path: Path, rabbitmq: RabbitMQ, queue_type: str
) -> None:
    sent = messages(2)
    await rabbitmq.declare(**{"x-queue-type": queue_type})
    await publish(rabbitmq, sent)

    async def left() -> int:
        # What the pipeline holds was not settled.
        counts = await rabbitmq.counts()
        return counts.ready + counts.unacked

    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "prefetch_count": 500}
    await killed_while_they_flow(tmp_path, source, left)
    await rabbitmq.until(ready=0, unacked=0)
    await asyncio.to_thread(check, tmp_path, sent)


async def publish(rabbitmq: RabbitMQ, sent: Sequence[str]) -> None:
    """Publishes *sent*, each with an id of its own."""
    for start in range(0, len(sent), 500):
        await asyncio.gather(
            *(
                rabbitmq.channel.default_exchange.publish(
                    aio_pika.Message(line.encode(), message_id=str(number), delivery_mode=2), "work"
                )
                for number, line in enumerate(sent[start : start + 500], start)
            )
        )
