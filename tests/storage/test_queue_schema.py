"""Files of older programs are brought forward with all that is in them; those of newer ones are refused."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path

import pytest

from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Counts, Queue, StorageError
from broadway_py.storage.connection import connect
from broadway_py.storage.queue_schema import QUEUE_SCHEMA
from broadway_py.testing.driving import data, marks, opened, settle, take


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


async def test_a_file_of_version_1_keeps_its_messages_in_order(path: Path) -> None:
    first = dataclasses.replace(QUEUE_SCHEMA, migrations=QUEUE_SCHEMA.migrations[:1])
    old = connect(str(path), first)
    old.execute("INSERT INTO queues (name) VALUES ('q')")
    old.execute("INSERT INTO consumers (visibility) VALUES (30)")
    row = "INSERT INTO messages (queue, lease, due, attempts, enqueued_at, metadata, payload) VALUES "
    old.execute(row + "(1, NULL, NULL, 0, 5.25, '{\"n\": 1}', x'61'), (1, NULL, NULL, 2, 6, NULL, x'62')")
    old.execute(row + f"(1, {1 << 32 | 7}, NULL, 1, 7, NULL, x'63'), (1, NULL, 1e12, 0, 8, NULL, x'64')")
    old.execute(
        "INSERT INTO dead_letters (id, queue, attempts, enqueued_at, dead_at, cause, pipeline, payload) "
        "VALUES (99, 1, 5, 1, 2, 'raised', 'p', x'65')"
    )
    old.close()

    async with Queue(path, "q") as queue:
        assert await queue.counts() == Counts(ready=2, delayed=1, held=1, dead=1)
        assert await queue.put(b"new", priority=-1) == 5
        assert await queue.replay() == 1
        # The old program is not there any more, so what it held comes at once.
        async with opened(QueueProducer(path, "q")) as copy:
            messages = await take(copy, 5)
            assert data(messages) == [b"a", b"b", b"c", b"e", b"new"]
            assert [message.attempt for message in messages] == [1, 3, 2, 1, 1]
            assert (messages[0].metadata["n"], messages[0].metadata["enqueued_at"]) == (1, 5.25)
            # Nobody knows who had the old ones.
            assert list(marks(messages).values()) == [True] * 4 + [False]
            await settle(messages)
        assert await queue.counts() == Counts(0, 1, 0, 0)


async def test_a_file_of_a_newer_program_is_refused_and_left_as_it_is(path: Path) -> None:
    async with Queue(path, "q") as queue:
        await queue.put(b"a")
    later = sqlite3.connect(path)
    later.execute(f"PRAGMA user_version = {QUEUE_SCHEMA.version + 1}")
    later.close()
    before = path.read_bytes()

    with pytest.raises(StorageError) as refused:
        await Queue(path, "q").open()

    assert str(refused.value) == (
        f"queue file {path}: the file has version 4, this program knows versions up to 3; nothing was changed: use the "
        "newer broadway-py that made it, or another file"
    )
    assert path.read_bytes() == before
