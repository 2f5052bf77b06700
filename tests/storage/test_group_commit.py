from __future__ import annotations

import asyncio
import resource
import sqlite3
from pathlib import Path

import pytest

from broadway_py.storage import connection as connection_module
from broadway_py.storage import group, sharing
from broadway_py.storage import writer as writer_module
from broadway_py.storage.errors import StorageError
from broadway_py.storage.writer import Writer
from tests.storage.conftest import SCHEMA, Gate, add, gathered, handed_in, stored


async def statements(writer: Writer) -> list[str]:
    """From now on, what the writer executes."""
    seen: list[str] = []
    await writer.read(lambda at: at.set_trace_callback(seen.append))
    return seen


async def test_what_gathers_during_a_transaction_is_committed_together(writer: Writer, path: str) -> None:
    seen = await statements(writer)

    results = await gathered(writer, *(add(number) for number in range(50)))

    assert results == list(range(50))
    assert seen.count("COMMIT") == 1
    assert stored(path) == list(range(50))


async def test_a_result_comes_only_after_the_commit(writer: Writer, path: str) -> None:
    await writer.write(add(1))

    assert stored(path) == [1]


async def test_what_one_request_raises_undoes_it_alone_and_reaches_its_caller_alone(writer: Writer, path: str) -> None:
    def fail(at: sqlite3.Connection) -> None:
        at.execute("INSERT INTO t (n) VALUES (99)")
        raise LookupError("mine")

    first, error, last = await gathered(writer, add(1), fail, add(2))

    assert (first, last) == (1, 2)
    assert isinstance(error, LookupError)
    assert stored(path) == [1, 2]


async def test_a_request_that_fails_alone_leaves_nothing(writer: Writer, path: str) -> None:
    def fail(at: sqlite3.Connection) -> None:
        at.execute("INSERT INTO t (n) VALUES (99)")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await writer.write(fail)
    await writer.write(add(1))

    assert stored(path) == [1]


async def test_a_transaction_takes_in_at_most_five_hundred_rows(writer: Writer) -> None:
    seen = await statements(writer)

    await gathered(writer, *(add(number) for number in range(5)), rows=200)

    assert seen.count("COMMIT") == 3


async def test_a_request_with_more_rows_than_that_has_a_transaction_of_its_own(writer: Writer) -> None:
    seen = await statements(writer)

    await gathered(writer, *(add(number) for number in range(3)), rows=100_000)

    assert seen.count("COMMIT") == 3


async def test_a_transaction_that_took_too_long_leaves_the_rest_to_the_next(
    writer: Writer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group, "GROUP_SECONDS", 0.0)
    seen = await statements(writer)

    await gathered(writer, *(add(number) for number in range(4)))

    assert seen.count("COMMIT") == 4
    assert stored(path) == [0, 1, 2, 3]


async def test_a_failing_commit_reaches_everybody_and_nothing_is_stored(writer: Writer, path: str) -> None:
    await writer.write(add(0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(path + "-wal").stat().st_size, hard))
    try:
        errors = await gathered(writer, add(1), add(2), add(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    sentence = (
        f"test file {path}: the disk reports an error; nothing of this call was stored: look at the disk and try again"
    )
    assert [(type(error), str(error)) for error in errors] == [(StorageError, sentence)] * 3
    assert [getattr(error, "is_unknown", None) for error in errors] == [True] * 3
    assert stored(path) == [0]
    assert await writer.write(add(4)) == 4
    assert stored(path) == [0, 4]


async def test_a_full_disk_undoes_the_transaction_and_is_an_error_for_all_that_were_in_it(
    writer: Writer, path: str
) -> None:
    def grow(at: sqlite3.Connection) -> None:
        at.execute("INSERT INTO t (s) VALUES (?)", ("x" * 100_000,))

    await writer.read(lambda at: at.execute("PRAGMA max_page_count = 10"))
    before, culprit, after = await gathered(writer, add(1), grow, add(2))

    sentence = f"test file {path}: the disk is full; nothing of this call was stored: free some space and try again"
    assert [str(before), str(culprit)] == [sentence, sentence]
    assert [getattr(error, "is_unknown", None) for error in (before, culprit)] == [False, False]
    assert after == 2
    assert stored(path) == [2]


async def test_a_transaction_that_sqlite_undid_is_an_error_for_those_that_were_in_it(writer: Writer, path: str) -> None:
    await writer.write(add(1))

    def lose(at: sqlite3.Connection) -> None:
        at.execute("INSERT OR ROLLBACK INTO t (n) VALUES (1)")

    before, culprit, after = await gathered(writer, add(2), lose, add(3))

    sentence = f"test file {path}: SQLite says: UNIQUE constraint failed: t.n"
    assert [str(before), str(culprit)] == [sentence, sentence]
    assert after == 3
    assert stored(path) == [1, 3]


async def test_a_request_whose_caller_was_cancelled_before_its_turn_does_nothing(writer: Writer, path: str) -> None:
    gate = Gate(writer)
    await gate.held()
    task = asyncio.create_task(writer.write(add(1)))
    await handed_in(writer, 1)
    task.cancel()
    await asyncio.wait([task])
    await gate.open()
    await writer.write(add(2))

    assert stored(path) == [2]


async def test_a_result_that_nobody_waits_for_any_more_is_told(writer: Writer) -> None:
    unclaimed: asyncio.Queue[int] = asyncio.Queue(1)
    loop = asyncio.get_running_loop()
    task: asyncio.Task[int]

    def work(at: sqlite3.Connection) -> int:
        # The loop runs this before it hears of the result, for both come through the same door.
        loop.call_soon_threadsafe(task.cancel)
        return add(7)(at)

    task = asyncio.create_task(writer.write(work, unclaimed=unclaimed.put_nowait))
    await asyncio.wait([task])

    assert task.cancelled()
    assert await unclaimed.get() == 7


async def test_more_requests_than_may_wait_wait_outside(
    writer: Writer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_WAITING", 4)
    gate = Gate(writer)
    await gate.held()
    tasks = [asyncio.create_task(writer.write(add(number))) for number in range(20)]
    await handed_in(writer, 3)  # and one is the gate's
    tasks[10].cancel()
    await gate.open()
    await asyncio.wait(tasks)

    assert tasks[10].cancelled()
    assert stored(path) == [number for number in range(20) if number != 10]


async def test_a_read_takes_part_in_no_transaction(writer: Writer) -> None:
    seen = await statements(writer)

    assert await writer.read(lambda at: at.execute("SELECT count(*) FROM t").fetchone()) == (0,)
    assert seen == ["SELECT count(*) FROM t"]


async def test_a_listener_hears_of_a_write_that_wakes(writer: Writer) -> None:
    heard = asyncio.Event()
    with writer.listening(heard.set):
        await writer.write(add(1), wakes=True)
        await heard.wait()


async def test_a_listener_hears_of_another_programs_commit(writer: Writer, path: str) -> None:
    heard = asyncio.Event()
    other = sqlite3.connect(path, isolation_level=None)
    with writer.listening(heard.set):
        await writer.read(lambda _: None)  # the thread knows now that somebody listens
        assert not heard.is_set()
        other.execute("INSERT INTO t (n) VALUES (1)")
        await heard.wait()
    other.close()


async def test_two_users_of_a_file_share_one_writer_and_the_last_one_closes_it(path: str) -> None:
    first = await sharing.acquire(path, SCHEMA)
    second = await sharing.acquire(str(Path(path).parent / "." / "test.db"), SCHEMA)
    assert first is second

    await sharing.release(first)
    assert not first.ended.done()
    await second.write(add(1))
    await sharing.release(second)

    assert first.ended.done()
    assert not Path(path + "-wal").exists()
    assert stored(path) == [1]


async def test_what_was_asked_before_the_end_is_done_and_what_comes_after_is_refused(path: str) -> None:
    writer = await sharing.acquire(path, SCHEMA)
    gate = Gate(writer)
    await gate.held()
    late = asyncio.create_task(writer.write(add(1)))
    await handed_in(writer, 1)
    closing = asyncio.create_task(sharing.release(writer))
    await gate.open()
    await closing

    assert await late == 1
    with pytest.raises(StorageError) as refused:
        await writer.write(add(2))
    assert str(refused.value) == f"test file {path}: it is closed: open it before this call"


async def test_a_crash_of_the_thread_reaches_everybody_who_waits(
    writer: Writer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(writer_module, "execute", crash)
    with pytest.raises(StorageError) as crashed:
        await writer.write(add(1))

    assert str(crashed.value) == (
        f"test file {path}: its thread has crashed (RuntimeError); nothing of this call was stored: open it again"
    )


async def test_another_programs_transaction_is_waited_for_and_then_named(
    writer: Writer, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PATIENCE", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError) as locked:
        await writer.write(add(1))
    assert str(locked.value) == (
        f"test file {path}: another program has kept the file locked for too long; nothing of this call was stored: "
        "end the program that holds it (for example a database tool with an open transaction) and try again"
    )

    other.execute("ROLLBACK")
    other.close()
    assert await writer.write(add(1)) == 1
