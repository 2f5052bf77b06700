"""``Queue``: the face of the embedded queue for those who put messages in and look after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from broadway_py.errors import OptionsError
from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Counts, Queue, StorageError
from tests.contract.producer_contract import data, opened, settle, take


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[Queue]:
    async with Queue(path, "q") as made:
        yield made


async def test_what_was_put_is_there_for_a_later_process(path: Path) -> None:
    async with Queue(path, "q") as queue:
        assert await queue.put("grüße", {"place": 1}) == 1
        assert await queue.put_many([b"two", "three", (b"four", {"place": 4}), ("five", None)]) == [2, 3, 4, 5]
    async with Queue(path, "q") as queue:
        assert await queue.size() == 5
        async with opened(QueueProducer(path, "q")) as copy:
            messages = await take(copy, 5)
            assert data(messages) == ["grüße".encode(), b"two", b"three", b"four", b"five"]
            assert [message.metadata.get("place") for message in messages] == [1, None, None, 4, None]
            await settle(messages)
        assert await queue.size() == 0


async def test_nothing_to_put_is_nothing_put(queue: Queue) -> None:
    assert await queue.put_many([]) == []
    assert await queue.counts() == Counts(ready=0, delayed=0, held=0, dead=0)


async def test_a_large_list_keeps_its_order(queue: Queue, path: Path) -> None:
    bodies = [b"%d" % number for number in range(1_234)]
    numbers = await queue.put_many(bodies)
    assert numbers == list(range(1, 1_235))
    async with opened(QueueProducer(path, "q")) as copy:
        messages = await take(copy, 1_234)
        assert data(messages) == bodies
        await settle(messages)


async def test_a_list_with_one_bad_item_stores_none(queue: Queue) -> None:
    with pytest.raises(TypeError):
        await queue.put_many([b"good", 5])  # type: ignore[list-item]  # the mistake under test
    assert await queue.size() == 0


async def test_queues_of_one_file_do_not_mix(queue: Queue, path: Path) -> None:
    async with Queue(path, "other") as other:
        await queue.put(b"mine")
        await other.put(b"theirs")
        async with opened(QueueProducer(path, "other")) as copy:
            messages = await take(copy, 1)
            assert data(messages) == [b"theirs"]
            await settle(failed=messages)
        assert await other.counts() == Counts(0, 0, 0, 1)
        assert await queue.counts() == Counts(1, 0, 0, 0)
        assert await queue.purge() == 0


async def test_counts_say_where_messages_stand(queue: Queue, path: Path) -> None:
    await queue.put_many([b"a", b"b", b"c"])
    await queue.put(b"later", delay=3_600)
    async with opened(QueueProducer(path, "q")) as copy:
        first, second = await take(copy, 2)
        await settle(failed=[first])
        assert await queue.counts() == Counts(ready=1, delayed=1, held=1, dead=1)
        assert await queue.size() == 3
        await settle([second])


async def test_a_dead_letter_says_why_and_keeps_everything(queue: Queue, path: Path) -> None:
    await queue.put(b"secret payload", {"order": 7})
    async with opened(QueueProducer(path, "q")) as copy:
        (message,) = await take(copy, 1)
        message.fail("because of secret payload")
        await settle(failed=[message])

    (letter,) = await queue.dead_letters()
    assert (letter.id, letter.data, letter.metadata, letter.cause, letter.exception) == (
        1,
        b"secret payload",
        {"order": 7},
        "failed",
        None,
    )
    assert (letter.attempts, letter.pipeline) == (1, "contract")
    assert letter.enqueued_at <= letter.dead_at
    assert "secret" not in repr(letter)


async def test_replayed_dead_letters_come_again_as_new(queue: Queue, path: Path) -> None:
    await queue.put_many([(b"%d" % number, {"number": number}) for number in range(4)])
    async with opened(QueueProducer(path, "q")) as copy:
        await settle(failed=await take(copy, 4))

        waiting = asyncio.create_task(take(copy, 2))
        assert await queue.replay([3, 1, 99]) == 2
        messages = await waiting
        assert [(m.data, m.attempt, m.metadata["number"], m.id) for m in messages] == [
            (b"0", 1, 0, "1"),
            (b"2", 1, 2, "3"),
        ]
        assert [letter.id for letter in await queue.dead_letters()] == [2, 4]
        await settle(messages)
        assert await queue.replay() == 2
        assert await queue.counts() == Counts(2, 0, 0, 0)


async def test_purge_removes_dead_letters_and_nothing_else(queue: Queue, path: Path) -> None:
    await queue.put_many([b"a", b"b", b"c", b"d"])
    async with opened(QueueProducer(path, "q")) as copy:
        await settle(failed=await take(copy, 3))
    assert [letter.id for letter in await queue.dead_letters(limit=2)] == [1, 2]
    assert await queue.purge([2]) == 1
    assert await queue.purge() == 2
    assert await queue.counts() == Counts(1, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (
            {"data": {"a": "canary"}},
            TypeError,
            "a payload is bytes or str, got dict: encode it first, with json.dumps for example",
        ),
        (
            {"data": b"", "metadata": {"when": object}},
            TypeError,
            "metadata holds something that JSON cannot say: Object of type type is not JSON serializable",
        ),
        (
            {"data": b"", "metadata": {"n": float("nan")}},
            ValueError,
            "metadata holds something that JSON cannot say: Out of range float values are not JSON compliant",
        ),
        (
            {"data": b"", "delay": -1},
            ValueError,
            "delay takes seconds from 0 to 315360000 (ten years), got -1",
        ),
        (
            {"data": b"", "delay": float("nan")},
            ValueError,
            "delay takes seconds from 0 to 315360000 (ten years), got nan",
        ),
    ],
)
async def test_what_cannot_be_stored_is_refused_with_the_reason(
    queue: Queue, arguments: Mapping[str, Any], kind: type[Exception], sentence: str
) -> None:
    with pytest.raises(kind) as refused:
        await queue.put(**arguments)
    assert str(refused.value) == sentence
    assert await queue.size() == 0


async def test_a_queue_that_is_not_open_says_how_to_open_it(path: Path) -> None:
    queue = Queue(path, "q")
    with pytest.raises(StorageError) as refused:
        await queue.put(b"")
    assert str(refused.value) == (f"queue 'q' in {path} is not open: use it inside 'async with Queue(…) as queue'")
    assert repr(queue) == f"<Queue 'q' in '{path}'>"


async def test_opening_and_closing_twice_is_harmless(path: Path) -> None:
    queue = Queue(path, "q")
    await queue.open()
    await queue.open()
    await queue.put(b"")
    await queue.close()
    await queue.close()


async def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no" / "q.db"
    with pytest.raises(StorageError) as refused:
        async with Queue(path, "q"):
            pass
    assert str(refused.value) == (
        f"queue file {path}: its directory {path.parent} does not exist: create it, or choose another path"
    )


@pytest.mark.parametrize(
    ("path", "name", "sentence"),
    [
        ("", "q", "path: expected the path of a file, got ''"),
        (5, "q", "path: expected the path of a file, got 5"),
        (
            ":memory:",
            "q",
            "path: expected the path of a file: a queue in memory could neither be shared nor survive, got ':memory:'",
        ),
        ("q.db", "", "queue: String should have at least 1 character, got ''"),
        ("q.db", None, "queue: expected a valid string, got None"),
    ],
)
def test_a_place_that_is_none_is_refused(path: Any, name: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Queue(path, name)
    assert str(refused.value) == sentence
