"""The daemon on a real SQS queue, counted by SQS and by a file that the handler writes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, daemon
from tests.support.eventually import eventually
from tests.support.localstack import SQS, Queue

pytestmark = pytest.mark.integration


def settings(folder: Path, queue: Queue, handler: str = "Recorder", more: str = "") -> Path:
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  orders:
    class: tests.daemon.pipelines:{handler}
    producer:
      {{kind: sqs, queue_url: "{queue.url}", region: eu-central-1, wait_time_seconds: 1, visibility_timeout: 5}}
    context: {{file: {folder}/handled}}
{more}"""
    )
    return path


def lines_in(folder: Path) -> list[str]:
    file = folder / "handled"
    return file.read_text().splitlines() if file.exists() else []


async def until_handled(folder: Path, count: int) -> None:
    await eventually(lambda: len(lines_in(folder)) >= count, timeout=60, what=f"{count} messages are handled")


async def send(file: Path, lines: list[str]) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "broadway_py", "send", str(file), "-"],
        input="\n".join(lines),
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("workers", "count"), [(1, 2_000), (2, 1_200)])
async def test_lines_that_were_sent_are_each_handled_once(tmp_path: Path, sqs: SQS, workers: int, count: int) -> None:
    queue = await sqs.queue()
    file = settings(tmp_path, queue)
    lines = [f"line {index}" for index in range(count)]
    sent = await send(file, lines)
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, f"{count:,} lines were put on the queue\n", "")

    with daemon(tmp_path, file, options=("--workers", str(workers))) as running:
        await queue.until(ready=0, held=0, timeout=90)
        _, metrics = await asyncio.to_thread(running.get, "/metrics")
        code, _ = await asyncio.to_thread(running.terminated)

    assert code == 0
    assert Counter(lines_in(tmp_path)) == Counter(lines)
    assert 'broadway_sqs_requests_total{kind="delete",pipeline="orders",producer="sqs",result="ok"}' in metrics
    assert "broadway_sqs_receive_messages_bucket" in metrics


async def test_sending_to_a_queue_that_is_not_there_says_so(tmp_path: Path, sqs: SQS) -> None:
    queue = await sqs.queue()
    await queue.delete()
    sent = await send(settings(tmp_path, queue), ["a"])
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr.startswith(f"broadway: SQS queue {queue.name!r} does not exist in this region and account")
    assert sent.stderr.endswith("; 0 lines were put on the queue before that\n")


async def test_the_example_runs_from_its_settings_file(
    tmp_path: Path, sqs: SQS, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, dead = await sqs.queue(), await sqs.queue("dead")
    monkeypatch.setenv("SQS_QUEUE_URL", queue.url)
    monkeypatch.setenv("SQS_DEAD_LETTER_QUEUE", dead.url)
    # The example leaves it at 20 s; less keeps the test short.
    options = ["--set", "pipelines.shipments-sqs.producer.wait_time_seconds=5"]
    with daemon(tmp_path, ROOT / "config" / "sqs.yaml", options=options) as running:
        await queue.send([f'{{"not": "a shipment {index}"}}' for index in range(3)])
        await asyncio.to_thread(running.until_ready)
        await dead.until(ready=3, held=0, timeout=30)
        # On an idle queue the open receive is waited for; the deadline is that of the settings.
        code, seconds = await asyncio.to_thread(running.terminated, 40)
    assert (code, seconds < 11) == (0, True)
    (line,) = [line for line in running.log if line["event"].startswith("the stop waits for the open receive")]
    assert line["queue"] == queue.name
    assert max(0, seconds - 5) < line["at_most_seconds"] <= 5
    await queue.until(ready=0, held=0)


@pytest.mark.faults
async def test_ten_thousand_messages_with_kills_at_random_moments_are_each_handled_at_least_once(
    tmp_path: Path, sqs: SQS
) -> None:
    queue = await sqs.queue()
    lines = [f"line {index:05d}" for index in range(10_000)]
    file = settings(tmp_path, queue)
    sending = asyncio.create_task(queue.send(lines))
    chance = random.Random(20261122)
    for _ in range(3):
        seen = len(lines_in(tmp_path))
        goal = seen + chance.randrange(300, 2_000)
        with daemon(tmp_path, file) as running:
            await until_handled(tmp_path, goal)
            running.signal(signal.SIGKILL)
    await sending
    with daemon(tmp_path, file) as running:
        await eventually(lambda: len(set(lines_in(tmp_path))) == 10_000, timeout=90, what="all are handled")
        await queue.until(ready=0, held=0, timeout=30)
        code, _ = await asyncio.to_thread(running.terminated)
    assert code == 0
    handled = Counter(lines_in(tmp_path))
    assert set(handled) == set(lines)
    # What a killed process had in hand comes again, and no more than that: its receives, and what it had handled
    # without having been able to delete it.
    assert sum(handled.values()) - 10_000 <= 3 * 300
    await queue.until(ready=0, held=0)
