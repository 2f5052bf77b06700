"""A worker that does not answer: the others go on, and whoever asks is told which one it is."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, daemon
from tests.support.eventually import eventually_sync

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def settings(folder: Path, *, shutdown_timeout: float = 2.0) -> Path:
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  orders:
    class: tests.daemon.pipelines:Recorder
    producer: {{kind: queue, path: {folder}/q.db, queue: orders}}
    shutdown_timeout: {shutdown_timeout}
    context: {{file: {folder}/handled}}
workers: 2
"""
    )
    return path


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def workers(running: Daemon) -> list[dict[str, Any]]:
    """What ``/api/workers`` tells."""
    told: list[dict[str, Any]] = json.loads(running.get("/api/workers")[1])["workers"]
    return told


def silent_worker(running: Daemon) -> int:
    """Worker 1, stopped."""
    running.until_ready()
    worker = running.workers()[1]
    os.kill(worker, signal.SIGSTOP)
    return worker


def test_a_stopped_worker_stops_neither_scrapes_nor_the_drain(tmp_path: Path) -> None:
    with daemon(tmp_path, settings(tmp_path)) as running:
        stopped = silent_worker(running)
        # A pipe holds some 700 requests for a report.
        with closing(HTTPConnection(running.url.removeprefix("http://"), timeout=10)) as client:
            for _ in range(850):
                client.request("GET", "/api/pipelines/orders")
                assert client.getresponse().read()
        assert running.total("broadway_worker_silent_seconds", worker="1") > 2.5
        assert running.total("broadway_worker_silent_seconds", worker="0") < 2.5
        eventually_sync(lambda: running.get("/livez")[0] == 503, timeout=30, what="/livez complains")
        assert "worker 1 has not answered for " in running.get("/livez")[1]
        assert "worker 1: it has not answered for " in running.get("/readyz")[1]
        assert "worker 1: it has not answered for " in running.get("/api/pipelines")[1]
        assert "worker 0" not in running.get("/livez")[1]
        answers, silent = workers(running)
        assert (answers["state"], answers["reason"], answers["restarts"]) == ("running", None, 0)
        assert (silent["state"], silent["pid"]) == ("silent", stopped)
        assert silent["reason"].startswith("it has not answered for ")

        code, seconds = running.terminated()

        assert (code, seconds < 2.0 + 2.0) == (75, True)
        assert is_gone(stopped)
        assert is_gone(running.workers()[0])
    drained = [line["worker"] for line in running.log if line["event"] == "drained"]
    assert drained == [0]


def test_a_pause_says_which_worker_has_not_heard_it_and_the_last_wish_reaches_it_later(tmp_path: Path) -> None:
    with daemon(tmp_path, settings(tmp_path)) as running:
        stopped = silent_worker(running)
        # Only the first wish waits: then the worker is known to be silent. The last one is another one than the first.
        for wish in ("resume", *("pause", "resume") * 30):
            assert running.post(f"/api/pipelines/orders/{wish}") == 503
        status, told = running.posted("/api/pipelines/orders/pause")
        assert (status, told["pipeline"], told["heard"], list(told["not_heard"])) == (503, "orders", [0], ["1"])
        assert told["error"].startswith(
            "not every worker has carried out pause of 'orders': worker 1: it has not answered for "
        )
        assert told["error"].endswith(" s; it will do so once it answers")
        os.kill(stopped, signal.SIGCONT)
        eventually_sync(
            lambda: running.get("/readyz")[1].count(": paused") == 2, timeout=30, what="both workers are paused"
        )
        assert running.posted("/api/pipelines/orders/resume") == (
            200,
            {"pipeline": "orders", "done": "resume", "heard": [0, 1], "not_heard": {}},
        )
        running.until_ready()
        assert running.terminated()[0] == 0


def test_a_worker_that_does_not_run_is_named_and_starts_paused(tmp_path: Path) -> None:
    with daemon(tmp_path, settings(tmp_path)) as running:
        running.until_ready()
        os.kill(running.workers()[1], signal.SIGKILL)
        running.until_logged("worker died; starting it again")
        status, told = running.posted("/api/pipelines/orders/pause")
        if status == 503:  # it may run again already
            assert (told["heard"], list(told["not_heard"])) == ([0], ["1"])
            assert told["not_heard"]["1"] in {
                "it does not run now; it will start paused",
                "it is still starting; it will do so once it runs",
            }
        eventually_sync(
            lambda: running.get("/readyz")[1].count(": paused") == 2, timeout=60, what="both workers are paused"
        )
        assert [(one["state"], one["restarts"], one["reason"]) for one in workers(running)] == [
            ("running", 0, None),
            ("running", 1, None),
        ]
        assert running.terminated()[0] == 0


def test_a_second_signal_ends_a_stopped_worker_too(tmp_path: Path) -> None:
    with daemon(tmp_path, settings(tmp_path, shutdown_timeout=60.0)) as running:
        stopped = silent_worker(running)
        running.signal(signal.SIGINT)
        running.until_logged("drained")
        asked = time.monotonic()
        # Sooner it would be the same wish.
        eventually_sync(lambda: time.monotonic() - asked > 1.1, what="more than a second has passed")
        running.signal(signal.SIGINT)
        assert running.exit_code(10) == 75
        assert is_gone(stopped)
