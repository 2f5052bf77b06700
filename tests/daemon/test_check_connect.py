"""``broadway check --connect``: files and their disks, sources of users, exit codes, and its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from broadway_py.cli import app
from broadway_py.daemon.connect_check import examine
from broadway_py.examination import Finding
from broadway_py.queue import Queue
from broadway_py.storage import examination
from tests.daemon import examined
from tests.state.test_place import unwritable
from tests.support.daemon import ROOT, daemon
from tests.support.disk import mounted
from tests.support.eventually import eventually_sync

ORDERS = "pipelines.orders.producer"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def checked(text: str, *options: str) -> Result:
    Path("a.yaml").write_text(text)
    return CliRunner().invoke(app, ["check", "--connect", *options, "a.yaml"])


def reads(path: str, more: str = "") -> str:
    """Settings with a pipeline that reads the embedded queue ``orders`` there."""
    return (
        "pipelines:\n"
        "  orders:\n"
        "    class: tests.daemon.pipelines:Plain\n"
        f"    producer: {{kind: queue, path: {path}, queue: orders}}\n{more}"
    )


def keeps(path: str) -> str:
    """Settings with a pipeline that keeps windows there."""
    return (
        "pipelines:\n"
        "  shop:\n"
        "    class: tests.daemon.pipelines:Windows\n"
        "    producer: {kind: queue, path: q.db, queue: orders}\n"
        f"    state: {path}\n"
        "    aggregators: {sums: {emit_to: {kind: queue, path: out.db, queue: sums}}}\n"
    )


def of(reference: str) -> str:
    """Settings with a pipeline of this module's neighbour, whose class has its source."""
    return f"pipelines: {{orders: {{class: 'tests.daemon.examined:{reference}'}}}}\n"


async def put(path: str, *bodies: bytes) -> None:
    async with Queue(path, "orders") as queue:
        for body in bodies:
            await queue.put(body)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


# --- embedded queues and state files ----------------------------------------------------------------------------------


def test_a_queue_is_counted_and_no_file_is_made_or_changed(tmp_path: Path) -> None:
    asyncio.run(put("q.db", b"1", b"2", b"3"))
    text = reads("q.db", "    publishers: {out: {kind: queue, path: new.db, queue: done}}\n")
    Path("a.yaml").write_text(text)
    before = files_in(tmp_path)

    shown = checked(text)

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.splitlines() == [
        f"{ORDERS}: queue 'orders' in q.db is there: 3 messages ready, 0 delayed, 0 in flight, 0 dead",
        "pipelines.orders.publishers.out: queue 'done' in new.db is not there yet; the pipeline creates it",
        "ok: 1 pipeline: orders",
    ]
    assert files_in(tmp_path) == before


async def test_a_queue_is_counted_while_it_is_used() -> None:
    async with Queue("q.db", "orders") as queue:
        await queue.put(b"1")
        found = await asyncio.to_thread(examination.examine_queue, "q.db", "orders")
        assert [one.text for one in found] == [
            "queue 'orders' in q.db is there: 1 message ready, 0 delayed, 0 in flight, 0 dead"
        ]
        assert await asyncio.to_thread(examination.examine_queue, "q.db", "letters") == [
            Finding("right", "queue 'letters' in q.db is not there yet; the pipeline creates it in the file")
        ]


def test_a_directory_that_is_missing() -> None:
    shown = checked(reads("var/q.db"))
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == (
        f"broadway: a.yaml:4: {ORDERS}.path: queue file var/q.db: its directory var does not exist: create it, or "
        "choose another path\n"
    )


def test_a_file_that_may_not_be_written(tmp_path: Path) -> None:
    text = reads("q.db")
    Path("a.yaml").write_text(text)
    with unwritable(tmp_path):
        shown = CliRunner().invoke(app, ["check", "--connect", "a.yaml"])
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == (
        f"broadway: a.yaml:4: {ORDERS}.path: queue file q.db: the file cannot be opened or created: give this user "
        "write permission to the file and its directory, or choose another path\n"
    )


def test_a_file_of_another_program_and_one_that_is_damaged() -> None:
    with closing(sqlite3.connect("q.db")) as other:
        other.execute("CREATE TABLE theirs (x)")
    shown = checked(reads("q.db"))
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert shown.stderr == (
        f"broadway: a.yaml:4: {ORDERS}.path: queue file q.db: this is a SQLite database of another program; nothing "
        "was changed: choose another path\n"
    )

    Path("q.db").write_bytes(b"not a database, and longer than its header would be" * 20)
    shown = checked(reads("q.db"))
    assert shown.exit_code == 2
    assert shown.stderr == (
        f"broadway: a.yaml:4: {ORDERS}.path: queue file q.db: the file is not a SQLite database: choose another path\n"
    )


def test_a_file_of_a_newer_version() -> None:
    asyncio.run(put("q.db", b"1"))
    with closing(sqlite3.connect("q.db")) as newer:
        newer.execute("PRAGMA user_version = 999")
    shown = checked(reads("q.db"))
    assert shown.exit_code == 2
    assert shown.stderr.startswith(
        f"broadway: a.yaml:4: {ORDERS}.path: queue file q.db: the file has version 999, this program knows "
        "versions up to "
    )


def test_a_disk_that_is_full_or_almost(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "1M") as disk:
        if disk is None:
            pytest.skip("only root may mount a disk")
        shown = checked(reads("disk/q.db"))
        assert shown.exit_code == 0
        assert shown.stderr == (
            f"broadway: a.yaml:4: {ORDERS}.path: queue file disk/q.db: only 1.0 MB are free on its disk: free "
            "some space\n"
        )
        disk.fill()
        shown = checked(reads("disk/q.db"))
        assert shown.exit_code == 1
        assert shown.stderr == (
            f"broadway: a.yaml:4: {ORDERS}.path: queue file disk/q.db: the disk is full, so nothing can be stored: "
            "free some space\n"
        )


def test_state_that_is_new_and_state_whose_directory_is_missing() -> None:
    shown = checked(keeps("shop.db"))
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "pipelines.shop.state: state file shop.db is not there yet; the pipeline makes it\n" in shown.stdout
    assert not Path("shop.db").exists()

    shown = checked(keeps("none/shop.db"))
    assert shown.exit_code == 2
    assert shown.stderr == (
        "broadway: a.yaml:5: pipelines.shop.state.path: state file none/shop.db: its directory none does not exist: "
        "create it, or choose another path\n"
    )


def test_state_that_a_running_daemon_has(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(keeps("shop.db"))
    with daemon(tmp_path, file) as running:
        eventually_sync(lambda: running.get("/readyz")[0] == 200, what="the pipeline runs")
        shown = CliRunner().invoke(app, ["check", "--connect", "a.yaml"])
        assert shown.exit_code == 1
        assert shown.stderr == (
            f"broadway: a.yaml:5: pipelines.shop.state.path: state file shop.db: process {running.process.pid} has it; "
            "a pipeline that starts now stands by until it is free\n"
        )
        running.terminated()
    shown = CliRunner().invoke(app, ["check", "--connect", "a.yaml"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "pipelines.shop.state: state file shop.db is there: version " in shown.stdout


def test_each_partition_has_a_state_file() -> None:
    text = keeps("state").replace("queue: orders}", "queue: orders, partitions: 2}")
    shown = checked(text)
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "pipelines.shop.state: state directory state is not there yet; the pipeline makes it\n" in shown.stdout

    Path("state").mkdir()
    Path("state/1.db").write_bytes(b"x" * 1000)
    shown = checked(text)
    assert shown.exit_code == 2
    assert "pipelines.shop.state: state file state/0.db is not there yet; the pipeline makes it\n" in shown.stdout
    assert shown.stderr == (
        "broadway: a.yaml:5: pipelines.shop.state.path: state file state/1.db: the file is not a SQLite database: "
        "choose another path\n"
    )


# --- settings, and sources of users -----------------------------------------------------------------------------------


def test_wrong_settings_are_told_first_and_nothing_is_connected() -> None:
    shown = checked(reads("none/q.db").replace("queue: orders", "queu: orders"))
    assert shown.exit_code == 2
    assert "none/q.db" not in shown.stderr
    assert "unknown setting; known here" in shown.stderr


def test_without_connect_nothing_is_said_of_the_place_of_a_queue() -> None:
    Path("a.yaml").write_text(reads("none/q.db"))
    shown = CliRunner().invoke(app, ["check", "a.yaml"])
    assert (shown.exit_code, shown.stdout, shown.stderr) == (0, "ok: 1 pipeline: orders\n", "")


def test_what_is_wrong_decides_the_exit_code_and_no_secret_is_shown() -> None:
    shown = checked(of("ReadsFeed"), "--timeout", "7")
    assert shown.exit_code == 2
    assert shown.stdout == f"{ORDERS}: orders: dead_letter, retry; 7 s\n"
    assert shown.stderr.splitlines() == [
        f"broadway: a.yaml:1: {ORDERS}: it is slow at amqp://***@mq.example/",
        f"broadway: a.yaml:1: {ORDERS}.url: there is no such feed; correct url",
        f"broadway: a.yaml:1: {ORDERS}: it does not answer",
    ]


def test_json_has_every_finding_and_no_secret() -> None:
    shown = checked(of("ReadsFeed"), "--json")
    assert (shown.exit_code, shown.stderr) == (2, "")
    assert json.loads(shown.stdout) == [
        {"path": ORDERS, "level": "right", "text": "orders: dead_letter, retry; 10 s"},
        {"path": ORDERS, "level": "note", "text": "it is slow at amqp://***@mq.example/"},
        {"path": f"{ORDERS}.url", "level": "wrong", "text": "there is no such feed; correct url"},
        {"path": ORDERS, "level": "away", "text": "it does not answer"},
    ]


@pytest.mark.parametrize(
    ("reference", "code", "sentence"),
    [
        ("ReadsRefused", 2, "it refuses us"),
        ("ReadsAway", 1, "it is away"),
    ],
)
def test_a_source_that_raises(reference: str, code: int, sentence: str) -> None:
    shown = checked(of(reference))
    assert shown.exit_code == code
    assert shown.stdout == f"{ORDERS}: it has a name\n"
    assert shown.stderr == f"broadway: a.yaml:1: {ORDERS}: {sentence}\n"


def test_an_error_in_the_code_of_a_source_is_told_by_its_type_and_place() -> None:
    shown = checked(of("ReadsBroken"))
    assert (shown.exit_code, shown.stdout) == (2, f"{ORDERS}: it has a name\n")
    start, _, end = shown.stderr.partition("examined.py:")
    assert start.startswith(f"broadway: a.yaml:1: {ORDERS}: its examine() raised KeyError at ")
    assert end.endswith(" examine; report it to its author\n")
    assert "secret" not in shown.stderr


def test_a_source_that_cannot_be_examined_is_noted() -> None:
    shown = checked(of("ReadsSilent"))
    assert (shown.exit_code, shown.stdout) == (0, "ok: 1 pipeline: orders\n")
    assert shown.stderr == f"broadway: a.yaml:1: {ORDERS}: Silent has no examine(), so it was not connected to\n"


def test_a_source_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "_ENDING_S", 0.1)
    shown = checked(of("ReadsHanging"), "--timeout", "0.1")
    assert shown.exit_code == 1
    assert shown.stderr == (
        f"broadway: a.yaml:1: {ORDERS}: nothing more was found out within 0.5 s; check the network\n"
    )
    assert examined.Hanging.ended


# --- its end ----------------------------------------------------------------------------------------------------------


def started(folder: Path, text: str, *options: str) -> subprocess.Popen[str]:
    (folder / "a.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "broadway_py", "check", "--connect", *options, "a.yaml"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_a_look_up_that_cannot_be_cancelled_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with started(tmp_path, of("ReadsBlocking"), "--timeout", "0.1") as command:
        output, errors = command.communicate(timeout=60)
    assert command.returncode == 1
    assert (output, errors) == (
        "",
        f"broadway: a.yaml:1: {ORDERS}: the host name was not looked up in time\n",
    )


def test_ctrl_c_ends_it_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        text = reads("q.db").replace(
            "{kind: queue, path: q.db, queue: orders}", f"{{kind: rabbitmq, queue: q, url: '{url}'}}"
        )
        with started(tmp_path, text, "--timeout", "3600") as command:
            connection, _ = silent.accept()
            with connection:
                command.send_signal(signal.SIGINT)
                output, errors = command.communicate(timeout=60)
    assert (command.returncode, output, errors) == (130, "", "")
