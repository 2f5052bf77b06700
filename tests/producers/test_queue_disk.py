"""The embedded queue on a disk that is full, read-only or damaged: nothing is dropped, and a sentence says what to do.

The disks are real, small ones in memory (``mount -t tmpfs``). Only root may mount; elsewhere these tests are skipped,
and those of ``tests/storage`` are left, in which SQLite is told that the file has its largest size.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broadway_py import Message, Pipeline
from broadway_py.errors import SettleError
from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Counts, Queue, StorageError
from broadway_py.testing import FakeClock
from broadway_py.testing.driving import data, opened, refusal, settle, take
from tests.pipeline.support import soon
from tests.support.disk import Disk, mounted
from tests.support.eventually import eventually

pytestmark = pytest.mark.faults

FULL = "the disk is full; nothing of this call was stored: free some space and try again"
READ_ONLY = (
    "the file cannot be written: give this user write permission to the file and its directory, or choose another path"
)
DAMAGED = "the file is damaged: stop everything that uses it and restore it from a backup"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", "3m") as disk:
        if disk is None:
            pytest.skip("a disk of its own can be mounted by root only")
        yield disk


async def use_up_the_log(queue: Queue) -> int:
    """Put until nothing more fits into what the log has of the disk; how many did."""
    before = await queue.size()
    with contextlib.suppress(StorageError):
        for _ in range(10_000):
            await queue.put(b"z" * 4_000)
    return await queue.size() - before


class Noting(Pipeline[bytes]):
    """Notes what it handles."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: list[bytes] = []

    async def handle_message(self, message: Message[bytes]) -> None:
        self.seen.append(message.data)


async def test_a_put_on_a_full_disk_says_so_stores_nothing_and_works_again_with_room(disk: Disk) -> None:
    path = disk.place / "q.db"
    async with Queue(path, "q") as queue:
        await queue.put_many([b"kept"] * 10)
        disk.fill()
        for _ in range(3):
            with pytest.raises(StorageError) as full:
                await queue.put_many([b"x" * 10_000] * 20)
            assert str(full.value) == f"queue file {path}: {FULL}"
        assert await queue.counts() == Counts(10, 0, 0, 0)
        disk.clear()
        await queue.put_many([b"x" * 10_000] * 20)
        assert await queue.counts() == Counts(30, 0, 0, 0)


async def test_a_pipeline_on_a_full_disk_is_not_ready_drops_nothing_and_goes_on_with_room(disk: Disk) -> None:
    path = disk.place / "q.db"
    bodies = [b"%03d" % number + b"." * 200 for number in range(300)]
    async with Queue(path, "q") as queue:
        await queue.put_many(bodies)
        disk.fill()
        more = await use_up_the_log(queue)
        async with Noting(producer=QueueProducer(path, "q")) as pipeline:
            await eventually(lambda: FULL in str(pipeline.stats().trouble), what="the pipeline says why it waits")
            assert pipeline.stats().trouble == f"queue: queue file {path}: {FULL}"
            assert pipeline.seen == []
            disk.clear()
            await eventually(lambda: len(pipeline.seen) >= len(bodies) + more, timeout=60, what="everything is handled")
        assert sorted(pipeline.seen)[: len(bodies)] == bodies
        assert await queue.counts() == Counts(0, 0, 0, 0)


async def test_a_log_that_has_grown_does_not_take_the_room_that_the_file_needs(disk: Disk) -> None:
    path = disk.place / "q.db"
    async with Queue(path, "q") as queue:
        await queue.put_many([b"%04d" % number + b"." * 400 for number in range(1_000)])
        disk.fill()
        await use_up_the_log(queue)
        left = await queue.size()
        disk.give_back(256 * 1024)  # far less than a log that is emptied at eight megabytes would take
        async with Noting(producer=QueueProducer(path, "q")) as pipeline:
            await eventually(lambda: len(pipeline.seen) >= left, timeout=20, what="everything is handled")
        assert await queue.counts() == Counts(0, 0, 0, 0)


async def test_what_does_not_fit_into_the_log_is_stored_once_the_log_is_emptied(disk: Disk) -> None:
    path = disk.place / "q.db"
    async with Queue(path, "q") as queue:
        # What was settled leaves room in the file, and its pages fill the log.
        await queue.put_many([b"." * 1_000] * 1_000)
        async with opened(QueueProducer(path, "q")) as copy:
            await settle(await take(copy, 1_000))
        disk.fill()
        for number in range(300):
            await queue.put(b"%03d" % number + b"." * 1_000)
        assert await queue.size() == 300


async def test_what_cannot_be_settled_on_a_full_disk_comes_again(disk: Disk) -> None:
    path = disk.place / "q.db"
    clock = FakeClock()
    async with Queue(path, "q") as queue, opened(QueueProducer(path, "q"), clock=clock) as copy:
        await queue.put_many([b"a", b"b"])
        held = await take(copy, 2)
        disk.fill()
        await use_up_the_log(queue)
        with pytest.raises(SettleError) as refused:
            await settle(held)
        assert str(refused.value) == f"queue file {path}: {FULL}"
        assert refused.value.unsettled == held
        disk.clear()
        await clock.advance(1)
        again = await take(copy, 2)
        assert [(message.data, message.attempt) for message in again] == [(b"a", 2), (b"b", 2)]
        await settle(again)


async def test_a_disk_that_can_only_be_read_is_named_and_nothing_is_lost(disk: Disk) -> None:
    path = disk.place / "q.db"
    async with Queue(path, "q") as queue:
        await queue.put_many([b"a", b"b"])
    disk.set_writable(writable=False)
    error = await refusal(QueueProducer(path, "q"))
    assert str(error) == f"queue file {path}: {READ_ONLY}"
    with pytest.raises(StorageError) as refused:
        async with Queue(path, "q"):
            pass
    assert str(refused.value) == f"queue file {path}: {READ_ONLY}"

    disk.set_writable(writable=True)
    async with opened(QueueProducer(path, "q")) as copy:
        messages = await take(copy, 2)
        assert data(messages) == [b"a", b"b"]
        await settle(messages)


async def damaged(path: Path) -> None:
    """A queue with messages whose pages have been written over, as a broken disk does it."""
    async with Queue(path, "q") as queue:
        await queue.put_many([os.urandom(2_000) for _ in range(200)])
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(20, size // 4096):
            file.seek(page * 4096)
            file.write(b"\xde\xad\xbe\xef" * 1024)


async def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    await damaged(path)
    async with Noting(producer=QueueProducer(path, "q")) as pipeline:
        await eventually(lambda: "damaged" in str(pipeline.stats().trouble), what="the pipeline says what is wrong")
        assert pipeline.stats().trouble == f"queue: queue file {path}: {DAMAGED}"
        assert pipeline.seen == []


async def test_a_file_that_another_program_keeps_locked_is_named_and_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadway_py.storage.connection.PATIENCE", 0.05)
    path = tmp_path / "q.db"
    async with Queue(path, "q") as queue:
        await queue.put(b"a")
        pipeline = Noting(producer=QueueProducer(path, "q"))
        tool = sqlite3.connect(path, isolation_level=None)
        tool.execute("BEGIN IMMEDIATE")
        async with pipeline:
            await eventually(lambda: "locked" in str(pipeline.stats().trouble), what="the pipeline says why it waits")
            assert pipeline.stats().trouble == (
                f"queue: queue file {path}: another program has kept the file locked for too long; nothing of this "
                "call was stored: end the program that holds it (for example a database tool with an open "
                "transaction) and try again"
            )
            tool.execute("ROLLBACK")
            tool.close()
            await eventually(lambda: pipeline.seen == [b"a"], timeout=60, what="it goes on by itself")
            await soon(pipeline.ready())
