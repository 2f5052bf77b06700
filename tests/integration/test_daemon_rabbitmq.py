"""The daemon on a real RabbitMQ queue, counted by the broker and by a file that the handler writes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from aio_pika import Message

from tests.support.daemon import ROOT, daemon
from tests.support.eventually import eventually
from tests.support.rabbitmq import RabbitMQ

# What is looked at here is the same on every delivery path.
pytestmark = [pytest.mark.integration, pytest.mark.delivery_path("fast")]


def settings(folder: Path, broker: RabbitMQ, handler: str, more: str = "") -> Path:
    path = folder / "a.yaml"
    more_of_producer = "".join(f", {name}: {value}" for name, value in broker.settings.items())
    path.write_text(
        f"""\
pipelines:
  orders:
    class: tests.daemon.pipelines:{handler}
    producer: {{kind: rabbitmq, queue: work, url: "{broker.url}"{more_of_producer}}}
    context: {{file: {folder}/handled}}
{more}"""
    )
    return path


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


@pytest.mark.parametrize("workers", [1, 2])
async def test_lines_that_were_sent_are_each_handled_once(tmp_path: Path, rabbitmq: RabbitMQ, workers: int) -> None:
    await rabbitmq.declare("work")
    file = settings(tmp_path, rabbitmq, "Recorder")
    lines = [f"line {index}" for index in range(1_200)]
    sent = await send(file, lines)
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "1,200 lines were put on the queue\n", "")

    with daemon(tmp_path, file, options=("--workers", str(workers))) as running:
        await rabbitmq.until("work", ready=0, unacked=0)
        code, _ = await asyncio.to_thread(running.terminated)

    assert code == 0
    assert Counter((tmp_path / "handled").read_text().splitlines()) == Counter(lines)


async def test_sending_to_a_queue_that_is_not_there_says_so(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    sent = await send(settings(tmp_path, rabbitmq, "Recorder"), ["a"])
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr.startswith(f"broadway: there is no queue 'work' on {rabbitmq.where}")
    assert sent.stderr.endswith("; 0 lines were put on the queue before that\n")


async def test_lines_that_a_full_queue_refuses_are_named(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("work", **{"x-max-length": 5, "x-overflow": "reject-publish"})
    sent = await send(settings(tmp_path, rabbitmq, "Recorder"), [f"line {index}" for index in range(12)])
    count = await rabbitmq.ready("work")
    assert count is not None
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr.startswith(f"broadway: lines {', '.join(map(str, range(count + 1, 11)))}")
    assert sent.stderr.endswith(f"; {count} lines were put on the queue before that; go on with --skip {count}\n")


async def test_sending_makes_what_declare_active_would_make(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    file = settings(tmp_path, rabbitmq, "Recorder")
    file.write_text(
        file.read_text().replace(
            "queue: work,",
            "queue: work, declare: active, "
            "declare_options: {arguments: {x-max-length: 5, x-overflow: reject-publish}}, "
            "bindings: [{exchange: amq.topic, routing_key: 'orders.#'}],",
        )
    )
    sent = await send(file, ["a", "b"])
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, "2 lines were put on the queue\n", "")

    # The queue has the arguments, or this would be refused; and the binding leads to it.
    await rabbitmq.declare("work", **{"x-max-length": 5, "x-overflow": "reject-publish"})
    exchange = await rabbitmq.channel.get_exchange("amq.topic")
    await exchange.publish(Message(b"c"), "orders.new")
    await rabbitmq.until_ready(3)


async def test_nothing_is_sent_to_a_queue_that_the_broker_names(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    file = settings(tmp_path, rabbitmq, "Recorder")
    file.write_text(file.read_text().replace("queue: work", "queue: '', declare: active"))
    sent = await send(file, ["a"])
    assert (sent.returncode, sent.stderr) == (
        2,
        (
            f"broadway: {file}:4: pipelines.orders.producer.queue: the broker gives this queue a new name for "
            "each consumer; "
            "name the queue to send to\n"
        ),
    )


async def test_what_a_blocked_handler_held_is_back_on_the_broker(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    await rabbitmq.declare("work")
    file = settings(tmp_path, rabbitmq, "BlocksTheLoop", "    shutdown_timeout: 1s\n")
    assert (await send(file, ["a"] * 30)).returncode == 0
    with daemon(tmp_path, file) as running:
        await eventually((tmp_path / "handled").exists, timeout=30, what="a handler has started")
        code, seconds = await asyncio.to_thread(running.terminated)
        assert code == 75
        assert seconds < 3.0
    await rabbitmq.until("work", ready=30, unacked=0)
