"""The quick start as its user runs it, counted from outside."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.daemon import ROOT, Daemon, Rows, daemon
from tests.support.eventually import eventually_sync

pytestmark = pytest.mark.integration

QUICKSTART = ROOT / "config" / "quickstart.yaml"


def recorded(folder: Path) -> tuple[str, ...]:
    """Options that make the shipments pipeline write down what it has handled."""
    return (
        "--set",
        "pipelines.shipments.class=tests.daemon.pipelines:RecordedShipments",
        "--set",
        f"pipelines.shipments.context={{folder: {folder}}}",
    )


def handled(folder: Path) -> Counter[int]:
    return Counter(int(line) for file in folder.glob("handled-*") for line in file.read_text().split())


def settled(running: Daemon) -> float:
    return running.total("broadway_messages_settled_total", pipeline="shipments", outcome="acked")


def until_some_are_settled(running: Daemon, more_than: float = 300) -> None:
    eventually_sync(lambda: settled(running) > more_than, timeout=30, what=f"{more_than} shipments are settled")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_quick_start_runs_shows_itself_and_drains_without_losing_anything(tmp_path: Path, workers: int) -> None:
    with daemon(tmp_path, QUICKSTART, options=("--workers", str(workers), *recorded(tmp_path))) as running:
        running.until_ready()
        until_some_are_settled(running)
        first = settled(running)
        until_some_are_settled(running, first + 300)
        assert running.get("/livez")[0] == 200
        assert "<title>Broadway</title>" in running.get("/")[1]
        assert '"name": "shipments"' in running.get("/api/pipelines")[1]
        assert running.total("shipments_containers_total") > 0
        assert running.total("broadway_messages_failed_total", pipeline="shipments", cause="invalid") > 0

        code, seconds = running.terminated()

    assert code == 0
    assert seconds < 25
    rows = Rows(tmp_path / "var" / "quickstart.db")
    done = handled(tmp_path)
    assert rows.put == done.keys() | rows.waiting | rows.dead, "everything that was put is handled, left or dead"
    assert done.keys().isdisjoint(rows.waiting | rows.dead)
    assert max(done.values()) == 1, "nothing is handled twice"
    assert rows.dead, "some lines are broken"


def test_a_worker_that_is_killed_is_started_again_and_counters_never_go_down(tmp_path: Path) -> None:
    with daemon(tmp_path, QUICKSTART, options=("--workers", "2", *recorded(tmp_path))) as running:
        running.until_ready()
        until_some_are_settled(running)
        before = running.metrics()
        victim = running.workers()[0]

        os.kill(victim, signal.SIGKILL)

        died = running.until_logged("worker died; starting it again")
        assert (died["index"], died["exit"]) == (0, "killed by SIGKILL")
        running.until_logged("worker started", count=3)
        middle = running.metrics()
        running.until_ready()
        until_some_are_settled(running, settled(running) + 300)
        after = running.metrics()
        assert running.total("broadway_worker_restarts_total") == 1
        assert running.workers()[0] != victim
        for earlier, later in ((before, middle), (middle, after)):
            for series, value in earlier.items():
                if series[0].endswith(("_total", "_count", "_bucket")) and not series[0].startswith(
                    ("python_", "process_")
                ):
                    assert later.get(series, -1.0) >= value, series
        assert running.terminated()[0] == 0

    rows = Rows(tmp_path / "var" / "quickstart.db")
    assert rows.put == handled(tmp_path).keys() | rows.waiting | rows.dead


@pytest.mark.parametrize("workers", [1, 2])
def test_each_scrape_adds_up(tmp_path: Path, workers: int) -> None:
    with daemon(tmp_path, QUICKSTART, options=("--workers", str(workers))) as running:
        running.until_ready()
        for _ in range(5):
            scrape = running.metrics()
            for (name, labels), received in scrape.items():
                if name != "broadway_messages_received_total":
                    continue
                outcomes = sum(
                    value
                    for (other, series), value in scrape.items()
                    if other == "broadway_messages_settled_total" and set(labels) <= set(series)
                )
                assert received == outcomes + scrape["broadway_messages_in_flight", labels], labels


def test_workers_whose_supervisor_was_killed_drain_and_end(tmp_path: Path) -> None:
    with daemon(tmp_path, QUICKSTART, options=("--workers", "2", *recorded(tmp_path))) as running:
        running.until_ready()
        until_some_are_settled(running)
        workers = list(running.workers().values())

        running.signal(signal.SIGKILL)

        eventually_sync(lambda: not any(map(_lives, workers)), timeout=30, what="the workers have ended")

    assert [line["event"] for line in running.log].count("the supervisor is gone; draining") == 2
    assert [line for line in running.log if line["level"] == "error"] == []
    rows = Rows(tmp_path / "var" / "quickstart.db")
    done = handled(tmp_path)
    assert rows.put == done.keys() | rows.waiting | rows.dead
    assert done.keys().isdisjoint(rows.waiting | rows.dead), "they have settled what they had handled"


def _lives(process: int) -> bool:
    # An orphan that nobody reaps stays as a zombie.
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_is_asked_to_end_drains_and_is_started_again(tmp_path: Path) -> None:
    with daemon(tmp_path, QUICKSTART, options=("--workers", "2")) as running:
        running.until_ready()
        os.kill(running.workers()[1], signal.SIGTERM)
        died = running.until_logged("worker died; starting it again")
        assert (died["index"], died["exit"]) == (1, "exit code 0")
        running.until_logged("worker started", count=3)
        running.until_ready()
        assert running.terminated()[0] == 0


def test_pausing_reaches_every_worker_and_those_started_later(tmp_path: Path) -> None:
    with daemon(tmp_path, QUICKSTART, options=("--workers", "2")) as running:
        running.until_ready()
        assert running.post("/api/pipelines/shipments/pause") == 200
        status, body = running.get("/readyz?pipeline=shipments")
        assert status == 503
        assert "worker 0: paused" in body
        assert "worker 1: paused" in body

        os.kill(running.workers()[0], signal.SIGKILL)
        running.until_logged("worker started", count=3)
        eventually_sync(
            lambda: running.get("/readyz?pipeline=shipments")[1].count(": paused") == 2,
            timeout=30,
            what="the new worker is paused too",
        )

        assert running.post("/api/pipelines/shipments/resume") == 200
        running.until_ready()


def test_a_setting_that_only_a_worker_refuses_ends_all_with_2(tmp_path: Path) -> None:
    settings = tmp_path / "a.yaml"
    settings.write_text("pipelines: {a: {class: 'tests.daemon.pipelines:RefusedInWorkers'}}\n")
    with daemon(tmp_path, settings, options=("--workers", "2")) as running:
        assert running.exit_code() == 2
    assert running.lines[-1] == f"broadway: {settings}:1: pipelines.a.context: this machine has no licence"
    assert not any(line["event"].startswith("worker died") for line in running.log)
    assert len(running.workers()) == 2


def test_workers_whose_sources_have_ended_end_the_daemon(tmp_path: Path) -> None:
    settings = tmp_path / "a.yaml"
    settings.write_text("pipelines: {a: {class: 'tests.daemon.pipelines:Finite'}}\n")
    with daemon(tmp_path, settings, options=("--workers", "2")) as running:
        assert running.exit_code() == 0
    assert len([line for line in running.log if line["event"] == "worker started"]) == 2
