"""``deduplicate_by`` in a process that is killed again and again, as counted from outside.

Each id is handled once, and once more for each kill between the end of its handler and its commit. What is stored is
read from the file after each kill.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from broadway_py import Message
from broadway_py._core.identity import IDENTITY_BYTES, identity_by_id
from broadway_py.producer_description import described
from broadway_py.producers.kinds import build
from broadway_py.queue import NewMessage, Queue
from broadway_py.state import inspection
from tests.integration.window_counts import messages, publish
from tests.support.daemon import ROOT
from tests.support.eventually import eventually
from tests.support.localstack import REGION, SQS
from tests.support.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.integration, pytest.mark.faults]

#: How many messages there are, how many of them a publisher sends again, and how often the process is killed.
MESSAGES: Final = 1_000
AGAIN: Final = 100
KILLS: Final = 3
SOAK_MESSAGES: Final = 10_000
SOAK_KILLS: Final = 20
#: Each of these takes a minute or two.
SOAK: Final = (pytest.mark.soak, pytest.mark.timeout(600))


class Life:
    """What a process has handled and stored until it was killed."""

    def __init__(self, folder: Path, before: int) -> None:
        lines = _handled(folder)
        self.until = len(lines)
        self.handled = Counter(lines[before:])
        self.stored = _stored(folder)


def _handled(folder: Path) -> list[int]:
    file = folder / "handled"
    return [int(line) for line in file.read_text().splitlines()] if file.exists() else []


def _stored(folder: Path) -> set[bytes]:
    if not (folder / "ids.db").exists():
        return set()
    with inspection.reading(str(folder / "ids.db")) as connection:
        rows = [content for (content,) in connection.execute("SELECT content FROM identities")]
    whole = b"".join(rows)
    return {whole[at : at + IDENTITY_BYTES] for at in range(0, len(whole), IDENTITY_BYTES)}


@contextmanager
def _child(
    folder: Path, source: dict[str, Any], moment: str = "", out: dict[str, Any] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The pipeline in a process of its own, which is killed at the end; or at this *moment*, by itself."""
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.integration.once_killed",
                str(folder),
                json.dumps(source),
                moment,
                json.dumps(out),
            ],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def killed_while_they_flow(
    folder: Path,
    source: dict[str, Any],
    left: Callable[[], Awaitable[int]],
    *,
    count: int,
    kills: int,
    out: dict[str, Any] | None = None,
) -> list[Life]:
    """Run the pipeline on *source* until nothing is left, and kill it *kills* times while *count* messages flow.

    It publishes what it handles to *out*.
    """
    chance = random.Random(11)
    lives: list[Life] = []
    marks = sorted(chance.randrange(count // 50, count * 9 // 10) for _ in range(kills))
    for mark in marks:
        with _child(folder, source, out=out) as process:

            async def is_there(mark: int = mark) -> bool:
                return len(await asyncio.to_thread(_handled, folder)) >= mark

            await eventually(is_there, what=f"{mark} messages were handled", timeout=120.0)
            assert process.poll() is None, (folder / "log").read_text()
        lives.append(await asyncio.to_thread(Life, folder, lives[-1].until if lives else 0))
    with _child(folder, source, out=out):

        async def nothing_is_left() -> bool:
            return await left() == 0

        await eventually(nothing_is_left, what="everything is acked", timeout=180.0)
    return [*lives, await asyncio.to_thread(Life, folder, lives[-1].until if lives else 0)]


def identities(sent: Sequence[str], source: dict[str, Any], ids: Sequence[str] | None = None) -> list[bytes | None]:
    """What is stored of each message, if its source calls them by *ids*; None: by their numbers."""
    producer = described(build(source, ("source",))).called
    named = zip(sent, map(str, range(len(sent))) if ids is None else ids, strict=True)
    return [identity_by_id(Message(line.encode(), {"message_id": name}), producer) for line, name in named]


def check(lives: Sequence[Life], named: Sequence[bytes | None]) -> None:
    """Each message was handled once, and once more for each life that has handled it and not stored its id."""
    for number, identity in enumerate(named):
        assert identity in lives[-1].stored
        # No life handles a message twice.
        assert all(life.handled[number] <= 1 for life in lives)
        unstored = [life for life in lives[:-1] if life.handled[number] and identity not in life.stored]
        assert sum(life.handled[number] for life in lives) == 1 + len(unstored)


@pytest.mark.parametrize(("count", "kills"), [(MESSAGES, KILLS), pytest.param(SOAK_MESSAGES, SOAK_KILLS, marks=SOAK)])
async def test_each_message_of_the_embedded_queue_is_handled_once(tmp_path: Path, count: int, kills: int) -> None:
    path = str(tmp_path / "q.db")
    sent = messages(1, count)
    async with Queue(path, "orders") as queue:
        await _put(queue, sent, range(count))
        await _put(queue, sent, random.Random(3).sample(range(count), AGAIN))
        source = {"kind": "queue", "path": path, "queue": "orders"}
        lives = await killed_while_they_flow(tmp_path, source, queue.size, count=count, kills=kills)
    await asyncio.to_thread(check, lives, identities(sent, source))


@pytest.mark.parametrize(("moment", "times"), [("before the commit", 2), ("before the ack", 1)])
async def test_a_kill_between_the_handler_and_the_ack(tmp_path: Path, moment: str, times: int) -> None:
    path = str(tmp_path / "q.db")
    sent = messages(1, 1)
    source = {"kind": "queue", "path": path, "queue": "orders", "visibility": "1s"}
    async with Queue(path, "orders") as queue:
        await _put(queue, sent, [0])
        with _child(tmp_path, source, moment) as process:
            assert await asyncio.to_thread(process.wait, 60.0) == -signal.SIGKILL
        lives = await killed_while_they_flow(tmp_path, source, queue.size, count=1, kills=0)
    assert lives[-1].handled == {0: times}
    assert len(lives[-1].stored) == 1


async def _put(queue: Queue, sent: Sequence[str], numbers: Sequence[int]) -> None:
    for start in range(0, len(numbers), 1_000):
        part = numbers[start : start + 1_000]
        await queue.put_many([NewMessage(data=sent[number], message_id=str(number)) for number in part])


@pytest.mark.delivery_path("fast")  # what the pipeline in the other process chooses
@pytest.mark.parametrize(
    ("queue_type", "count", "kills"),
    [
        ("classic", MESSAGES, KILLS),
        pytest.param("classic", SOAK_MESSAGES, SOAK_KILLS, marks=SOAK),
        pytest.param("quorum", SOAK_MESSAGES, SOAK_KILLS, marks=SOAK),
    ],
)
async def test_each_message_of_a_queue_of_rabbitmq_is_handled_once(
    tmp_path: Path, rabbitmq: RabbitMQ, queue_type: str, count: int, kills: int
) -> None:
    sent = messages(2, count)
    await rabbitmq.declare(**{"x-queue-type": queue_type})
    await publish(rabbitmq, sent)
    await publish(rabbitmq, sent[:AGAIN])

    async def left() -> int:
        counts = await rabbitmq.counts()
        return counts.ready + counts.unacked

    await rabbitmq.declare("out", **{"x-queue-type": queue_type})
    source = {"kind": "rabbitmq", "queue": "work", "url": rabbitmq.url, "prefetch_count": 100}
    out = {"kind": "rabbitmq", "queue": "out", "url": rabbitmq.url}
    lives = await killed_while_they_flow(tmp_path, source, left, count=count, kills=kills, out=out)
    named = identities(sent, source)
    await asyncio.to_thread(check, lives, named)
    check_published(lives, named, Counter(await _published(rabbitmq, "out")))


# SQS hides what a dead process had for as long as its visibility timeout, and LocalStack is slow.
@pytest.mark.parametrize(("count", "kills"), [(100, 1), pytest.param(2_000, SOAK_KILLS, marks=SOAK)])
async def test_each_message_of_a_queue_of_sqs_is_handled_once(tmp_path: Path, sqs: SQS, count: int, kills: int) -> None:
    sent = messages(3, count)
    work, target = await sqs.queue("work"), await sqs.queue("out")
    ids = await work.send(sent)

    async def left() -> int:
        counts = await work.counts()
        return counts.ready + counts.held

    place = {"kind": "sqs", "region": REGION, "endpoint_url": sqs.endpoint}
    source = {**place, "queue_url": work.url, "visibility_timeout": 2, "wait_time_seconds": 1}
    out = {**place, "queue_url": target.url}
    lives = await killed_while_they_flow(tmp_path, source, left, count=count, kills=kills, out=out)
    named = identities(sent, source, ids)
    await asyncio.to_thread(check, lives, named)
    published: Counter[int] = Counter()
    while taken := await target.take():
        for message in taken:
            published[json.loads(message["Body"])["number"]] += 1
            await target.client.delete_message(QueueUrl=target.url, ReceiptHandle=message["ReceiptHandle"])
    check_published(lives, named, published)


async def _published(rabbitmq: RabbitMQ, queue: str) -> list[int]:
    place = await rabbitmq.channel.get_queue(queue)
    numbers: list[int] = []
    while (came := await place.get(no_ack=True, fail=False)) is not None:
        numbers.append(json.loads(came.body)["number"])
    return numbers


def check_published(lives: Sequence[Life], named: Sequence[bytes | None], out: Counter[int]) -> None:
    """Each message was published once, and at most once more for each life that ended before its id was stored."""
    assert sorted(out) == list(range(len(named)))
    for number, identity in enumerate(named):
        handled = sum(life.handled[number] for life in lives)
        assert handled <= out[number] <= 1 + sum(identity not in life.stored for life in lives[:-1])
