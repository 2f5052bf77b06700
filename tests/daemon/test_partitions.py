"""Partitions in settings files: what ``broadway check`` and ``broadway run`` refuse, and who owns what."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest.mock import Mock

import aiohttp
import pytest
import yaml
from typer.testing import CliRunner

from broadway_py.cli import app
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.new_files import tell_of_new_files
from broadway_py.daemon.pipelines.owners import owners_of, partitions_text
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.reload.resolved import resolved
from broadway_py.daemon.runner import run_settings
from broadway_py.daemon.settings.settings import Http, read_settings
from broadway_py.daemon.workers.supervisor import Supervisor
from broadway_py.producers import DummyProducer, QueueProducer
from broadway_py.state.partitions import StatePartition, file_of
from broadway_py.state.sqlite import SQLiteStore
from tests.daemon.pipelines import Plain
from tests.pipeline.support import logged
from tests.state.conftest import FACTS, checkpoint

ROOT = Path(__file__).parents[2]

SETTINGS = """\
pipelines:
  counts:
    class: tests.daemon.pipelines:Windows
    producer: {kind: queue, path: q.db, queue: orders, partitions: 4}
    state: state
    aggregators: {sums: {emit_to: {kind: queue, path: out.db, queue: sums}}}
  plain:
    class: tests.daemon.pipelines:Plain
    producer: {kind: queue, path: q.db, queue: letters}
workers: 2
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOSTNAME", "shop-5")
    path = tmp_path / "a.yaml"
    path.write_text(SETTINGS)
    return path


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize(
    ("change", "place", "sentence"),
    [
        (
            "pipelines.counts.producer.partitions=null",
            "a.yaml:6: pipelines.counts.aggregators",
            (
                "a key must have one owner, but 2 workers read the same source; set workers: 1, leave the aggregators "
                "out, or part the source (partitions), so that each worker owns some of the partitions"
            ),
        ),
        (
            "workers=5",
            "a.yaml:4: pipelines.counts.producer.partitions",
            (
                "5 workers share 4 partitions, so one of them would have nothing to do; set workers: 4 or less, or "
                "raise partitions"
            ),
        ),
        (
            "pipelines.counts.own=3",
            "--set pipelines.counts.own: pipelines.counts.own",
            (
                "2 workers share 1 partition, so one of them would have nothing to do; set workers: 1 or less, or "
                "raise partitions"
            ),
        ),
        (
            "pipelines.counts.own=2-5",
            "--set pipelines.counts.own: pipelines.counts.own",
            "'2-5' names the partition 5, but the source has 0 to 3",
        ),
        (
            "pipelines.counts.own=ordinal",
            "--set pipelines.counts.own: pipelines.counts.own",
            (
                "the host 'shop-5' has the number 5, but the source has 0 to 3; run 4 replicas at most, or raise "
                "partitions"
            ),
        ),
        (
            "pipelines.plain.own=0",
            "--set pipelines.plain.own: pipelines.plain.own",
            "'0' names partitions, but the sources have none; set partitions on the source, or leave own out",
        ),
        (
            "pipelines.counts.producer.concurrency=2",
            "--set pipelines.counts.producer.concurrency: pipelines.counts.producer.concurrency",
            "expected 1 with partitions, because each of them has one reader, got 2; leave concurrency out",
        ),
        (
            (
                "pipelines.counts.producer=[{kind: queue, path: q.db, queue: a, name: a, partitions: 4}, "
                "{kind: queue, path: q.db, queue: b, name: b, partitions: 2}]"
            ),
            "--set pipelines.counts.producer: pipelines.counts.producer.partitions",
            (
                "expected the same number for each source, because partition 0 of all sources belongs to one owner, "
                "got 4 for 'a', 2 for 'b'"
            ),
        ),
    ],
)
def test_what_cannot_have_one_owner_is_refused(
    settings: Path, command: str, change: str, place: str, sentence: str
) -> None:
    shown = CliRunner().invoke(app, [command, str(settings), "--set", change, "--set", "http=null"])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.replace(f"{settings.parent}/", "") == f"broadway: {place}: {sentence}\n"


@pytest.mark.parametrize("command", ["check", "run"])
async def test_another_number_than_the_files_have_is_refused(
    settings: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the workers would die again and again."""
    monkeypatch.chdir(settings.parent)
    Path("state").mkdir()
    store = SQLiteStore(file_of("state", 1), StatePartition(1, 3))
    await store.open({})
    await store.close()

    shown = await asyncio.to_thread(CliRunner().invoke, app, [command, str(settings), "--set", "http=null"])

    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr.replace(f"{settings.parent}/", "") == (
        "broadway: a.yaml:5: pipelines.counts.state: state file state/1.db: it belongs to one of 3 partitions, and the "
        "sources have 4, so that its keys may lie in others now: let its windows close with partitions: 3, and then "
        "choose another directory\n"
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "pipelines.counts.state=none/state",
            (
                "--set pipelines.counts.state: pipelines.counts.state: state directory none/state: its directory none "
                "does not exist: create it, or choose another path\n"
            ),
        ),
        # It is made at the start.
        ("pipelines.counts.state=state", ""),
        ("pipelines.counts.state=full", ""),
    ],
)
def test_check_says_that_the_place_of_the_state_is_missing(
    settings: Path, monkeypatch: pytest.MonkeyPatch, change: str, told: str
) -> None:
    monkeypatch.chdir(settings.parent)
    Path("full").mkdir()
    # Nobody owns this partition here.
    Path("full/0.db").mkdir()
    shown = CliRunner().invoke(app, ["check", str(settings), "--set", change, "--set", "pipelines.counts.own=1-3"])
    assert (shown.exit_code, shown.stdout) == (0, "ok: 2 pipelines: counts, plain\n")
    assert shown.stderr == (told and f"broadway: {told}")


async def stored(path: str, partition: StatePartition, *, checkpoints: int = 1) -> None:
    """Makes the file of a partition, with so many checkpoints."""
    store = SQLiteStore(path, partition)
    await store.open(FACTS)
    for number in range(1, checkpoints + 1):
        await store.commit(checkpoint(number))
    await store.close()


async def test_the_daemon_warns_of_new_files_beside_those_of_others_before_its_workers_start(
    settings: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(settings.parent)
    read = read_settings([settings], environ={})
    pipelines = build_pipelines(read, share=(0, read.workers))
    tell_of_new_files(pipelines, read.workers)
    Path("state").mkdir()
    tell_of_new_files(pipelines, read.workers)
    assert logged(caplog) == []

    await stored("state/2.db", StatePartition(2, 4))
    monkeypatch.setattr("broadway_py.daemon.runner.Watch", Mock())
    monkeypatch.setattr("broadway_py.daemon.workers.supervisor.Supervisor", Mock())
    run_settings(read, lambda: read)
    (line,) = logged(caplog)
    assert line == {
        "event": (
            "state directory state: it has 2.db, but not 0.db, 1.db, 3.db, which will be new: where such a partition "
            "was read before, its open windows lie on another machine or in a file that was moved, and results of both "
            "have the same ids: stop the pipeline and put that file here"
        ),
        "pipeline": "counts",
    }
    # A worker says nothing: another one may have made the files of its partitions just before.
    assert all(pipeline._sources.are_shared for pipeline in pipelines if pipeline.name == "counts")


def test_partitions_that_fit_are_no_mistake(settings: Path) -> None:
    shown = CliRunner().invoke(app, ["check", str(settings)])
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "ok: 2 pipelines: counts, plain\n", "")


@pytest.mark.parametrize(
    ("changes", "owned"),
    [
        ([], {0: (0, 2), 1: (1, 3)}),
        (["workers=3"], {0: (0, 3), 1: (1,), 2: (2,)}),
        (["pipelines.counts.own=1-3"], {0: (1, 3), 1: (2,)}),
        (["workers=1", "pipelines.counts.own=ordinal of 6", "pipelines.counts.producer.partitions=12"], {0: (5, 11)}),
    ],
)
def test_each_worker_owns_a_fixed_part(settings: Path, changes: list[str], owned: dict[int, tuple[int, ...]]) -> None:
    read = read_settings([settings], assignments=changes, environ={})
    pipelines = build_pipelines(read, share=(0, read.workers))
    assert owners_of(pipelines, read.workers) == {"counts": owned}
    for index in range(read.workers):
        counts, _ = build_pipelines(read, share=(index, read.workers))
        producers = [one["producer"] for one in counts.topology()["producers"]]
        assert producers == [f"queue.{partition}" for partition in owned[index]]


async def test_readyz_and_the_api_say_who_owns_what(tmp_path: Path) -> None:
    source = QueueProducer(tmp_path / "q.db", "orders", partitions=3)
    async with (
        Plain(producer=source, name="orders", own="1-2") as parted,
        Plain(producer=DummyProducer(), name="whole") as whole,
        serve(Http(port=0), LocalView([parted, whole], LagMeter())) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        await parted.ready(10)
        await whole.ready(10)
        ready = await (await client.get("/readyz")).json()
        described = await (await client.get("/api/pipelines")).json()

    assert ready["pipelines"] == {
        "orders": {"ready": True, "reasons": [], "owners": {"0": [1, 2]}},
        "whole": {"ready": True, "reasons": []},
    }
    assert [one["owners"] for one in described["pipelines"]] == [{"0": [1, 2]}, None]


async def test_a_worker_that_does_not_run_is_told_with_its_partitions(settings: Path) -> None:
    read = read_settings([settings], environ={})
    supervisor = Supervisor(resolved(read), build_pipelines(read, share=(0, read.workers)), Mock())
    try:
        assert supervisor.owners() == {"counts": {0: (0, 2), 1: (1, 3)}}
        assert supervisor.not_ready() == {
            "counts": ["worker 0 (partitions 0, 2): starting", "worker 1 (partitions 1, 3): starting"],
            "plain": ["worker 0: starting", "worker 1: starting"],
        }
    finally:
        supervisor._verdicts.close()


async def test_the_topology_of_the_daemon_has_the_readers_of_all_workers(settings: Path) -> None:
    read = read_settings([settings], assignments=["pipelines.counts.own=1-3"], environ={})
    pipelines = build_pipelines(read, share=(0, read.workers))
    supervisor = Supervisor(resolved(read), pipelines, Mock())
    try:
        told = supervisor.topologies()
    finally:
        supervisor._verdicts.close()
    assert [one["producer"] for one in told["counts"]["producers"]] == ["queue.1", "queue.2", "queue.3"]
    # All else is as a worker says it.
    for pipeline in pipelines:
        of_worker = pipeline.topology()
        assert {**told[pipeline.name], "producers": []} == {**of_worker, "producers": []}
    assert told["plain"] == pipelines[1].topology()


def test_partitions_in_words() -> None:
    assert partitions_text((2,)) == "partition 2"
    assert partitions_text((0, 4)) == "partitions 0, 4"


def test_the_settings_of_the_pods_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of each pod of the StatefulSet is the partition that it owns."""
    folder = ROOT / "deploy" / "kubernetes" / "windows"
    number = yaml.safe_load((folder / "statefulset.yaml").read_text())["spec"]["replicas"]
    url = tmp_path / "amqp-url"
    url.write_text("amqp://guest:guest@127.0.0.1/")
    for pod in range(number):
        monkeypatch.setenv("HOSTNAME", f"arrivals-{pod}")
        settings = read_settings(
            [folder / "settings.yaml"],
            assignments=[f"pipelines.arrivals.producer.url_file={url}"],
            environ={},
        )
        assert owners_of(build_pipelines(settings), 1) == {"arrivals": {0: (pod,)}}
