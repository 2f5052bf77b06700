"""What systemd is told, as a real socket receives it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from broadway_py.daemon.process.service_manager import ServiceManager, service_manager, status_of
from tests.daemon.snapshots import pipeline, producer
from tests.support.eventually import eventually
from tests.support.service_manager import Listener, listening

#: Microseconds: as short as a test needs it.
SHORT = "20000"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Listener]:
    with listening(tmp_path / "notify") as listener:
        yield listener


@contextmanager
def told_to(systemd: Listener, **more: str) -> Iterator[ServiceManager]:
    with closing(ServiceManager({"NOTIFY_SOCKET": systemd.address, **more})) as manager:
        yield manager


def test_a_start_and_a_stop_are_told_once(systemd: Listener) -> None:
    with told_to(systemd) as manager:
        manager.ready()
        manager.ready()
        manager.stopping()
        manager.stopping()
        manager.ready()
        systemd.until("STOPPING=1")
    assert systemd.lines == ["READY=1", "STOPPING=1"]


def test_an_abstract_name_is_told_too() -> None:
    with listening(f"@broadway-{os.getpid()}-notify") as systemd, told_to(systemd) as manager:
        manager.ready()
        systemd.until("READY=1")


def test_a_reload_is_told_with_a_time_after_the_signal_and_has_an_end(systemd: Listener) -> None:
    with told_to(systemd) as manager:
        manager.ready()
        signalled = time.monotonic_ns() // 1000
        with manager.reloading():
            systemd.until("RELOADING=1")
            assert systemd.changes == ["READY=1", "RELOADING=1"]
        systemd.until("READY=1", count=2)
    (told,) = [
        int(line.removeprefix("MONOTONIC_USEC=")) for line in systemd.lines if line.startswith("MONOTONIC_USEC=")
    ]
    assert signalled <= told <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("ended_by", [RuntimeError, asyncio.CancelledError])
def test_a_reload_that_fails_has_an_end_too(systemd: Listener, ended_by: type[BaseException]) -> None:
    with told_to(systemd) as manager:
        manager.ready()
        with pytest.raises(ended_by), manager.reloading():
            raise ended_by
        systemd.until("READY=1", count=2)
    assert systemd.changes == ["READY=1", "RELOADING=1", "READY=1"]


def test_a_reload_before_the_start_is_complete_does_not_complete_it(systemd: Listener) -> None:
    with told_to(systemd) as manager:
        with manager.reloading():
            pass
        manager.ready()
        systemd.until("READY=1")
    assert systemd.lines == ["READY=1"]


def test_a_stop_during_a_reload_is_the_last_word(systemd: Listener) -> None:
    with told_to(systemd) as manager:
        manager.ready()
        with manager.reloading():
            manager.stopping()
        with manager.reloading():
            pass
        systemd.until("STOPPING=1")
    assert systemd.changes == ["READY=1", "RELOADING=1", "STOPPING=1"]


async def test_the_loop_tells_that_it_runs_at_half_of_the_time_and_a_status_when_it_changes(systemd: Listener) -> None:
    statuses = iter(["1 pipeline,\n0 connected", "1 pipeline, 0 connected"])
    with told_to(systemd, WATCHDOG_USEC=SHORT) as manager:
        with manager.watchdog(lambda: next(statuses, "1 pipeline, 1 connected")):
            await eventually(lambda: systemd.lines.count("WATCHDOG=1") >= 5, what="the watchdog is told")
            manager.remark = "the last reload was refused"
            await eventually(lambda: any("refused" in line for line in systemd.lines), what="the remark is told")
        manager.ready()
        systemd.until("READY=1")  # by then, all that came before has been read
        count = systemd.lines.count("WATCHDOG=1")
        manager.stopping()
        systemd.until("STOPPING=1")
    assert systemd.lines.count("WATCHDOG=1") == count
    assert [line for line in systemd.lines if line.startswith("STATUS=")] == [
        "STATUS=1 pipeline, 0 connected",
        "STATUS=1 pipeline, 1 connected",
        "STATUS=1 pipeline, 1 connected; the last reload was refused",
    ]


async def test_the_watchdog_hears_nothing_of_a_process_that_is_not_alive(systemd: Listener) -> None:
    answers = iter([True, False, False, False, True])
    asked: list[bool] = []

    def is_alive() -> bool:
        asked.append(next(answers, True))
        return asked[-1]

    with told_to(systemd, WATCHDOG_USEC=SHORT) as manager, manager.watchdog(lambda: "", is_alive):
        await eventually(lambda: len(asked) >= 5, what="it was asked five times")
        systemd.until("WATCHDOG=1", count=2)
        seen = len(asked)
    assert seen - 3 <= len(systemd.lines) <= len(asked) - 3


@pytest.mark.parametrize(
    "variables",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": SHORT, "WATCHDOG_PID": "1"}],
)
async def test_without_a_watchdog_for_this_process_only_the_status_is_told(
    systemd: Listener, variables: dict[str, str]
) -> None:
    with told_to(systemd, **variables) as manager, manager.watchdog(lambda: "1 pipeline, 1 connected"):
        await eventually(lambda: systemd.lines, what="the status is told")
    assert systemd.lines == ["STATUS=1 pipeline, 1 connected"]


async def test_a_watchdog_for_this_process_is_told(systemd: Listener) -> None:
    with (
        told_to(systemd, WATCHDOG_USEC=SHORT, WATCHDOG_PID=str(os.getpid())) as manager,
        manager.watchdog(lambda: ""),
    ):
        await eventually(lambda: "WATCHDOG=1" in systemd.lines, what="the watchdog is told")


async def test_without_a_service_manager_nothing_is_told() -> None:
    looked: list[str] = []

    def look() -> str:
        looked.append("")
        return ""

    with closing(ServiceManager({"WATCHDOG_USEC": "1"})) as manager, manager.watchdog(look):
        manager.ready()
        with manager.reloading():
            await asyncio.sleep(0)
        manager.stopping()
        await asyncio.sleep(0)
    assert not looked


def test_child_processes_inherit_none_of_the_variables(systemd: Listener) -> None:
    environ = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1", "HOME": "/"}
    ServiceManager(environ).close()
    assert environ == {"HOME": "/"}


def test_a_process_has_one_service_manager() -> None:
    assert service_manager() is service_manager()


def warnings(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.msg for record in caplog.records if isinstance(record.msg, dict)]


@pytest.mark.parametrize(
    ("address", "reason"),
    [("/nowhere/notify", "No such file or directory"), ("/" + "x" * 200, "AF_UNIX path too long")],
)
def test_a_socket_that_is_not_there_is_logged_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, address: str, reason: str
) -> None:
    with closing(ServiceManager({"NOTIFY_SOCKET": address})) as manager:
        manager.ready()
        with manager.reloading():
            pass
        manager.stopping()
    (told,) = warnings(caplog)
    assert told["event"] == "the service manager cannot be told how the daemon is; the daemon runs without it"
    assert (told["variable"], told["reason"]) == ("NOTIFY_SOCKET", reason)


def test_a_socket_that_cannot_be_made_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socket", refuse)
    manager = ServiceManager({"NOTIFY_SOCKET": "/run/notify"})
    manager.ready()
    (told,) = warnings(caplog)
    assert told["reason"] == "Too many open files"


async def test_a_change_that_could_not_be_told_is_told_later(tmp_path: Path) -> None:
    address = tmp_path / "notify"
    with closing(ServiceManager({"NOTIFY_SOCKET": str(address), "WATCHDOG_USEC": SHORT})) as manager:
        manager.ready()
        with listening(address) as systemd, manager.watchdog(lambda: "1 pipeline, 1 connected"):
            await eventually(lambda: systemd.lines.count("WATCHDOG=1") >= 2, what="the watchdog is told")
    assert systemd.lines[:4] == ["READY=1", "STATUS=1 pipeline, 1 connected", "WATCHDOG=1", "WATCHDOG=1"]


async def test_an_error_in_the_status_does_not_end_the_looks(systemd: Listener) -> None:
    texts = iter([1, 0])
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    with told_to(systemd, WATCHDOG_USEC=SHORT) as manager, manager.watchdog(lambda: str(1 // next(texts, 1))):
        await eventually(lambda: systemd.lines.count("WATCHDOG=1") >= 3, what="it goes on")
    (error,) = errors
    assert isinstance(error["exception"], ZeroDivisionError)


def test_the_status_says_how_many_are_connected_and_what_is_wrong_with_the_first() -> None:
    good = pipeline("orders")
    paused = pipeline("bills", state="paused")
    away = pipeline("returns", producers=(producer(connected=0, trouble="the broker is away"),))
    ended = pipeline("old", producers=(producer(connected=0, ended=True),))
    assert status_of([good]) == "1 pipeline, 1 connected"
    assert status_of([good, ended]) == "2 pipelines, 2 connected"
    assert status_of([good, away]) == "2 pipelines, 1 connected; returns: queue: the broker is away"
    assert status_of([good, away, paused]) == (
        "3 pipelines, 2 connected; returns: queue: the broker is away (and 1 more)"
    )


async def test_a_change_tells_the_status_that_follows_from_it_at_once(systemd: Listener) -> None:
    status = "1 pipeline, 0 connected; orders: starting"
    with told_to(systemd) as manager, manager.watchdog(lambda: status):
        await eventually(lambda: systemd.lines, what="the first status is told")
        status = "1 pipeline, 1 connected"
        manager.ready()
        await eventually(lambda: len(systemd.lines) == 3, what="the second status is told")
        with manager.reloading():
            manager.remark = "the last reload was refused"
        await eventually(lambda: "refused" in systemd.lines[-1], what="the remark is told")
    assert systemd.lines[:3] == [
        "STATUS=1 pipeline, 0 connected; orders: starting",
        "READY=1",
        "STATUS=1 pipeline, 1 connected",
    ]


async def test_a_long_status_is_cut(systemd: Listener) -> None:
    with told_to(systemd) as manager, manager.watchdog(lambda: "x" * 1000):
        await eventually(lambda: systemd.lines, what="the status is told")
    assert systemd.lines == [f"STATUS={'x' * 300}… (700 more characters)"]
