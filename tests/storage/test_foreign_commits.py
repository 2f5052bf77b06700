"""Commits of others are found: by looking at first, and after a quiet time when the kernel tells of a write."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator

import pytest

from broadway_py.storage import foreign_commits, sharing
from broadway_py.storage.connection import connect
from broadway_py.storage.foreign_commits import ForeignCommits
from broadway_py.storage.log_watch import LogWatch
from broadway_py.storage.writer import Writer
from tests.storage.conftest import SCHEMA, add, inotifies
from tests.support.eventually import eventually

#: After so many looks at a quiet file its log is watched.
LOOKS = 4
needs_inotify = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has inotify")


@pytest.fixture
def connection(path: str) -> Iterator[sqlite3.Connection]:
    made = connect(path, SCHEMA)
    yield made
    made.close()


@pytest.fixture
def foreign(path: str, connection: sqlite3.Connection) -> Iterator[ForeignCommits]:
    made = ForeignCommits(path, connection)
    yield made
    made.close()


@pytest.fixture
def other(path: str, connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """A connection of another process."""
    made = sqlite3.connect(path, isolation_level=None)
    yield made
    made.close()


def insert(at: sqlite3.Connection) -> None:
    at.execute("INSERT INTO t (s) VALUES ('x')")


def watch(foreign: ForeignCommits) -> None:
    """Let it be quiet until the log is watched."""
    assert [foreign.look() for _ in range(LOOKS)] == [False] * LOOKS
    assert foreign.is_watched


@needs_inotify
def test_a_quiet_file_is_watched_and_a_commit_ends_the_wait(foreign: ForeignCommits, other: sqlite3.Connection) -> None:
    watch(foreign)

    for _ in range(2):
        insert(other)
        foreign.wait()
        assert foreign.look()
        assert not foreign.is_watched
        watch(foreign)


@needs_inotify
def test_a_write_is_looked_for_until_it_is_a_commit(foreign: ForeignCommits, other: sqlite3.Connection) -> None:
    other.execute("PRAGMA cache_spill = 1")
    other.execute("PRAGMA cache_size = 1")
    watch(foreign)

    other.execute("BEGIN IMMEDIATE")
    other.executemany("INSERT INTO t (s) VALUES (?)", [("x" * 1_000,)] * 200)  # more than its cache takes
    foreign.wait()

    assert not foreign.look()
    assert [foreign.look() for _ in range(2 * LOOKS)] == [False] * 2 * LOOKS
    assert not foreign.is_watched
    other.execute("COMMIT")
    assert foreign.look()
    watch(foreign)


@needs_inotify
def test_no_watch_begins_during_a_transaction_whose_writes_it_would_miss(
    foreign: ForeignCommits, other: sqlite3.Connection
) -> None:
    other.execute("BEGIN IMMEDIATE")

    assert [foreign.look() for _ in range(2 * LOOKS)] == [False] * 2 * LOOKS
    assert not foreign.is_watched
    other.execute("ROLLBACK")
    assert not foreign.look()

    assert foreign.is_watched


@needs_inotify
def test_a_commit_while_the_watch_begins_is_found(
    foreign: ForeignCommits, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit(_: sqlite3.Connection) -> bool:
        insert(other)
        return True

    monkeypatch.setattr(foreign_commits, "is_writable_now", commit)

    assert [foreign.look() for _ in range(LOOKS)] == [False] * (LOOKS - 1) + [True]
    assert not foreign.is_watched


@needs_inotify
def test_writes_of_this_process_end_the_watch_and_are_no_commits_of_others(
    foreign: ForeignCommits, connection: sqlite3.Connection
) -> None:
    watch(foreign)

    insert(connection)
    foreign.restart()

    assert not foreign.is_watched
    watch(foreign)


@needs_inotify
def test_a_kernel_that_once_did_not_tell_is_not_trusted_again(
    foreign: ForeignCommits,
    other: sqlite3.Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(LogWatch, "has_seen", lambda _: False)
    watch(foreign)

    insert(other)
    with caplog.at_level("INFO", "broadway_py.storage"):
        assert foreign.look()

    assert [foreign.look() for _ in range(2 * LOOKS)] == [False] * 2 * LOOKS
    assert not foreign.is_watched
    assert foreign.until_look() <= 0.1
    assert ["the kernel does not tell of writes to this file; looking" in str(one.msg) for one in caplog.records] == [
        True
    ]


def test_without_inotify_it_goes_on_looking(
    foreign: ForeignCommits, other: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> LogWatch:
        raise OSError("none")

    monkeypatch.setattr(foreign_commits, "LogWatch", refuse)

    assert [foreign.look() for _ in range(20)] == [False] * 20
    assert not foreign.is_watched
    assert foreign.until_look() <= 0.1
    insert(other)
    assert foreign.look()


@needs_inotify
def test_a_watch_that_cannot_begin_leaves_no_descriptor(
    foreign: ForeignCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: LogWatch) -> None:
        raise OSError("this user watches too many files")

    monkeypatch.setattr(LogWatch, "arm", refuse)
    before = inotifies()

    assert [foreign.look() for _ in range(20)] == [False] * 20
    assert inotifies() == before


class Listening:
    """A listener of a writer whose thread waits for the kernel alone."""

    def __init__(self, writer: Writer) -> None:
        self.calls = 0
        self._writer = writer

    def call(self) -> None:
        """Count it."""
        self.calls += 1

    async def asleep(self) -> None:
        """Return once the thread is asleep."""
        await eventually(lambda: self._writer._is_asleep, what="the thread sleeps")


@pytest.fixture
def _no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py.storage.look_pace.LOOK_WATCHED", 3_600.0)


@needs_inotify
@pytest.mark.usefixtures("_no_looks")
async def test_a_sleeping_writer_tells_of_the_commits_of_others_and_serves_its_own(writer: Writer, path: str) -> None:
    listening = Listening(writer)
    with writer.listening(listening.call):
        await writer.write(add(1))
        await listening.asleep()

        calls = listening.calls
        assert await writer.read(lambda at: at.execute("SELECT count(*) FROM t").fetchone()) == (1,)
        await listening.asleep()
        assert listening.calls == calls
        assert await writer.write(add(2)) == 2
        await listening.asleep()
        changes = writer.changes
        assert changes is not None

        other = sqlite3.connect(path, isolation_level=None)
        insert(other)
        other.close()
        await eventually(lambda: listening.calls > calls, what="the listener is called")
        assert writer.changes == changes + 1
    assert writer.changes is None


@needs_inotify
@pytest.mark.usefixtures("_no_looks")
async def test_a_sleeping_writer_ends_at_once_and_leaves_no_descriptor(path: str) -> None:
    before = inotifies()
    writer = await sharing.acquire(path, SCHEMA)
    listening = Listening(writer)
    with writer.listening(listening.call):
        await writer.write(add(1))
        await listening.asleep()
        assert inotifies() == before + 1
        await sharing.release(writer)

    assert inotifies() == before
