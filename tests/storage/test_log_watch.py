"""Tells of writes to a file, through the kernel."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_py.storage import log_watch
from broadway_py.storage.log_watch import LogWatch
from tests.storage.conftest import inotifies

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")
#: Seconds that a wait may take if the kernel does not end it.
LONG = 30.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "q.db-wal"
    made.touch()
    return made


@pytest.fixture
def watch(file: Path) -> Iterator[LogWatch]:
    made = LogWatch(str(file))
    yield made
    made.close()


def append(file: Path) -> None:
    with file.open("ab") as handle:
        handle.write(b"x")


def test_a_write_ends_the_wait(watch: LogWatch, file: Path) -> None:
    watch.arm()
    assert not watch.has_seen()

    append(file)
    watch.wait(LONG)

    assert watch.has_seen()


def test_earlier_writes_are_forgotten(watch: LogWatch, file: Path) -> None:
    watch.arm()
    append(file)

    watch.arm()
    assert not watch.has_seen()
    append(file)

    assert watch.has_seen()


def test_only_the_first_write_costs_anything(watch: LogWatch, file: Path) -> None:
    watch.arm()
    append(file)
    os.read(watch._events, 4_096)

    append(file)

    assert not watch.has_seen()


def test_a_call_from_another_thread_ends_one_wait(watch: LogWatch) -> None:
    watch.arm()

    watch.wake()
    watch.wake()
    watch.wait(LONG)

    assert not watch.has_seen()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(watch._bell)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    watch = LogWatch(str(tmp_path / "missing"))
    try:
        with pytest.raises(FileNotFoundError, match="No such file or directory"):
            watch.arm()
    finally:
        watch.close()


@pytest.mark.parametrize("lacks", ["linux", "ctypes"])
def test_a_system_without_inotify_is_an_error(lacks: str, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    if lacks == "linux":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(log_watch, "ctypes", None)

    with pytest.raises(OSError, match=r"^this system has no inotify, or Python cannot call it$"):
        LogWatch(str(file))


def test_a_user_with_too_many_of_them_gets_an_error_and_no_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "eventfd", refuse)
    before = inotifies()

    with pytest.raises(OSError, match="Too many open files"):
        LogWatch(str(file))

    assert inotifies() == before
