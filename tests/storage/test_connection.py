from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broadway_py.storage import sharing
from broadway_py.storage.connection import connect
from broadway_py.storage.errors import StorageError, explain, refuse_hopeless
from broadway_py.storage.schema import Schema
from tests.storage.conftest import SCHEMA

GROWN = Schema("test file", 77, (*SCHEMA.migrations, ("ALTER TABLE t ADD COLUMN extra TEXT", "UPDATE t SET extra = s")))


def missing_directory(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "no" / "q.db"
    return path, f"its directory {tmp_path / 'no'} does not exist: create it, or choose another path"


def file_as_directory(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "q.db"
    return path, f"its directory {tmp_path / 'file'} is not a directory: create it, or choose another path"


def directory_as_file(tmp_path: Path) -> tuple[Path, str]:
    return tmp_path, "this is a directory: choose the path of a file"


def some_text(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database at all\n" * 100)
    return path, "the file is not a SQLite database: choose another path"


def another_programs_database(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    return path, "this is a SQLite database of another program; nothing was changed: choose another path"


def newer_version(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "newer.db"
    connect(str(path), GROWN).close()
    return path, (
        "the file has version 2, this program knows versions up to 1; nothing was changed: "
        "use the newer broadway-py that made it, or another file"
    )


def place_where_nobody_can_write(tmp_path: Path) -> tuple[Path, str]:
    if not Path("/proc/self").exists():
        pytest.skip("needs a directory in which not even root can make a file")
    return Path("/proc/broadway.db"), (
        "the file cannot be opened or created: give this user write permission to the file and its directory, "
        "or choose another path"
    )


@pytest.mark.parametrize(
    "case",
    [
        missing_directory,
        file_as_directory,
        directory_as_file,
        some_text,
        another_programs_database,
        newer_version,
        place_where_nobody_can_write,
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    case: Callable[[Path], tuple[Path, str]], tmp_path: Path
) -> None:
    path, problem = case(tmp_path)

    for _ in range(2):
        with pytest.raises(StorageError) as refused:
            await sharing.acquire(str(path), SCHEMA)
        assert str(refused.value) == f"test file {path}: {problem}"


def test_a_file_that_may_only_be_read_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    connect(str(path), SCHEMA).close()
    only_reads = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as error:
        only_reads.execute("INSERT INTO t (n) VALUES (1)")
    only_reads.close()

    assert str(explain("test file", str(path), error.value)) == (
        f"test file {path}: the file cannot be written: give this user write permission to the file and its "
        "directory, or choose another path"
    )


def test_missing_permission_is_seen_before_sqlite_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "test.db"
    path.touch()
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere

    with pytest.raises(StorageError) as refused:
        refuse_hopeless("test file", str(path))
    assert str(refused.value) == (
        f"test file {path}: the file cannot be written: give this user write permission to the file and its "
        "directory, or choose another path"
    )


def test_another_programs_database_is_left_as_it_was(tmp_path: Path) -> None:
    path, _ = another_programs_database(tmp_path)
    before = path.read_bytes()

    with pytest.raises(StorageError):
        connect(str(path), SCHEMA)

    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["other.db"]


def test_an_older_file_is_brought_forward_with_its_data(path: str) -> None:
    old = connect(path, SCHEMA)
    old.execute("INSERT INTO t (n, s) VALUES (1, 'kept')")
    old.close()

    new = connect(path, GROWN)
    assert new.execute("SELECT n, extra FROM t").fetchall() == [(1, "kept")]
    assert new.execute("PRAGMA user_version").fetchone() == (2,)
    new.close()


def test_a_migration_that_fails_changes_nothing(path: str) -> None:
    connect(path, SCHEMA).close()
    broken = Schema("test file", 77, (*SCHEMA.migrations, ("CREATE TABLE u (n)", "CREATE TABLE t (n)")))
    with pytest.raises(StorageError) as failed:
        connect(path, broken)
    assert str(failed.value) == f"test file {path}: SQLite says: table t already exists"

    reopened = connect(path, SCHEMA)
    assert reopened.execute("SELECT name FROM sqlite_master WHERE name = 'u'").fetchall() == []
    reopened.close()


async def test_a_line_that_cannot_be_made_is_named(path: str) -> None:
    Path(f"{path}-line").mkdir()
    with pytest.raises(StorageError) as refused:
        await sharing.acquire(path, SCHEMA)
    assert str(refused.value) == (
        f"test file {path}: the lock file {path}-line cannot be created (Is a directory): give this user "
        "write permission "
        "to it and to the directory, or choose another path"
    )


def test_what_is_committed_waits_for_the_disk(path: str) -> None:
    connection = connect(path, SCHEMA)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()


def _open_and_say(path: str, said: multiprocessing.SimpleQueue[str]) -> None:
    try:
        connect(path, SCHEMA).close()
        said.put("opened")
    except StorageError as error:
        said.put(str(error))


async def test_several_processes_may_make_the_same_file_at_once(path: str) -> None:
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    processes = [context.Process(target=_open_and_say, args=(path, said)) for _ in range(4)]
    for process in processes:
        process.start()
    answers = [await asyncio.to_thread(said.get) for _ in processes]
    for process in processes:
        process.join(30)

    assert answers == ["opened"] * 4
