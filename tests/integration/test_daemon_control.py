"""A daemon of workers that is changed over HTTP: each worker has its share, also one that starts later."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration

TOKEN = "canary-71e9-open-sesame"


def settings(folder: Path) -> Path:
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  orders:
    class: tests.daemon.pipelines:TellsItsLimits
    producer: {{kind: queue, path: {folder}/q.db, queue: orders}}
    processors: {{concurrency: 2}}
    rate_limit: {{allowed_messages: 1000, interval: 100ms}}
    context: {{folder: {folder}}}
    shutdown_timeout: 2
workers: 2
http: {{token_file: {folder}/token}}
"""
    )
    return path


def put(folder: Path, count: int) -> None:
    async def all_of_them() -> None:
        async with Queue(folder / "q.db", "orders") as queue:
            await queue.put_many([b"x"] * count)

    asyncio.run(all_of_them())


def limits_of(folder: Path, worker: int) -> str:
    """What this process last said of its limits."""
    told = folder / f"limits-{worker}"
    return told.read_text().splitlines()[-1] if told.exists() else ""


def until_both_say(folder: Path, running: Daemon, said: set[str]) -> None:
    def is_so() -> bool:
        put(folder, 20)
        return {limits_of(folder, worker) for worker in running.workers().values()} == said

    eventually_sync(is_so, timeout=60, what=f"the workers say {said}")


def test_each_worker_has_its_share_also_one_that_starts_later(tmp_path: Path) -> None:
    with daemon(tmp_path, settings(tmp_path)) as running:
        running.until_ready()
        heard = {"pipeline": "orders", "heard": [0, 1], "not_heard": {}}
        status, told = running.posted("/api/pipelines/orders/rate_limit", {"allowed_messages": 301}, token=TOKEN)
        assert (status, told) == (200, {**heard, "done": "rate_limit"})
        status, told = running.posted("/api/pipelines/orders/concurrency", {"processors": 5}, token=TOKEN)
        assert (status, told) == (200, {**heard, "done": "concurrency"})
        until_both_say(tmp_path, running, {"151 0.1 5", "150 0.1 5"})

        killed = running.workers()[0]
        os.kill(killed, signal.SIGKILL)
        running.until_logged("worker died; starting it again")
        status, told = running.posted("/api/pipelines/orders/concurrency", {"processors": 7}, token=TOKEN)
        if status == 503:  # it may run again already
            assert (told["heard"], list(told["not_heard"])) == ([1], ["0"])
            assert told["not_heard"]["0"] in {
                "it does not run now; it will start with it",
                "it is still starting; it will do so once it runs",
            }
        eventually_sync(lambda: killed not in running.workers().values(), timeout=60, what="another worker runs")
        running.until_ready()

        until_both_say(tmp_path, running, {"151 0.1 7", "150 0.1 7"})
        assert TOKEN not in "\n".join(running.lines)


def test_without_the_token_the_workers_are_not_changed(tmp_path: Path) -> None:
    with daemon(tmp_path, settings(tmp_path)) as running:
        running.until_ready()
        for token in (None, "canary-71e9-another-one"):
            assert running.posted("/api/pipelines/orders/pause", token=token)[0] == 401
            assert running.posted("/api/pipelines/orders/concurrency", {"processors": 5}, token=token)[0] == 401
        until_both_say(tmp_path, running, {"500 0.1 2"})
