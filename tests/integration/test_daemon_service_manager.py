"""A daemon tells systemd how it is: what a real socket receives from a real process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_py.queue import Queue
from tests.support.daemon import daemon
from tests.support.eventually import eventually_sync
from tests.support.ports import free_port
from tests.support.service_manager import Listener, listening

pytestmark = pytest.mark.integration

#: A module that notes which variables it and its process see.
NOTES = """
import os
from pathlib import Path
from tests.daemon.pipelines import Recorder
Path(f"seen-{os.getpid()}").write_text(" ".join(os.environ))
"""


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    with listening(tmp_path / "notify") as listener:
        yield listener


def told_to(systemd: Listener, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": systemd.address, **more}


def settings(folder: Path, source: str, handler: str = "tests.daemon.pipelines:Recorder") -> Path:
    path = folder / "a.yaml"
    path.write_text(
        f"""\
pipelines:
  orders:
    class: {handler}
    producer: {source}
    processors: {{concurrency: 1}}
    shutdown_timeout: 1.0
    context: {{file: {folder}/handled}}
"""
    )
    return path


def queue(folder: Path) -> str:
    return f"{{kind: queue, path: {folder}/q.db, queue: orders}}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_and_a_stop_are_told(tmp_path: Path, systemd: Listener, workers: int) -> None:
    file = settings(tmp_path, queue(tmp_path))
    with daemon(tmp_path, file, options=("--workers", str(workers)), environ=told_to(systemd)) as running:
        systemd.until("READY=1")
        assert running.get("/livez")[0] == 200
        systemd.until("STATUS=1 pipeline, 1 connected")
        assert running.terminated()[0] == 0
        systemd.until("STOPPING=1")
    assert systemd.changes == ["READY=1", "STOPPING=1"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broker_that_is_away_does_not_keep_the_unit_from_starting(
    tmp_path: Path, systemd: Listener, workers: int
) -> None:
    url = f"amqp://guest:secret@127.0.0.1:{free_port()}/"
    file = settings(tmp_path, f"{{kind: rabbitmq, queue: orders, url: '{url}'}}")
    with daemon(tmp_path, file, options=("--workers", str(workers)), environ=told_to(systemd)) as running:
        systemd.until("READY=1")
        eventually_sync(
            lambda: any("1 pipeline, 0 connected; orders: " in line for line in systemd.lines),
            what="the status says that it is not connected",
        )
        assert running.terminated()[0] == 0
    assert "secret" not in " ".join(systemd.lines)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_users_code_and_its_processes_see_none_of_the_variables(
    tmp_path: Path, systemd: Listener, workers: int
) -> None:
    (tmp_path / "notes.py").write_text(NOTES)
    file = settings(tmp_path, queue(tmp_path), "notes:Recorder")
    environ = told_to(systemd, WATCHDOG_USEC="10000000")
    with daemon(tmp_path, file, options=("--workers", str(workers)), environ=environ) as running:
        systemd.until("READY=1")
        assert running.terminated()[0] == 0
    seen = [path.read_text().split() for path in tmp_path.glob("seen-*")]
    assert len(seen) == (1 if workers == 1 else 3)
    assert not any(name.startswith(("NOTIFY_", "WATCHDOG_")) for names in seen for name in names)


def test_a_reload_is_told_and_a_refused_one_is_in_the_status(tmp_path: Path, systemd: Listener) -> None:
    file = settings(tmp_path, queue(tmp_path))
    with daemon(tmp_path, file, environ=told_to(systemd)) as running:
        systemd.until("READY=1")
        right = file.read_text()
        for text, count in ((right, 2), (right.replace("concurrency", "concurency"), 3), (right, 4)):
            file.write_text(text)
            running.signal(signal.SIGHUP)
            systemd.until("READY=1", count=count)
            told = "STATUS=1 pipeline, 1 connected"
            if text != right:
                told += "; the last reload was refused, and the log says why"
            eventually_sync(
                lambda told=told: [line for line in systemd.lines if "STATUS=" in line][-1] == told,  # type: ignore[misc]
                what=f"it tells {told}",
            )
        assert running.terminated()[0] == 0
    assert systemd.changes == ["READY=1", *["RELOADING=1", "READY=1"] * 3, "STOPPING=1"]


async def test_a_blocked_loop_tells_the_watchdog_nothing(tmp_path: Path, systemd: Listener) -> None:
    file = settings(tmp_path, queue(tmp_path), "tests.daemon.pipelines:BlocksTheLoop")
    with daemon(tmp_path, file, environ=told_to(systemd, WATCHDOG_USEC="200000")) as running:
        systemd.until("WATCHDOG=1", count=5)
        async with Queue(tmp_path / "q.db", "orders") as work:
            await work.put(b"x")
        blocked = "code blocks the event loop; no message is handled until it returns"
        running.until_logged(blocked)
        count = len(systemd.lines)
        # It is logged again a second later, which is ten times the time between two words to the watchdog.
        running.until_logged(blocked, count=2)
        assert len(systemd.lines) == count
        assert running.terminated()[0] == 75


@pytest.mark.faults
def test_a_worker_that_does_not_answer_tells_the_watchdog_nothing(tmp_path: Path, systemd: Listener) -> None:
    file = settings(tmp_path, queue(tmp_path))
    environ = told_to(systemd, WATCHDOG_USEC="200000")
    with daemon(tmp_path, file, options=("--workers", "2"), environ=environ) as running:
        systemd.until("READY=1")
        os.kill(running.workers()[1], signal.SIGSTOP)
        eventually_sync(lambda: running.get("/livez")[0] == 503, timeout=30, what="/livez complains")
        count = systemd.lines.count("WATCHDOG=1")
        eventually_sync(
            lambda: running.total("broadway_worker_silent_seconds", worker="1") > 11, what="it is silent for 11 s"
        )
        assert systemd.lines.count("WATCHDOG=1") <= count + 1
        os.kill(running.workers()[1], signal.SIGCONT)
        systemd.until("WATCHDOG=1", count=count + 3)


def test_a_pipeline_that_cannot_start_is_never_told_as_ready(tmp_path: Path, systemd: Listener) -> None:
    file = settings(tmp_path, queue(tmp_path), "tests.daemon.pipelines:RaisesInSetup")
    with daemon(tmp_path, file, environ=told_to(systemd)) as running:
        assert running.exit_code() == 1
        systemd.until("STOPPING=1")
    assert systemd.changes == ["STOPPING=1"]
