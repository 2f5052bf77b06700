"""``Queue``: the face of the embedded queue for those who put messages in and look after them."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from broadway_py.errors import OptionsError
from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Counts, NewMessage, Queue, StorageError
from broadway_py.testing import FakeClock
from broadway_py.testing.driving import data, opened, settle, take


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


def unsayable(value: object) -> str:
    """What this Python's json has against *value*: each version words it anew."""
    with pytest.raises((TypeError, ValueError)) as refused:
        json.dumps({"value": value}, allow_nan=False)
    return str(refused.value)


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
            f"metadata has something that JSON cannot represent: {unsayable(object)}",
        ),
        (
            {"data": b"", "metadata": {"n": float("nan")}},
            ValueError,
            f"metadata has something that JSON cannot represent: {unsayable(float('nan'))}",
        ),
        (
            {"data": b"", "delay": -1},
            ValueError,
            "delay takes seconds from 0 to 315360000 (ten years), got -1",
        ),
        (
            {"data": b"", "priority": 101},
            ValueError,
            "priority takes a whole number from -100 to 100, got 101",
        ),
        (
            {"data": b"", "priority": True},
            ValueError,
            "priority takes a whole number from -100 to 100, got True",
        ),
        (
            {"data": b"", "key": ""},
            ValueError,
            "key takes text that is not empty, got str",
        ),
        (
            {"data": b"", "message_id": 7},
            ValueError,
            "message_id takes text that is not empty, got int",
        ),
        (
            {"data": b"", "key": "a", "priority": 1},
            ValueError,
            "a message with a key has no priority: its key's messages are taken in the order of puts",
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


async def test_a_larger_priority_is_taken_first_and_equal_ones_in_the_order_of_puts(queue: Queue, path: Path) -> None:
    for name, priority in (("a", 0), ("b", 5), ("c", -5), ("d", 5), ("e", 0)):
        await queue.put(name, priority=priority)
    async with opened(QueueProducer(path, "q")) as copy:
        first = await take(copy, 1)
        await queue.put("f", priority=9)
        rest = await take(copy, 5)
        assert data([*first, *rest]) == [b"b", b"f", b"d", b"a", b"e", b"c"]
        await settle(failed=[*first, *rest])
        assert await queue.replay() == 6
        again = await take(copy, 6)
        assert data(again) == [b"f", b"b", b"d", b"a", b"e", b"c"]
        await settle(again)


async def test_all_that_can_be_said_about_a_message_is_said_in_a_list_too(path: Path) -> None:
    clock = FakeClock()
    queue = Queue(path, "q")
    queue.clock = clock
    async with queue, opened(QueueProducer(path, "q"), clock=clock) as copy:
        await queue.put_many(
            [
                NewMessage(data="plain"),
                NewMessage(data=b"late", delay=60, metadata={"n": 1}),
                NewMessage(data=b"first", priority=3),
                NewMessage(data=b"keyed", key="customer-7", message_id="order-1"),
            ]
        )
        messages = await take(copy, 3)
        assert data(messages) == [b"first", b"plain", b"keyed"]
        assert (messages[2].id, messages[2].metadata["key"]) == ("order-1", "customer-7")
        await clock.advance(60)
        late = await take(copy, 1)
        assert (late[0].data, late[0].metadata["n"]) == (b"late", 1)
        await settle([*messages, *late])


def test_a_new_message_does_not_show_what_is_in_it() -> None:
    assert repr(NewMessage(data=b"secret", metadata={"secret": 1}, key="secret", message_id="7")) == (
        "NewMessage(delay=None, priority=0, message_id='7')"
    )


async def test_a_repetition_within_the_window_is_stored_once_and_has_the_first_ones_number(path: Path) -> None:
    clock = FakeClock()
    queue = Queue(path, "q", dedup_window=60)
    queue.clock = clock
    async with queue:
        first = await queue.put("a", message_id="1")
        assert await queue.put("a again", message_id="1") == first
        # In metadata, in one list, twice in that list, without an id.
        numbers = await queue.put_many([("b", {"message_id": "2"}), NewMessage(data="b", message_id="2"), "a", "a"])
        assert numbers == [first + 1, first + 1, first + 2, first + 3]
        clock.step_wall(100_000)
        await clock.advance(59)
        assert await queue.put("a", message_id="1") == first
        await clock.advance(1)
        assert await queue.put("a", message_id="1") == first + 4
        assert await queue.size() == 5


async def test_a_repetition_of_a_message_that_was_handled_is_still_one(path: Path) -> None:
    async with Queue(path, "q", dedup_window=60) as queue, opened(QueueProducer(path, "q")) as copy:
        number = await queue.put("a", message_id="1")
        await settle(await take(copy, 1))
        assert await queue.put("a", message_id="1") == number
        assert await queue.size() == 0
    async with Queue(path, "q", dedup_window=60) as queue, Queue(path, "other", dedup_window=60) as other:
        assert await queue.put("a", message_id="1") == number
        assert await other.put("a", message_id="1") != number


async def test_ids_outside_of_the_window_are_forgotten(path: Path) -> None:
    clock = FakeClock()
    queue = Queue(path, "q", dedup_window=60)
    queue.clock = clock

    def count(at: sqlite3.Connection) -> int:
        return int(at.execute("SELECT count(*) FROM recent").fetchone()[0])

    async with queue:
        assert queue._file is not None
        for _ in range(5):
            await queue.put_many(NewMessage(data=b"", message_id=str(number)) for number in range(1_500))
            await clock.advance(61)
            assert await queue._file.writer.read(count) == 1_500
        await queue.put(b"", message_id="last")
        assert await queue._file.writer.read(count) <= 501


async def test_without_a_window_ids_may_come_again(queue: Queue) -> None:
    assert await queue.put("a", message_id="1") != await queue.put("a", message_id="1")


@pytest.mark.parametrize("window", [0, -1, float("nan"), float("inf")])
def test_a_window_that_is_none_is_refused(path: Path, window: float) -> None:
    with pytest.raises(ValueError, match="dedup_window") as refused:
        Queue(path, "q", dedup_window=window)
    assert str(refused.value) == f"dedup_window takes seconds up to 315360000 (ten years), got {window!r}"


async def test_payloads_of_any_bytes_and_any_size_come_back_as_they_were(queue: Queue, path: Path) -> None:
    bodies = [
        b"",
        bytes(range(256)),
        b"\0",
        "grüße".encode(),
        b"\xff\xfe" * 3,
        os.urandom(32 * 1024),
        os.urandom(32 * 1024 + 1),
        b"",
        os.urandom(300_000),
        b"'\\\"",
    ]
    await queue.put_many([(body, {"text": '\u2028 "quoted" \\'}) for body in bodies])
    async with opened(QueueProducer(path, "q")) as copy:
        messages = await take(copy, len(bodies))
        assert data(messages) == bodies
        assert {message.metadata["text"] for message in messages} == {'\u2028 "quoted" \\'}
        await settle(messages)


async def test_one_demand_takes_about_sixteen_megabytes_at_most(queue: Queue, path: Path) -> None:
    await queue.put_many([b"x" * 6_000_000] * 5)
    async with opened(QueueProducer(path, "q")) as copy:
        sizes = [len(await copy.handle_demand(500) or ()) for _ in range(2)]
        assert sizes == [3, 2]


async def test_a_text_that_another_program_has_put_is_bytes(queue: Queue, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("INSERT INTO messages (queue, enqueued_at, payload) VALUES (1, 0, 'grün'), (1, 0, 'ab')")
    other.close()
    async with opened(QueueProducer(path, "q")) as copy:
        messages = await take(copy, 2)
        assert data(messages) == ["grün".encode(), b"ab"]
        await settle(messages)


async def test_a_queue_that_is_not_open_says_how_to_open_it(path: Path) -> None:
    queue = Queue(path, "q")
    with pytest.raises(StorageError) as refused:
        await queue.put(b"")
    assert str(refused.value) == (f"queue 'q' in {path} is not open; use it inside 'async with Queue(…) as queue'")
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
        (5, "q", "path: expected the path of a file, got 5; put quotes around it"),
        (
            ":memory:",
            "q",
            "path: expected the path of a file: a queue in memory could neither be shared nor survive, got ':memory:'",
        ),
        ("q.db", "", "queue: String should have at least 1 character, got ''"),
        ("q.db", None, "queue: expected text, got None"),
    ],
)
def test_a_place_that_is_none_is_refused(path: Any, name: Any, sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Queue(path, name)
    assert str(refused.value) == sentence
