from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from broadway_py.state.inspection import (
    AggregatorSummary,
    backup,
    drop_results,
    results,
    rewrite_memory,
    summaries,
    verify,
)
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.storage.errors import StorageError
from tests.state.conftest import FACTS, REVENUE, checkpoint, results_of, rows_of


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
        AggregatorSummary("revenue", 1, "fixed windows of 60 s", "str", "int", 2, 2, 10, 28, 4, 2)
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
        f"state file {path}: the file has version 0, and this program reads version 2: start the pipeline once with "
        "this program"
    )
    assert str(foreign.value) == (
        f"state file {other}: this is a SQLite database of another program; nothing was changed: choose another path"
    )
    assert str(nonsense.value) == f"state file {text}: the file is not a SQLite database: choose another path"


async def test_due_results_are_listed_while_the_file_is_open(store: SQLiteStore, path: str) -> None:
    assert list(results(path)) == [("revenue", 1, b"result 1"), ("revenue", 2, b"result 2")]
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


async def test_dropped_results_are_gone_and_the_others_are_there(store: SQLiteStore, path: str) -> None:
    await store.commit(checkpoint(3))
    await store.close()
    drop_results(path, [("revenue", 1), ("revenue", 3)])

    again = SQLiteStore(path)
    await again.open(FACTS)
    assert [one.sequence for one in await results_of(again)] == [2]
    assert len(await rows_of(again)) == 6
    await again.commit(checkpoint(4))
    await again.close()
    assert not Path(f"{path}-lock").exists()


async def test_results_of_another_aggregator_with_the_same_number_stay(path: str) -> None:
    store = SQLiteStore(path)
    await store.open({"revenue": REVENUE, "visits": REVENUE})
    await store.commit(checkpoint(1))
    await store.commit(checkpoint(1, "visits"))
    await store.close()
    drop_results(path, [("visits", 1)])

    assert [one.aggregator for one in results(path)] == ["revenue"]


async def test_nothing_is_dropped_from_a_file_that_a_process_has(store: SQLiteStore, path: str) -> None:
    with pytest.raises(StorageError) as refused:
        drop_results(path, [("revenue", 1)])

    assert str(refused.value) == (
        f"state file {path}: process {os.getpid()} has it; nothing was changed: stop what uses the file, and try again"
    )
    await store.commit(checkpoint(3))
    assert [one.sequence for one in await results_of(store)] == [1, 2, 3]
    await store.close()


async def test_all_results_are_dropped_or_none(store: SQLiteStore, path: str) -> None:
    await store.close()
    with pytest.raises(StorageError) as refused:
        drop_results(path, [("revenue", 1), ("revenue", 9)])

    assert str(refused.value) == (
        f"state file {path}: aggregator 'revenue' has no result 9 any more; nothing was changed: list the results again"
    )
    assert len(list(results(path))) == 2
    drop_results(path, [("revenue", 1)])  # the lock was given back


def test_a_missing_file_is_not_made_to_drop_something(path: str) -> None:
    with pytest.raises(StorageError) as refused:
        drop_results(path, [("revenue", 1)])

    assert str(refused.value) == (f"state file {path}: there is no such file: give the path in `state` of the pipeline")
    assert not list(Path(path).parent.iterdir())


async def test_a_lock_file_that_cannot_be_made_is_named(store: SQLiteStore, path: str) -> None:
    await store.close()
    Path(f"{path}-lock").mkdir()
    with pytest.raises(StorageError) as refused:
        drop_results(path, [("revenue", 1)])

    assert str(refused.value) == (
        f"state file {path}: the lock file {path}-lock cannot be created or locked (Is a directory): give this user "
        "write permission to it and to the directory, or choose another path"
    )


async def test_memory_is_rewritten_with_its_checksum_and_the_next_checkpoint_replaces_it(
    store: SQLiteStore, path: str
) -> None:
    await store.close()
    rewrite_memory(path, "revenue", lambda memory: memory + b" changed")

    assert verify(path) == []
    again = SQLiteStore(path)
    await again.open(FACTS)
    assert (await again.load("revenue")).memory == b'{"watermark":2} changed'
    await again.commit(checkpoint(3))
    assert (await again.load("revenue")).memory == b'{"watermark":3}'
    await again.close()


async def test_memory_is_not_rewritten_while_a_process_has_the_file(store: SQLiteStore, path: str) -> None:
    with pytest.raises(StorageError) as refused:
        rewrite_memory(path, "revenue", lambda _: b"{}")

    assert str(refused.value) == (
        f"state file {path}: process {os.getpid()} has it; nothing was changed: stop what uses the file, and try again"
    )
    assert (await store.load("revenue")).memory == b'{"watermark":2}'
    await store.close()


async def test_a_change_that_raises_changes_nothing(store: SQLiteStore, path: str) -> None:
    await store.close()

    def refuse(memory: bytes) -> bytes:
        raise ValueError("not these")

    with pytest.raises(ValueError, match="not these"):
        rewrite_memory(path, "revenue", refuse)
    assert not Path(f"{path}-lock").exists()
    assert verify(path) == []


async def test_only_the_memory_of_a_known_aggregator_that_is_whole_is_rewritten(path: str) -> None:
    store = SQLiteStore(path)
    await store.open({"revenue": REVENUE, "visits": REVENUE})
    await store.commit(checkpoint(1))
    await store.close()
    with pytest.raises(StorageError) as unknown:
        rewrite_memory(path, "visit", lambda _: b"{}")
    with pytest.raises(StorageError) as empty:
        rewrite_memory(path, "visits", lambda _: b"{}")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE aggregators SET memory = x'00' WHERE name = 'revenue'")
    with pytest.raises(StorageError) as broken:
        rewrite_memory(path, "revenue", lambda _: b"{}")

    assert str(unknown.value) == (
        f"state file {path}: it has no aggregator 'visit', but revenue, visits; did you mean 'visits'?"
    )
    assert str(empty.value) == f"state file {path}: aggregator 'visits' has stored nothing; nothing was changed"
    assert str(broken.value) == (
        f"state file {path}: aggregator 'revenue': its counters of checkpoint 1 are damaged: stop everything that uses "
        "the file and restore it from a backup"
    )
