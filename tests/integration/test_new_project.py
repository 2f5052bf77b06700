"""Each project that `broadway new` makes runs: orders that `broadway send` puts on its queue are stored."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.daemon import daemon
from tests.support.eventually import eventually
from tests.support.localstack import SQS
from tests.support.new_project import NewProject
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

WINDOWS = pytest.mark.parametrize("windows", [(), ("--windows",)], ids=["batches", "windows"])


async def until_its_orders_are_stored(project: NewProject, environ: Mapping[str, str]) -> None:
    with daemon(project.path, project.settings, environ=dict(environ)) as running:
        await asyncio.to_thread(running.until_ready)
        sent = await asyncio.to_thread(project.broadway, "send", "settings.yaml", "orders.jsonl", environ=environ)
        assert (sent.returncode, sent.stdout) == (0, "5 lines were put on the queue\n")
        await eventually(
            lambda: sorted(project.stored()) == sorted(project.expected), timeout=60, what="the orders are stored"
        )
        code, _ = await asyncio.to_thread(running.terminated)
    assert code == 0
    dead = await asyncio.to_thread(
        project.broadway, "dlq", "ls", "--config", "settings.yaml", "--json", environ=environ
    )
    assert dead.returncode == 0, dead.stderr
    assert len(dead.stdout.splitlines()) == (1 if project.has_windows else 2)


@WINDOWS
async def test_the_project_with_the_embedded_queue_runs(windows: tuple[str, ...], tmp_path: Path) -> None:
    project = NewProject(tmp_path, *windows)
    await until_its_orders_are_stored(project, {})

    shown = subprocess.run(
        ["make", "--no-print-directory", "show"],
        cwd=project.path,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert len(shown.stdout.splitlines()) == len(project.expected)


@pytest.mark.delivery_path("fast")  # the daemon is another process: it chooses by itself
@WINDOWS
async def test_the_project_with_rabbitmq_runs(windows: tuple[str, ...], tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    project = NewProject(tmp_path, "--source", "rabbitmq", *windows)
    await until_its_orders_are_stored(project, {"AMQP_URL": rabbitmq.url})


@WINDOWS
async def test_the_project_with_sqs_runs(windows: tuple[str, ...], tmp_path: Path, sqs: SQS) -> None:
    project = NewProject(tmp_path, "--source", "sqs", *windows)
    queue, dead = await sqs.queue(), await sqs.queue()
    environ = {"QUEUE_URL": queue.url, "DEAD_LETTER_QUEUE": dead.name}
    # The wait of a receive is 20 s, and a stop waits for it.
    project.settings.write_text(
        project.settings.read_text().replace("kind: sqs", "kind: sqs\n      wait_time_seconds: 1")
    )
    await until_its_orders_are_stored(project, environ)
