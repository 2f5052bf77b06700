"""What only the file does: sentences about files that cannot be used, the lock, damage, a full disk."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broadway_py.state.checksum import checksum
from broadway_py.state.inspection import size
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import CloseWish, Commit
from broadway_py.storage.errors import StorageError
from tests.state.conftest import FACTS, REVENUE, checkpoint, identities_of, identity, results_of, rows_of
from tests.support.eventually import PATIENCE


async def opened(path: str) -> SQLiteStore:
    store = SQLiteStore(path)
    await store.open(FACTS)
    return store


async def size_in(path: str) -> int:
    """What a sum over the file says."""
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute(
            "SELECT (SELECT sum(length(memory)) FROM aggregators) + (SELECT sum(length(content)) FROM accumulators) + "
            "(SELECT sum(length(content)) FROM identities) + (SELECT sum(length(content)) FROM results)"
        ).fetchone()
    return int(size)


async def refusal(path: str | Path) -> str:
    with pytest.raises(StorageError) as refused:
        await SQLiteStore(path).open(FACTS)
    return str(refused.value)


# --- files that cannot be used ----------------------------------------------------------------------------------------


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "var" / "shop.db"

    assert await refusal(path) == (
        f"state file {path}: its directory {tmp_path / 'var'} does not exist: create it, or choose another path"
    )


async def test_another_programs_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "music.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE songs (title TEXT)")
    connection.close()

    assert await refusal(path) == (
        f"state file {path}: this is a SQLite database of another program; nothing was changed: choose another path"
    )
    assert [found.name for found in tmp_path.iterdir()] == ["music.db"]


async def test_a_file_of_a_newer_program_is_refused(path: str) -> None:
    await (await opened(path)).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    assert await refusal(path) == (
        f"state file {path}: the file has version 99, this program knows versions up to 4; nothing was changed: "
        "use the newer broadway-py that made it, or another file"
    )


def make_version_1(path: str, memory: bytes) -> None:
    """Makes a file as the first version of its tables had it."""
    first = replace(STATE_SCHEMA, migrations=STATE_SCHEMA.migrations[:1])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        first.prepare(connection, path)
        connection.execute(
            "INSERT INTO aggregators (name, version, window, key_type, value_type, number, memory, crc) "
            "VALUES ('revenue', 1, 'fixed windows of 60 s', 'str', 'int', 1, ?, ?)",
            (memory, checksum("memory", (1,), memory)),
        )
        crc = checksum("results", (7, 1, 1), b"due")
        connection.execute("INSERT INTO results VALUES (1, 7, 1, ?, ?)", (crc, b"due"))
        connection.execute("COMMIT")


@pytest.mark.parametrize(
    ("memory", "wish"),
    [
        (b'{"watermark":5}', None),
        (b'{"watermark":5,"close":{"before":17}}', CloseWish(1, 17)),
        (b'{"watermark":5,"close":{"before":null}}', CloseWish(1, None)),
    ],
)
async def test_a_file_of_the_first_version_keeps_its_contents_and_its_wish_to_close(
    path: str, memory: bytes, wish: CloseWish | None
) -> None:
    make_version_1(path, memory)
    store = await opened(path)

    loaded = await store.load("revenue")
    assert (loaded.memory, loaded.number, loaded.close_wish) == (memory, 1, wish)
    assert [one.sequence for one in await results_of(store)] == [7]
    assert await store.unwanted("revenue") == []
    await store.commit(replace(checkpoint(2), closed=1))
    assert (await store.load("revenue")).close_wish is None
    await store.close()


async def test_a_damaged_memory_of_the_first_version_is_named_and_does_not_stop_the_migration(path: str) -> None:
    make_version_1(path, b"\x00{")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE aggregators SET crc = crc + 1")
    store = await opened(path)
    with pytest.raises(StorageError) as damaged:
        await store.load("revenue")

    assert str(damaged.value) == (
        f"state file {path}: aggregator 'revenue': its counters of checkpoint 1 are damaged: stop everything that uses "
        "the file and restore it from a backup"
    )
    await store.close()


async def test_a_file_that_may_only_be_read_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await opened(path)).close()
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere

    assert await refusal(path) == (
        f"state file {path}: the file cannot be written: give this user write permission to the file and its "
        "directory, or choose another path"
    )


async def test_a_network_file_system_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadway_py.storage.errors.network_file_system", lambda _: "nfs4")

    assert await refusal(path) == (
        f"state file {path}: it would be on a network file system (nfs4), where one process cannot tell what another "
        "does and the file would be damaged: choose a path on a disk of this machine"
    )
    assert list(Path(path).parent.iterdir()) == []


async def test_a_lock_file_that_cannot_be_made_is_named(path: str) -> None:
    Path(f"{path}-lock").mkdir()

    assert await refusal(path) == (
        f"state file {path}: the lock file {path}-lock cannot be created or locked (Is a directory): give this user "
        "write permission to it and to the directory, or choose another path"
    )


async def test_a_refused_file_is_unlocked(path: str) -> None:
    store = await opened(path)
    await store.commit(checkpoint(1))
    await store.close()
    with pytest.raises(StorageError):
        await SQLiteStore(path).open({"revenue": replace(REVENUE, version=0)})

    await (await opened(path)).close()


async def test_what_a_removed_aggregator_left_is_warned_of(path: str, caplog: pytest.LogCaptureFixture) -> None:
    store = await opened(path)
    await store.commit(checkpoint(1))
    await store.close()
    with caplog.at_level(logging.WARNING):
        without = SQLiteStore(path)
        await without.open({"orders": REVENUE})
        await without.close()

    (line,) = [record for record in caplog.records if "aggregator" in record.getMessage()]
    assert "the state file has windows or results of an aggregator that the pipeline does not have" in line.getMessage()
    assert "revenue" in line.getMessage()


# --- the lock ---------------------------------------------------------------------------------------------------------


async def test_a_second_store_in_the_same_process_stands_by_until_the_first_is_closed(path: str) -> None:
    first = await opened(path)
    await first.commit(checkpoint(1))
    said: asyncio.Queue[str] = asyncio.Queue(1)
    second = SQLiteStore(path)
    opening = asyncio.create_task(second.open(FACTS, waiting=said.put_nowait))

    assert await said.get() == (f"state file {path}: process {os.getpid()} has it; standing by until it is free")
    await first.commit(checkpoint(2))
    assert not opening.done()
    await first.close()
    await opening

    assert await second.last_number("revenue") == 2
    await second.close()
    assert sorted(found.name for found in Path(path).parent.iterdir()) == ["shop.db", "shop.db-line"]


async def test_many_stand_by_and_take_over_one_after_the_other(path: str) -> None:
    inside = 0

    async def turn() -> None:
        nonlocal inside
        store = SQLiteStore(path)
        await store.open(FACTS, waiting=lambda _: None)
        inside += 1
        assert inside == 1
        await store.commit(checkpoint(await store.last_number("revenue") + 1))
        inside -= 1
        await store.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(turn())

    last = await opened(path)
    assert await last.last_number("revenue") == 8
    await last.close()


async def test_a_link_to_the_file_is_the_same_file(path: str, tmp_path: Path) -> None:
    first = await opened(path)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)
    said: asyncio.Queue[str] = asyncio.Queue(1)
    second = SQLiteStore(link)
    opening = asyncio.create_task(second.open(FACTS, waiting=said.put_nowait))

    async with asyncio.timeout(PATIENCE):
        assert await said.get() == f"state file {link}: process {os.getpid()} has it; standing by until it is free"
    await first.close()
    await opening
    await second.close()


async def test_who_has_taken_over_keeps_others_out(path: str) -> None:
    first, second, third = (SQLiteStore(path) for _ in range(3))
    await first.open(FACTS)
    said: asyncio.Queue[str] = asyncio.Queue(1)
    taking_over = asyncio.create_task(second.open(FACTS, waiting=said.put_nowait))
    await said.get()
    await first.close()  # this removes the lock file that the second one waits for
    await taking_over
    opening = asyncio.create_task(third.open(FACTS, waiting=said.put_nowait))

    async with asyncio.timeout(PATIENCE):
        assert "has it; standing by until it is free" in await said.get()
    await second.close()
    await opening
    await third.close()


async def test_a_cancelled_stand_by_does_not_keep_the_lock(path: str) -> None:
    first = await opened(path)
    said: asyncio.Queue[str] = asyncio.Queue(1)
    waiting = asyncio.create_task(SQLiteStore(path).open(FACTS, waiting=said.put_nowait))
    await said.get()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    await first.close()

    await (await opened(path)).close()


HOLD = """
import asyncio, os, sys
from broadway_py.state.sqlite import SQLiteStore
from tests.state.conftest import FACTS

async def main():
    await SQLiteStore(sys.argv[1]).open(FACTS)
    if len(sys.argv) > 2 and not os.fork():
        sys.stdin.read()
        os._exit(0)
    print("open", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@contextmanager
def holder(path: str, *, fork: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open, and perhaps a child."""
    # Python 3.12 and newer warn of a fork beside threads.
    program = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", HOLD, path, *(["fork"] * fork)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


async def test_the_store_of_a_killed_process_is_taken_over(path: str) -> None:
    with holder(path) as process:
        said: asyncio.Queue[str] = asyncio.Queue(1)
        store = SQLiteStore(path)
        opening = asyncio.create_task(store.open(FACTS, waiting=said.put_nowait))

        assert await said.get() == f"state file {path}: process {process.pid} has it; standing by until it is free"
        process.send_signal(signal.SIGKILL)
        await opening

    await store.commit(checkpoint(1))
    await store.close()


async def test_a_forked_child_does_not_keep_the_lock_of_its_killed_parent(path: str) -> None:
    with holder(path, fork=True) as process:  # the child lives until the end of its standard input
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 0)[0] == []

        async with asyncio.timeout(PATIENCE):
            await (await opened(path)).close()


# --- damage -----------------------------------------------------------------------------------------------------------


async def all_of(store: SQLiteStore) -> None:
    await store.load("revenue")
    await rows_of(store)
    await identities_of(store)
    await results_of(store)


@pytest.mark.parametrize(
    ("statement", "damaged"),
    [
        (
            "UPDATE accumulators SET content = 'row 9' WHERE bucket = 60",
            "its accumulators of bucket 60, checkpoint 1, are",
        ),
        ("UPDATE accumulators SET bucket = 61 WHERE bucket = 60", "its accumulators of bucket 61, checkpoint 1, are"),
        ("UPDATE identities SET content = zeroblob(32)", "its identities of checkpoint 1 are"),
        ("UPDATE results SET version = 7", "its result 1 is"),
        ("UPDATE aggregators SET memory = '{}'", "its counters of checkpoint 1 are"),
    ],
)
async def test_a_damaged_row_is_named(path: str, statement: str, damaged: str) -> None:
    store = await opened(path)
    await store.commit(checkpoint(1))
    await store.close()
    connection = sqlite3.connect(path)
    connection.execute(statement.replace("'row 9'", "CAST('row 9' AS BLOB)").replace("'{}'", "CAST('{}' AS BLOB)"))
    connection.execute("UPDATE aggregators SET version = 7")
    connection.commit()
    connection.close()

    again = SQLiteStore(path)
    await again.open({"revenue": replace(REVENUE, version=7, has_upgrade=True)})
    with pytest.raises(StorageError) as found:
        await all_of(again)
    assert str(found.value) == (
        f"state file {path}: aggregator 'revenue': {damaged} damaged: stop everything that uses the file and restore "
        "it from a backup"
    )
    await again.close()


# --- disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    """No file of this process may grow beyond *size* bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_while_the_disk_fails_the_outcome_is_unknown_and_then_it_can_be_asked(path: str) -> None:
    store = await opened(path)
    await store.commit(checkpoint(1))
    with no_larger_files(Path(f"{path}-wal").stat().st_size):
        with pytest.raises(StorageError) as failed:
            await store.commit(checkpoint(2))
        with pytest.raises(StorageError):
            await store.last_number("revenue")

    assert failed.value.is_unknown
    assert str(failed.value) == (
        f"state file {path}: it is not known whether checkpoint 2 of aggregator 'revenue' was stored: the disk failed "
        "while it was written, and then the file could not be asked: look at the disk and free some space"
    )
    assert await store.last_number("revenue") == 1
    await store.commit(checkpoint(2))
    assert [row.number for row in await rows_of(store)] == [1, 1, 2, 2]
    assert store.size_bytes("revenue") == await size_in(path)
    await store.close()


async def test_a_commit_that_fails_once_is_known_not_to_be_stored(path: str) -> None:
    store = await opened(path)
    await store.commit(checkpoint(1))
    big = Commit("revenue", 2, b"{}", appended=[(60, b"x" * 100_000, 1)])
    # There is room for the question, but not for the checkpoint.
    with no_larger_files(Path(f"{path}-wal").stat().st_size + 50_000), pytest.raises(StorageError) as failed:
        await store.commit(big)

    assert not failed.value.is_unknown
    assert str(failed.value) == (
        f"state file {path}: the disk reports an error; nothing of this call was stored: look at the disk and try again"
    )
    await store.commit(big)
    await store.close()


async def test_a_checkpoint_that_is_in_the_file_in_spite_of_an_error_counts_as_stored(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(path)
    writer = store._open()
    write = writer.write

    async def stores_and_fails(*args: object, **kwargs: object) -> object:
        monkeypatch.undo()
        await write(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        raise StorageError("the disk reports an error", is_unknown=True)

    monkeypatch.setattr(writer, "write", stores_and_fails)
    await store.commit(checkpoint(1))

    assert await store.last_number("revenue") == 1
    assert store.size_bytes("revenue") == await size_in(path)
    await store.close()


async def test_a_checkpoint_of_which_nobody_knew_counts_in_the_size_once_it_is_found(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await opened(path)
    writer = store._open()
    write = writer.write

    async def stores_and_fails(*args: object, **kwargs: object) -> object:
        monkeypatch.setattr(writer, "write", fails)
        await write(*args, **kwargs)  # type: ignore[arg-type]  # passed on as they came
        raise StorageError("the disk reports an error", is_unknown=True)

    async def fails(*args: object, **kwargs: object) -> object:
        raise StorageError("the disk reports an error")

    monkeypatch.setattr(writer, "write", stores_and_fails)
    with pytest.raises(StorageError) as unknown:
        await store.commit(checkpoint(1))
    assert unknown.value.is_unknown
    monkeypatch.undo()
    for _ in range(2):
        assert await store.last_number("revenue") == 1
        assert store.size_bytes("revenue") == await size_in(path)
    await store.close()


async def test_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room(path: str) -> None:
    store = await opened(path)
    await store.commit(checkpoint(1))
    (pages,) = await store._open().read(lambda at: at.execute("PRAGMA page_count").fetchone())
    await store._open().read(lambda at: at.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
    big = Commit("revenue", 2, b"{}", appended=[(60, b"x" * 1_000_000, 1)], identities=identity(9), dropped=[(60, 2)])
    for _ in range(2):
        with pytest.raises(StorageError) as full:
            await store.commit(big)
        assert not full.value.is_unknown
        assert str(full.value) == (
            f"state file {path}: the disk is full; nothing of this call was stored: free some space and try again"
        )
    assert [row.blob for row in await rows_of(store)] == [b"row 1", b"another 1"]
    assert await store.find("revenue", {identity(9)}) == set()

    await store._open().read(lambda at: at.execute("PRAGMA max_page_count = 1000000").fetchone())
    await store.commit(big)
    assert [row.bucket for row in await rows_of(store)] == [120, 60]
    await store.close()


async def test_the_file_does_not_grow_when_windows_close(path: str) -> None:
    store = await opened(path)
    sizes = []
    for number in range(1, 401):
        # Each window takes ten checkpoints, and closes.
        start, is_last = divmod(number, 10)
        await store.commit(
            Commit(
                "revenue",
                number,
                b"{}",
                appended=[(start, b"x" * 50_000, 1)],
                dropped=[(start - 1, number + 1)] if is_last == 0 else [],
                identities=bytes(16_000),
                forget_before=number - 20,
            )
        )
        if number in {100, 400}:
            sizes.append(size(path).size_bytes)

    assert sizes[1] < sizes[0] * 1.3
    await store.close()
