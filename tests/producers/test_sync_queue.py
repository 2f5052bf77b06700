"""``SyncQueue``: the embedded queue for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Counts, NewMessage, Queue, StorageError, SyncQueue
from broadway_py.testing.driving import opened, settle, take
from tests.support.eventually import eventually_sync


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
def queue(path: Path) -> Iterator[SyncQueue]:
    with SyncQueue(path, "q") as made:
        yield made


def test_it_puts_and_counts(queue: SyncQueue) -> None:
    assert queue.put("one", {"n": 1}) == 1
    assert queue.put_many([b"two", NewMessage(data=b"three", priority=2)]) == [2, 3]
    assert queue.put_many(iter(())) == []
    queue.put(b"later", delay=60)
    assert queue.size() == 4
    assert queue.counts() == Counts(ready=3, delayed=1, held=0, dead=0)


def test_it_takes_ids_for_repetitions(path: Path) -> None:
    with SyncQueue(path, "q", dedup_window=60) as queue:
        assert queue.put("a", message_id="1") == queue.put("a", message_id="1")


def test_it_looks_after_dead_letters(path: Path) -> None:
    async def fail_two() -> None:
        async with Queue(path, "q") as queue, opened(QueueProducer(path, "q")) as copy:
            await queue.put_many([b"a", b"b"])
            await settle(failed=await take(copy, 2))

    with ThreadPoolExecutor(1) as elsewhere, SyncQueue(path, "q") as queue:
        elsewhere.submit(asyncio.run, fail_two()).result()
        assert [letter.data for letter in queue.dead_letters()] == [b"a", b"b"]
        assert [letter.id for letter in queue.dead_letters(limit=1)] == [1]
        assert queue.replay([1]) == 1
        assert queue.purge() == 1
        assert queue.counts() == Counts(1, 0, 0, 0)


def test_threads_may_share_one(queue: SyncQueue) -> None:
    def put(number: int) -> None:
        for _ in range(20):
            queue.put(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))
    assert queue.size() == 160


def test_it_has_every_method_of_the_asynchronous_one_with_the_same_arguments() -> None:
    def face(cls: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(value).parameters)
            for name, value in vars(cls).items()
            if not name.startswith("_") and callable(value)
        }

    assert face(SyncQueue) == face(Queue)
    assert list(inspect.signature(SyncQueue).parameters) == list(inspect.signature(Queue).parameters)


def test_an_error_comes_out_and_the_queue_goes_on(queue: SyncQueue) -> None:
    with pytest.raises(TypeError, match="a payload is bytes or str, got int"):
        queue.put(5)  # type: ignore[arg-type]  # the mistake under test
    assert queue.put(b"good") == 1


def test_a_file_that_cannot_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "no" / "q.db"
    before = threading.active_count()
    queue = SyncQueue(path, "q")
    with pytest.raises(StorageError) as refused:
        queue.open()
    assert str(refused.value) == (
        f"queue file {path}: its directory {path.parent} does not exist: create it, or choose another path"
    )
    # The thread of the file says that it is closed, and then ends.
    eventually_sync(lambda: threading.active_count() == before, what="no thread is left")
    queue.close()


def test_opening_and_closing_twice_is_harmless_and_leaves_no_thread(path: Path) -> None:
    before = threading.active_count()
    queue = SyncQueue(path, "q")
    queue.open()
    queue.open()
    queue.put(b"")
    queue.close()
    queue.close()
    # The thread of the file says that it is closed, and then ends.
    eventually_sync(lambda: threading.active_count() == before, what="no thread is left")
    with pytest.raises(StorageError) as closed:
        queue.put(b"")
    assert str(closed.value) == f"queue 'q' in {path} is not open; use it inside 'with SyncQueue(…) as queue'"
    assert repr(queue) == f"<SyncQueue 'q' in '{path}'>"


async def test_in_an_event_loop_it_refuses_to_make_it_stand_still(path: Path) -> None:
    queue = SyncQueue(path, "q")
    with pytest.raises(StorageError) as refused:
        queue.open()
    assert str(refused.value) == (
        f"queue 'q' in {path}: this would block the event loop; use 'async with Queue(…)' there"
    )


def test_a_forked_child_is_told_to_open_its_own(queue: SyncQueue, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = os.getpid()
    monkeypatch.setattr("broadway_py.queue.os.getpid", lambda: parent + 1)
    with pytest.raises(StorageError) as refused:
        queue.put(b"")
    assert str(refused.value) == (
        f"queue 'q' in {path} was opened by the parent of this process; open it after the fork"
    )
    monkeypatch.undo()
