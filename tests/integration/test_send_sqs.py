"""``broadway send`` to a real SQS: limits, order, refusals by line, and throttling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from broadway_py.cli import app
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import DENIED, THROTTLED, SQSProxy

pytestmark = pytest.mark.integration


@pytest.fixture
async def faults(sqs: SQS) -> AsyncIterator[SQSProxy]:
    async with SQSProxy(sqs.endpoint) as proxy:
        yield proxy


async def send(folder: Path, proxy: SQSProxy, queue: Queue, lines: list[bytes], *words: str) -> Result:
    producer = {"kind": "sqs", "queue_url": queue.url, "region": REGION, "endpoint_url": proxy.endpoint}
    section = {"class": "tests.daemon.pipelines:Recorder", "producer": producer}
    (folder / "a.json").write_text(json.dumps({"pipelines": {"orders": section}}))
    (folder / "lines").write_bytes(b"".join(line + b"\n" for line in lines))
    arguments = ["send", str(folder / "a.json"), str(folder / "lines"), *words]
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def taken(queue: Queue, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < count:
        for one in await queue.take(WaitTimeSeconds=5):
            found.append(one)
            await queue.client.delete_message(QueueUrl=queue.url, ReceiptHandle=one["ReceiptHandle"])
    return found


async def test_requests_keep_to_ten_messages_and_the_size_of_a_batch(
    tmp_path: Path, sqs: SQS, faults: SQSProxy
) -> None:
    queue = await sqs.queue()
    lines = [b"%03d" % number + b"x" * 60_000 for number in range(25)] + [b"s%d" % number for number in range(25)]
    shown = await send(tmp_path, faults, queue, lines)
    assert (shown.exit_code, shown.stdout) == (0, "50 lines were put on the queue\n")
    asked = [[len(entry["MessageBody"]) for entry in one.entries] for one in faults.requests("SendMessageBatch")]
    assert all(len(sizes) <= 10 and sum(sizes) <= 256 * 1024 for sizes in asked)
    await queue.until(ready=50, held=0)


async def test_the_key_is_the_group_and_keeps_the_order(tmp_path: Path, sqs: SQS, faults: SQSProxy) -> None:
    queue = await sqs.queue(fifo=True)
    lines = [json.dumps({"n": number, "customer": f"c{number % 3}"}).encode() for number in range(60)]
    faults.fail("SendMessageBatch", THROTTLED, times=2)
    shown = await send(tmp_path, faults, queue, lines, "--key", "customer")
    assert (shown.exit_code, shown.stdout) == (0, "60 lines were put on the queue\n")
    found = await taken(queue, 60)
    by_group: dict[str, list[int]] = {}
    for one in found:
        by_group.setdefault(one["Attributes"]["MessageGroupId"], []).append(json.loads(one["Body"])["n"])
    assert by_group == {f"c{rest}": list(range(rest, 60, 3)) for rest in range(3)}


async def test_lines_that_sqs_does_not_take_are_named_and_the_others_are_sent(
    tmp_path: Path, sqs: SQS, faults: SQSProxy
) -> None:
    queue = await sqs.queue()
    lines = [b"line %d" % number for number in range(30)]
    lines[4] = b"\xff\xfe"
    shown = await send(tmp_path, faults, queue, lines)
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: line 5 was not put on the queue: SQS queue {queue.name!r}: it is not UTF-8 text, and SQS takes "
            "nothing else; 29 lines were put on the queue before that; all others up to line 30 are on it: send those "
            "again, and go on with --skip 30\n"
        ),
    )
    await queue.until(ready=29, held=0)


async def test_entries_that_sqs_refuses_are_named_by_their_lines(tmp_path: Path, sqs: SQS, faults: SQSProxy) -> None:
    queue = await sqs.queue()
    faults.fail_entries("SendMessageBatch", "InvalidMessageContents", entries=2, sender_fault=True)
    shown = await send(tmp_path, faults, queue, [b"line %d" % number for number in range(8)])
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: lines 1, 2 were not put on the queue: SQS queue {queue.name!r} did not take it (wrong); a body "
            "must be text that SQS allows, and no longer than the queue takes; 6 lines were put on the queue before "
            "that; all others up to line 8 are on it: send those again, and go on with --skip 8\n"
        ),
    )
    await queue.until(ready=6, held=0)


async def test_on_a_fifo_queue_nothing_goes_past_a_line_that_was_refused(
    tmp_path: Path, sqs: SQS, faults: SQSProxy
) -> None:
    queue = await sqs.queue(fifo=True)
    lines = [json.dumps({"n": number, "customer": "c"}).encode() for number in range(30)]
    lines[12] = json.dumps({"n": 12, "customer": "c", "text": "x" * 1_100_000}).encode()
    shown = await send(tmp_path, faults, queue, lines, "--key", "customer")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("broadway: lines 13, ")
    counts = await queue.counts()
    assert f"; {counts.ready} lines were put on the queue before that" in shown.stderr
    assert [json.loads(one["Body"])["n"] for one in await taken(queue, counts.ready)] == list(range(counts.ready))


async def test_a_refused_permission_is_one_sentence_without_lines(tmp_path: Path, sqs: SQS, faults: SQSProxy) -> None:
    queue = await sqs.queue()
    faults.fail("SendMessageBatch", DENIED)
    shown = await send(tmp_path, faults, queue, [b"a", b"b"])
    assert (shown.exit_code, shown.stderr) == (
        1,
        (
            f"broadway: SQS queue {queue.name!r}: AWS refused SendMessage (AccessDeniedException); allow "
            "sqs:SendMessage, or check the credentials; 0 lines were put on the queue before that\n"
        ),
    )
