from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from broadway_py.state.inspection import (
    AggregatorSummary,
    PendingResult,
    backup,
    results,
    size,
    summaries,
    verify,
)
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.storage.errors import StorageError
from tests.state.conftest import FACTS, REVENUE, checkpoint, rows_of


@pytest.fixture
async def store(path: str) -> SQLiteStore:
    """An open store with two checkpoints. Each test closes it."""
    opened = SQLiteStore(path)
    await opened.open(FACTS)
    await opened.commit(checkpoint(1))
    await opened.commit(checkpoint(2))
    return opened


async def test_a_file_is_summed_up_while_it_is_open(store: SQLiteStore, path: str) -> None:
    assert summaries(path) == [
        AggregatorSummary("revenue", 1, "fixed windows of 60 s", "str", "int", 2, 2, 10, 28, 4, 2, True, False)
    ]
    await store.close()


async def test_nothing_is_wrong_with_a_good_file(store: SQLiteStore, path: str) -> None:
    assert verify(path) == []
    await store.close()
    assert verify(path) == []


async def test_every_damaged_row_is_found(store: SQLiteStore, path: str) -> None:
    await store.close()
    connection = sqlite3.connect(path)
    connection.executescript(
        "UPDATE accumulators SET content = x'00'; UPDATE identities SET content = x'00';"
        "UPDATE results SET content = x'00'; UPDATE aggregators SET memory = x'00'"
    )
    connection.close()

    assert verify(path) == [
        "aggregator 'revenue': its counters of checkpoint 2 are damaged",
        "aggregator 'revenue': its accumulators of bucket 60, checkpoint 1, are damaged",
        "aggregator 'revenue': its accumulators of bucket 120, checkpoint 1, are damaged",
        "aggregator 'revenue': its accumulators of bucket 60, checkpoint 2, are damaged",
        "aggregator 'revenue': its accumulators of bucket 120, checkpoint 2, are damaged",
        "aggregator 'revenue': its identities of checkpoint 1 are damaged",
        "aggregator 'revenue': its identities of checkpoint 2 are damaged",
        "aggregator 'revenue': its result 1 is damaged",
        "aggregator 'revenue': its result 2 is damaged",
    ]


async def test_a_page_that_was_overwritten_is_found(store: SQLiteStore, path: str) -> None:
    await store.close()
    content = bytearray(Path(path).read_bytes())
    content[4096 * 3 : 4096 * 4] = bytes(4096)
    Path(path).write_bytes(content)
    try:
        problems = verify(path)
    except StorageError as error:
        problems = [str(error)]

    assert problems


async def test_a_backup_is_a_store_of_its_moment(store: SQLiteStore, path: str, tmp_path: Path) -> None:
    to = str(tmp_path / "copy.db")
    backup(path, to)
    await store.commit(checkpoint(3))
    await store.close()

    assert verify(to) == []
    assert [one.name for one in tmp_path.glob("copy.db*")] == ["copy.db"], "the copy is one file"
    assert stat.S_IMODE(Path(to).stat().st_mode) == 0o600
    copy = SQLiteStore(to)
    await copy.open({"revenue": REVENUE})
    assert await copy.last_number("revenue") == 2
    assert len(await rows_of(copy)) == 4
    await copy.close()


async def test_a_backup_overwrites_nothing(store: SQLiteStore, path: str, tmp_path: Path) -> None:
    await store.close()
    to = tmp_path / "copy.db"
    to.write_text("mine")
    with pytest.raises(StorageError) as refused:
        backup(path, str(to))

    assert str(refused.value) == f"backup {to}: the file exists: choose another path, or remove it"
    assert to.read_text() == "mine"


def test_a_missing_file_is_not_made(path: str) -> None:
    with pytest.raises(StorageError) as refused:
        summaries(path)

    assert str(refused.value) == (f"state file {path}: there is no such file: give the path in `state` of the pipeline")
    assert not Path(path).exists()


def test_an_empty_file_and_files_of_others_are_refused(path: str, tmp_path: Path) -> None:
    Path(path).touch()
    with pytest.raises(StorageError) as empty:
        verify(path)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()
    with pytest.raises(StorageError) as foreign:
        verify(str(other))
    text = tmp_path / "text.db"
    text.write_text("no database at all\n" * 100)
    with pytest.raises(StorageError) as nonsense:
        verify(str(text))

    assert str(empty.value) == (
        f"state file {path}: the file has version 0, and this program reads version 4: start the pipeline once with "
        "this program"
    )
    assert str(foreign.value) == (
        f"state file {other}: this is a SQLite database of another program; nothing was changed: choose another path"
    )
    assert str(nonsense.value) == f"state file {text}: the file is not a SQLite database: choose another path"


async def test_due_results_are_listed_while_the_file_is_open(store: SQLiteStore, path: str) -> None:
    assert list(results(path)) == [
        PendingResult("revenue", 1, b"result 1", is_unwanted=False),
        PendingResult("revenue", 2, b"result 2", is_unwanted=False),
    ]
    await store.close()


async def test_a_damaged_result_is_named(store: SQLiteStore, path: str) -> None:
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE results SET version = 7 WHERE sequence = 2")
    with pytest.raises(StorageError) as refused:
        list(results(path))

    assert str(refused.value) == (
        f"state file {path}: aggregator 'revenue': its result 2 is damaged: stop everything that uses the file and "
        "restore it from a backup"
    )


async def test_the_size_is_that_of_the_file_and_its_log_and_says_what_is_free(store: SQLiteStore, path: str) -> None:
    beside = size(path)
    assert beside.size_bytes == sum(Path(f"{path}{end}").stat().st_size for end in ("", "-wal"))
    assert beside.free_bytes == 0
    big = replace(checkpoint(3), appended=[(180, bytes(1_000_000), 1)], dropped=[(180, 4)])
    await store.commit(big)
    await store.close()

    after = size(path)
    assert after.size_bytes == Path(path).stat().st_size
    assert 900_000 <= after.free_bytes < after.size_bytes
