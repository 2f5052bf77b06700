"""The sink of the embedded queue: what it stores, once, and the whole sentence for each wrong setting."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broadway_py.errors import OptionsError, ProducerError, PublishError
from broadway_py.producers.queue import QueueProducer
from broadway_py.producers.queue_sink import QueueSink
from broadway_py.publisher import Outgoing, Publisher
from broadway_py.queue import Queue
from broadway_py.testing import FakeClock
from broadway_py.testing.driving import opened, take


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.db"


def publisher(path: Path, **settings: Any) -> Publisher:
    return QueueSink(path, "out", **settings).create("shop.revenue")


def message(number: int) -> Outgoing:
    return Outgoing(data=b"%d" % number, message_id=f"w{number}#1")


async def test_the_payload_the_id_the_key_and_the_headers_arrive(path: Path) -> None:
    sink = publisher(path)
    await sink.publish(
        [Outgoing(data=b"{}", message_id="w#1", key="DE", headers={"x": "y"}, content_type="application/json")],
        timeout=10.0,
    )
    await sink.close()

    async with opened(QueueProducer(path, "out")) as copy:
        (came,) = await take(copy, 1)
    assert came.data == b"{}"
    expected = {"message_id": "w#1", "key": "DE", "x": "y", "queue": "out", "redelivered": False}
    assert {name: came.metadata[name] for name in expected} == expected


async def test_a_message_that_is_published_again_is_stored_once(path: Path) -> None:
    sink = publisher(path)
    await sink.publish([message(1), message(2)], timeout=10.0)
    await sink.close()
    again = publisher(path)
    await again.publish([message(2), message(3)], timeout=10.0)
    await again.close()

    async with Queue(path, "out") as queue:
        assert await queue.size() == 3


async def test_after_the_window_a_repetition_is_a_new_message(path: Path) -> None:
    clock = FakeClock()
    sink = QueueSink(path, "out", dedup_window=60.0).create("shop.revenue", clock)
    await sink.publish([message(1)], timeout=10.0)
    await clock.advance(61.0)
    await sink.publish([message(1)], timeout=10.0)
    await sink.close()

    async with Queue(path, "out") as queue:
        assert await queue.size() == 2


async def test_an_empty_key_is_none(path: Path) -> None:
    sink = publisher(path)
    await sink.publish([Outgoing(data=b"{}", key="")], timeout=10.0)
    await sink.close()

    async with opened(QueueProducer(path, "out")) as copy:
        (came,) = await take(copy, 1)
    assert "key" not in came.metadata


async def test_a_message_without_an_id_is_always_new(path: Path) -> None:
    sink = publisher(path)
    for _ in range(2):
        await sink.publish([Outgoing(data=b"same")], timeout=10.0)
    await sink.close()

    async with Queue(path, "out") as queue:
        assert await queue.size() == 2


async def test_a_long_list_is_stored_in_order(path: Path) -> None:
    sink = publisher(path)
    await sink.publish([message(number) for number in range(1_234)], timeout=60.0)
    await sink.close()

    async with opened(QueueProducer(path, "out")) as copy:
        messages = await take(copy, 1_234)
    assert [came.data for came in messages] == [b"%d" % number for number in range(1_234)]


async def test_a_message_that_cannot_be_stored_is_refused_and_the_others_are_stored(path: Path) -> None:
    sink = publisher(path)
    odd = Outgoing(data=b"odd", message_id="")

    with pytest.raises(PublishError) as error:
        await sink.publish([message(1), odd, message(2)], timeout=10.0)
    await sink.close()

    assert str(error.value) == (
        "1 of 3 messages were not confirmed: a message cannot be stored: message_id takes text that is not empty, "
        "got str"
    )
    assert error.value.unpublished == error.value.refused == [odd]
    async with Queue(path, "out") as queue:
        assert await queue.size() == 2


async def test_a_file_that_cannot_be_used_is_told_and_tried_again(tmp_path: Path) -> None:
    missing, clock = tmp_path / "later" / "out.db", FakeClock()
    sink = QueueSink(missing, "out").create("shop.revenue", clock)
    sentence = f"queue file {missing}: its directory {missing.parent} does not exist: create it, or choose another path"
    with pytest.raises(ProducerError) as refused:
        await sink.open()
    assert str(refused.value) == sentence

    missing.parent.mkdir()

    await sink.publish([message(1)], timeout=10.0)
    await sink.close()
    async with Queue(missing, "out") as queue:
        assert await queue.size() == 1


async def test_messages_that_another_program_keeps_out_are_not_confirmed(path: Path) -> None:
    """Nothing is stored before the lock is gone, and the caller's time ends first."""
    sink = publisher(path)
    await sink.open()
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        publishing = asyncio.ensure_future(sink.publish([message(1)], timeout=0.2))
        with pytest.raises(PublishError) as error:
            await publishing
        assert len(error.value.unpublished) == 1
        assert error.value.refused == []
        other.rollback()
    await sink.close()


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        QueueSink(**settings)
    return str(wrong.value)


def test_wrong_settings_are_refused_with_whole_sentences() -> None:
    assert complaint(queue="out") == "path: required, but missing"
    assert complaint(path="out.db") == "queue: required, but missing"
    assert complaint(path="out.db", queue="") == "queue: String should have at least 1 character, got ''"
    assert complaint(path=":memory:", queue="out").startswith("path: expected the path of a file: a queue in memory")
    assert complaint(path="out.db", queue="out", dedup_window=0) == "dedup_window: expected greater than 0, got 0"
    assert complaint(path="out.db", queue="out", dedup_window="soon") == (
        "dedup_window: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'"
    )


def test_a_window_may_be_text_or_a_timedelta() -> None:
    assert QueueSink("out.db", "out").options.dedup_window == 86_400.0
    assert QueueSink("out.db", "out", dedup_window="1h").options.dedup_window == 3_600.0  # type: ignore[arg-type]  # text, as in files
    assert QueueSink("out.db", "out", dedup_window=timedelta(hours=1)).options.dedup_window == 3_600.0


def test_the_place_is_shown() -> None:
    assert repr(QueueSink("out.db", "revenue")) == "<QueuePublisher queue 'revenue' in out.db>"
