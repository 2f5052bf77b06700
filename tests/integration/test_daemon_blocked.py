"""Handlers that never return cannot keep the process: it leaves by the deadline, and their messages stay."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import Daemon, Rows, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration

HANDLERS = ["SleepsInThread", "SpinsInThread", "BlocksTheLoop"]


async def put(path: Path, count: int) -> None:
    async with Queue(path, "work") as queue:
        await queue.put_many([b"x"] * count)


def settings(folder: Path, handler: str, shutdown_timeout: float) -> Path:
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  stuck:
    class: tests.daemon.pipelines:{handler}
    producer: {{kind: queue, path: {folder}/q.db, queue: work}}
    processors: {{concurrency: 1}}
    shutdown_timeout: {shutdown_timeout}
    context: {{file: {folder}/started}}
"""
    )
    return path


def until_stuck(folder: Path, running: Daemon, count: int = 1) -> None:
    started = folder / "started"
    assert running.url
    eventually_sync(
        lambda: started.exists() and started.read_text().count("\n") >= count, timeout=30, what="a handler has started"
    )


def nothing_was_settled(folder: Path) -> bool:
    rows = Rows(folder / "q.db")
    return rows.waiting == rows.put and not rows.dead


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_drain_that_cannot_end_is_left_by_the_deadline(tmp_path: Path, handler: str, workers: int) -> None:
    await put(tmp_path / "q.db", 40)
    file = settings(tmp_path, handler, 1.0)
    with daemon(tmp_path, file, options=("--workers", str(workers))) as running:
        until_stuck(tmp_path, running, workers)
        code, seconds = running.terminated()
    assert code == 75
    assert seconds < 1.0 + 2.0
    assert nothing_was_settled(tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_second_signal_ends_it_within_two_seconds(tmp_path: Path, handler: str, workers: int) -> None:
    await put(tmp_path / "q.db", 40)
    file = settings(tmp_path, handler, 60.0)
    with daemon(tmp_path, file, options=("--workers", str(workers))) as running:
        until_stuck(tmp_path, running, workers)
        running.signal(signal.SIGINT)
        running.until_logged("stopping")
        asked = time.monotonic()
        # Sooner it would be the same wish.
        eventually_sync(lambda: time.monotonic() - asked > 1.1, what="more than a second has passed")
        began = time.monotonic()
        running.signal(signal.SIGINT)
        assert running.exit_code() == 75
        assert time.monotonic() - began < 2.0
    assert nothing_was_settled(tmp_path)


async def test_the_stack_of_a_blocked_loop_is_in_the_log(tmp_path: Path) -> None:
    await put(tmp_path / "q.db", 1)
    with daemon(tmp_path, settings(tmp_path, "BlocksTheLoop", 0.5)) as running:
        until_stuck(tmp_path, running)
        assert running.terminated()[0] == 75
    # The watch of the event loop has a thread of its own, and may say something behind it.
    event = "the drain ran out of time and the event loop does not answer; the process ends without it"
    (told,) = (line for line in running.log if line["event"] == event)
    assert "time.sleep(1e6)" in told["stack"]


async def test_what_was_left_is_handled_after_a_restart(tmp_path: Path) -> None:
    await put(tmp_path / "q.db", 5)
    with daemon(tmp_path, settings(tmp_path, "BlocksTheLoop", 0.5)) as running:
        until_stuck(tmp_path, running)
        assert running.terminated()[0] == 75
    with daemon(tmp_path, settings(tmp_path, "Recorder", 5.0)) as running:
        assert running.url
        eventually_sync(lambda: not Rows(tmp_path / "q.db").waiting, timeout=30, what="the queue is empty")
        assert running.terminated()[0] == 0
    assert (tmp_path / "started").read_text().count("x") == 5
