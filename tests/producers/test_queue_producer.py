"""``QueueProducer``: what the contract suite does not ask, because only this source has it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, cast

import pytest

from broadway_py.errors import OptionsError, ProducerError, SettleError
from broadway_py.message import Failed
from broadway_py.producer import SourceMessages
from broadway_py.producers.queue import QueueProducer, QueueReader
from broadway_py.queue import Counts, NewMessage, Queue
from broadway_py.storage import queue_rows
from broadway_py.storage.queue_slots import slot_of
from broadway_py.testing import FakeClock
from broadway_py.testing.driving import ask, copy_of, data, give_back, marks, opened, refusal, settle, take
from tests.support.eventually import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[Queue]:
    async with Queue(path, "q") as made:
        yield made


def with_clock(path: Path, clock: FakeClock) -> Queue:
    queue = Queue(path, "q")
    queue.clock = clock
    return queue


async def test_metadata_says_what_the_queue_knows(path: Path) -> None:
    clock = FakeClock()
    queue = with_clock(path, clock)
    async with queue:
        await queue.put(b"one", {"place": "here"})
        await queue.put(b"two", {"message_id": "mine", "queue": "no", "enqueued_at": "no", "redelivered": "no"})
        async with opened(QueueProducer(path, "q"), clock=clock) as copy:
            one, two = await take(copy, 2)
            assert one.metadata == {
                "message_id": "1",
                "place": "here",
                "queue": "q",
                "enqueued_at": clock.wall(),
                "redelivered": False,
            }
            assert two.metadata == {
                "message_id": "mine",
                "queue": "q",
                "enqueued_at": clock.wall(),
                "redelivered": False,
            }
            assert (one.id, two.id, one.attempt, two.attempt) == ("1", "mine", 1, 1)
            await settle([one, two])


async def test_a_message_that_any_reader_had_stays_marked_whatever_became_of_it(path: Path, queue: Queue) -> None:
    await queue.put_many([b"given back", b"retried", b"dead"])
    async with opened(QueueProducer(path, "q")) as copy:
        released, retried, dead = await take(copy, 3)
        assert set(marks([released, retried, dead]).values()) == {False}
        acknowledger = released.acknowledgement.acknowledger
        await acknowledger.release(None, [released])
        await acknowledger.retry(None, [(retried, 0.0)])
        await acknowledger.dead_letter(None, [dead])
    await queue.replay()
    await queue.put(b"new")
    async with opened(QueueProducer(path, "q")) as copy:
        again = await take(copy, 4)
        assert marks(again) == {b"given back": True, b"retried": True, b"dead": True, b"new": False}
        assert {message.data: message.attempt for message in again} == {
            b"given back": 1,
            b"retried": 2,
            b"dead": 1,
            b"new": 1,
        }
        await settle(again)


async def test_one_demand_takes_at_most_five_hundred(path: Path, queue: Queue) -> None:
    await queue.put_many([b""] * 600)
    async with opened(QueueProducer(path, "q")) as copy:
        messages = await copy.handle_demand(10_000)
        assert messages is not None
        assert len(messages) == 500
        await settle(messages)


async def test_a_failed_message_is_kept_among_the_dead_letters_with_its_cause(path: Path, queue: Queue) -> None:
    await queue.put(b"bad")
    async with opened(QueueProducer(path, "q")) as copy:
        (message,) = await take(copy, 1)
        message.status = Failed("raised", "it says bad", KeyError("bad"))
        await settle(failed=[message])
    (letter,) = await queue.dead_letters()
    assert (letter.data, letter.cause, letter.exception) == (b"bad", "raised", "KeyError")


@pytest.mark.parametrize("call", ["ack", "dead_letter"])
async def test_a_message_whose_dead_letter_cannot_be_written_stays_where_it_is(
    path: Path, queue: Queue, call: str
) -> None:
    await queue.put(b"bad")
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "CREATE TRIGGER no_room BEFORE INSERT ON dead_letters BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    async with opened(QueueProducer(path, "q")) as copy:
        (message,) = await take(copy, 1)
        message.status = Failed("raised", "it says bad")
        acknowledger = message.acknowledgement.acknowledger
        with pytest.raises(SettleError):
            await (
                acknowledger.ack(None, [], [message]) if call == "ack" else acknowledger.dead_letter(None, [message])
            )
    assert await queue.size() == 1
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TRIGGER no_room")
    async with opened(QueueProducer(path, "q")) as copy:
        (again,) = await take(copy, 1)
        assert again.data == b"bad"
        await settle([again])
    assert await queue.dead_letters() == []


async def test_on_failure_drop_keeps_no_dead_letter(path: Path, queue: Queue) -> None:
    await queue.put(b"bad")
    async with opened(QueueProducer(path, "q", on_failure="drop")) as copy:
        await settle(failed=await take(copy, 1))
    assert await queue.counts() == Counts(0, 0, 0, 0)


async def test_a_message_may_choose_its_own_on_failure(path: Path, queue: Queue) -> None:
    await queue.put_many([b"drop", b"keep"])
    async with opened(QueueProducer(path, "q")) as copy:
        drop, keep = await take(copy, 2)
        drop.configure_ack(on_failure="drop")
        await settle(failed=[drop, keep])
    assert [letter.data for letter in await queue.dead_letters()] == [b"keep"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"on_succes": "ack"}, "configure_ack(on_succes=…): the embedded queue knows on_failure only"),
        ({"on_failure": "retry"}, "configure_ack(on_failure=…) takes 'dead_letter' or 'drop', got 'retry'"),
    ],
)
async def test_an_unknown_ack_option_is_refused(
    path: Path, queue: Queue, options: dict[str, str], sentence: str
) -> None:
    await queue.put(b"")
    async with opened(QueueProducer(path, "q")) as copy:
        (message,) = await take(copy, 1)
        with pytest.raises(ValueError, match="configure_ack") as refused:
            message.configure_ack(**options)
        assert str(refused.value) == sentence
        await settle([message])


async def test_a_delayed_message_comes_when_its_delay_ends(path: Path) -> None:
    clock = FakeClock()
    queue = with_clock(path, clock)
    async with queue, opened(QueueProducer(path, "q"), clock=clock) as copy:
        await queue.put(b"later", delay=60)
        waiting = await ask(copy, 1)
        # The producer has looked, found nothing, and set its timer.
        await eventually(lambda: any(when >= 1_060 for when, *_ in clock._timers), what="a timer for the delay is set")
        clock.step_wall(-3_600)
        await clock.advance(59)
        assert not waiting.done()
        await clock.advance(1)
        messages = await waiting
        assert messages is not None
        assert data(messages) == [b"later"]
        await settle(messages)


async def test_a_message_put_by_another_program_wakes_a_waiting_demand(path: Path, queue: Queue) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    async with opened(QueueProducer(path, "q")) as copy:
        waiting = await ask(copy, 1)
        await queue.size()  # the demand has been heard: the thread took both in order
        other.execute("INSERT INTO messages (queue, enqueued_at, payload) VALUES (1, 0, x'41')")
        async with asyncio.timeout(10):
            messages = await waiting
        assert messages is not None
        assert data(messages) == [b"A"]
        await settle(messages)
    other.close()


async def test_an_idle_reader_looks_after_others_once_the_file_has_changed(
    path: Path, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    async with opened(QueueProducer(path, "q"), clock=clock) as copy:
        reader = cast("QueueReader", copy)
        consumer = reader._consumer
        assert consumer is not None
        upkeep = consumer.upkeep
        rounds = 0

        async def counted() -> None:
            nonlocal rounds
            await upkeep()
            rounds += 1

        monkeypatch.setattr(consumer, "upkeep", counted)
        waiting = await ask(copy, 1)

        async def idle() -> bool:
            await clock.advance(1)
            return reader._upkeep_wake.future is not None

        await eventually(idle, what="the upkeep has nothing to do")
        assert consumer.idle_round == 10
        await clock.advance(10)  # the timer of the first wait, which ended early
        await eventually(idle, what="the upkeep has nothing to do again")
        before = rounds
        await clock.advance(8)
        assert rounds == before
        await clock.advance(2)
        await eventually(idle, what="it has looked all the same")
        assert rounds > before

        with closing(sqlite3.connect(path)) as other, other:
            # A consumer whose lock file is missing: it took a message and died.
            (dead,) = other.execute(
                "INSERT INTO consumers (visibility, queue, sharing, holder) VALUES (30, 1, 'shared', '') RETURNING id"
            ).fetchone()
            other.execute(
                "INSERT INTO messages (queue, enqueued_at, payload, lease) VALUES (1, 0, x'41', ?)", (dead << 32,)
            )
        await eventually(lambda: reader._upkeep_wake.future is None, what="the upkeep knows of the change")

        async def given_back() -> bool:
            await clock.advance(1)
            return waiting.done()

        await eventually(given_back, what="the message was given back, and taken")
        messages = await waiting
        assert messages is not None
        assert data(messages) == [b"A"]
        await settle(messages)


async def test_what_was_taken_while_the_pause_came_goes_back(path: Path, queue: Queue) -> None:
    async with opened(QueueProducer(path, "q")) as copy:
        waiting = await ask(copy, 5)
        putting = asyncio.create_task(queue.put_many([b"a", b"b"]))
        await copy.pause()
        await putting
        await eventually(lambda: _is_ready(queue, 2), what="both messages are ready")
        assert not waiting.done()
        await copy.resume()
        messages = await waiting
        assert messages is not None
        assert [(m.data, m.attempt) for m in messages] == [(b"a", 1), (b"b", 1)]
        await settle(messages)


async def _is_ready(queue: Queue, count: int) -> bool:
    return await queue.counts() == Counts(count, 0, 0, 0)


async def test_released_messages_wake_another_reader_at_once(path: Path, queue: Queue) -> None:
    await queue.put(b"a")
    description = QueueProducer(path, "q")
    async with opened(description, index=0) as one, opened(description, index=1) as other:
        held = await take(one, 1)
        waiting = asyncio.create_task(take(other, 1))
        await give_back(held)
        (message,) = await waiting
        assert message.attempt == 1
        await settle([message])


async def test_a_lease_that_was_lost_is_an_unknown_outcome(path: Path, queue: Queue) -> None:
    await queue.put_many([b"a", b"b", b"c"])
    async with opened(QueueProducer(path, "q")) as copy:
        one, two, three = await take(copy, 3)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("UPDATE messages SET lease = NULL WHERE id < 3")
        other.close()
        with pytest.raises(SettleError) as lost:
            await settle([one], [two, three])
        assert lost.value.unsettled == [one, two]
        assert str(lost.value) == (
            f"queue file {path}: 2 of 3 messages were not settled, because this reader no longer holds them: it was "
            "closed, or did not run for longer than its visibility, and another reader may have taken them"
        )
    assert await queue.counts() == Counts(2, 0, 0, 1)


async def test_a_file_that_refuses_makes_outcomes_unknown_and_the_messages_come_again(path: Path, queue: Queue) -> None:
    await queue.put_many([b"a", b"b"])
    clock = FakeClock()
    async with opened(QueueProducer(path, "q"), clock=clock) as copy:
        messages = await take(copy, 2)
        await _query_only(queue, "ON")
        with pytest.raises(SettleError) as refused:
            await settle(messages)
        assert refused.value.unsettled == messages
        assert str(refused.value) == (
            f"queue file {path}: the file cannot be written: give this user write permission to the file and its "
            "directory, or choose another path"
        )
        await _query_only(queue, "OFF")
        await clock.advance(1)
        again = await take(copy, 2)
        assert [message.attempt for message in again] == [2, 2]
        await settle(again)


async def _query_only(queue: Queue, value: str) -> None:
    assert queue._file is not None
    await queue._file.writer.read(lambda at: at.execute(f"PRAGMA query_only = {value}"))


async def test_a_file_that_refuses_takes_is_a_lost_source(path: Path, queue: Queue) -> None:
    await queue.put(b"a")
    async with opened(QueueProducer(path, "q")) as copy:
        await _query_only(queue, "ON")
        with pytest.raises(ProducerError) as lost:
            await copy.handle_demand(1)
        await _query_only(queue, "OFF")
        assert str(lost.value) == (
            f"queue file {path}: the file cannot be written: give this user write permission to the file and its "
            "directory, or choose another path"
        )


async def test_a_reader_that_was_declared_dead_reports_the_loss_and_ends_its_demand(path: Path, queue: Queue) -> None:
    clock = FakeClock()
    losses: list[ProducerError] = []
    await queue.put(b"a")
    async with opened(QueueProducer(path, "q"), losses=losses, clock=clock) as copy:
        (held,) = await take(copy, 1)
        waiting = await ask(copy, 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("DELETE FROM consumers")
        other.close()

        async def lost() -> bool:
            await clock.advance(1)
            return bool(losses)

        await eventually(lost, what="the loss is reported")
        with pytest.raises(ProducerError) as ended:
            await waiting
        assert ended.value is losses[0]
        assert str(ended.value) == (
            f"queue file {path}: this consumer was declared dead, because its lock file {path}-consumer-1 was gone; "
            "its messages were given back: do not remove lock files"
        )
        await settle([held])


async def test_trouble_with_the_upkeep_is_logged_once_and_tried_again(
    path: Path, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    await queue.put(b"a")

    async def troubled() -> bool:
        await clock.advance(1)
        return bool(caplog.records)

    async with opened(QueueProducer(path, "q", visibility=3), clock=clock) as copy:
        messages = await take(copy, 1)
        await _query_only(queue, "ON")
        await eventually(troubled, what="the trouble is logged")
        for _ in range(3):
            await queue.size()
            await clock.advance(1)
        await queue.size()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        await _query_only(queue, "OFF")
        await settle(messages)


async def test_opening_a_file_that_cannot_be_used_is_a_source_that_is_away(tmp_path: Path) -> None:
    path = tmp_path / "no" / "q.db"
    copy = copy_of(QueueProducer(path, "q"), capacity=1, pipeline="p")
    with pytest.raises(ProducerError) as away:
        await copy.open()
    assert str(away.value) == (
        f"queue file {path}: its directory {path.parent} does not exist: create it, or choose another path"
    )
    await copy.close()


async def test_a_demand_before_opening_is_refused(path: Path) -> None:
    copy = copy_of(QueueProducer(path, "q"), capacity=1, pipeline="p")
    with pytest.raises(ProducerError) as refused:
        await copy.handle_demand(1)
    assert str(refused.value) == f"queue file {path}: it is closed; call open() before handle_demand()"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"visibility": 0}, "visibility: expected greater than 0, got 0"),
        (
            {"visibility": "soon"},
            "visibility: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'",
        ),
        ({"on_failure": "reject"}, "on_failure: expected 'dead_letter' or 'drop', got 'reject'"),
        ({"concurrency": 0}, "concurrency: expected greater than or equal to 1, got 0"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_name(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        QueueProducer("q.db", "q", **settings)
    assert str(refused.value) == sentence


def test_settings_may_be_text_and_become_the_producers() -> None:
    producer = QueueProducer("q.db", "q", "1m", name="orders", concurrency=2)
    assert (producer.options.visibility, producer.name, producer.concurrency) == (60.0, "orders", 2)
    assert repr(producer) == "<QueueProducer name='orders'>"


# --- partitions -------------------------------------------------------------------------------------------------------


async def test_the_partitions_of_a_queue_are_read_side_by_side(path: Path, queue: Queue) -> None:
    keys = ["amber", "blue", "cyan", "denim", "ebony", "fawn"]
    await queue.put_many([NewMessage(data=key.encode(), key=key) for key in keys * 2])
    await queue.put_many([b"without", b"without"])
    whole = QueueProducer(path, "q", partitions=3)
    expected: list[list[bytes]] = [[], [], []]
    for key in keys * 2:
        expected[slot_of(key) % 3].append(key.encode())
    expected[0] += [b"without", b"without"]
    assert all(expected)

    async with AsyncExitStack() as stack:
        for index in (2, 0, 1):
            copy = await stack.enter_async_context(opened(whole.partition(index)))
            messages = await take(copy, len(expected[index]))
            assert data(messages) == expected[index]
            await settle(messages)
    assert await queue.counts() == Counts(0, 0, 0, 0)


async def test_a_second_reader_of_a_partition_stands_by(path: Path) -> None:
    whole = QueueProducer(path, "q", partitions=2)
    async with opened(whole.partition(1)), opened(whole.partition(0).for_order()):
        assert str(await refusal(whole.partition(1))) == (
            f"queue file {path}, queue 'q': another reader has partition 1; waiting until that reader is gone"
        )
    async with opened(whole.partition(1)):
        pass


async def test_the_next_copy_of_a_partition_opens_before_the_last_one_is_closed(path: Path) -> None:
    part = QueueProducer(path, "q", partitions=2).partition(1)
    async with opened(part), opened(part):
        pass


def test_each_key_of_a_queue_with_partitions_has_one_reader(path: Path) -> None:
    whole = QueueProducer(path, "q", partitions=2, name="orders")
    part = whole.partition(1)
    assert whole.keeps_keys_apart
    assert part.keeps_keys_apart
    assert part.called == "orders.1"
    assert part.for_order() is part
    assert whole.for_order() is whole


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"partitioned": True},
            (
                "partitioned: expected partitioned or partitions, not both: leave partitioned out, because a partition "
                "has one reader anyway"
            ),
        ),
        (
            {"concurrency": 2},
            (
                "concurrency: expected 1 with partitions, because each of them has one reader, got 2; leave "
                "concurrency out"
            ),
        ),
        ({"partitions": 0}, "partitions: expected greater than or equal to 1, got 0"),
        ({"partitions": 65}, "partitions: expected less than or equal to 64, got 65"),
    ],
)
def test_settings_that_do_not_fit_partitions_are_refused(path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError) as refused:
        QueueProducer(path, "q", **{"partitions": 4, **settings})
    assert str(refused.value) == sentence


# --- how many messages the source holds -------------------------------------------------------------------------------


async def test_it_counts_what_waits_also_messages_whose_delay_has_ended(path: Path) -> None:
    clock = FakeClock()
    async with with_clock(path, clock) as queue:
        await queue.put_many([b"0", b"1", NewMessage(data=b"2", key="a"), NewMessage(data=b"3", key="b")])
        await queue.put_many([NewMessage(data=b"soon", delay=10), NewMessage(data=b"later", delay=60)])
        async with opened(QueueProducer(path, "q"), clock=clock) as copy:
            messages = await take(copy, 3)
            assert await copy.source_messages() == SourceMessages(ready=1, delayed=2, dead=0)
            await settle(messages[:1], messages[1:])
            # Nothing looks at the queue meanwhile.
            await copy.pause()
            await clock.advance(11)
            assert await copy.source_messages() == SourceMessages(ready=2, delayed=1, dead=2)


async def test_other_queues_of_the_file_do_not_count(path: Path, queue: Queue) -> None:
    async with Queue(path, "other") as other:
        await other.put_many([b"x", NewMessage(data=b"y", delay=60)])
    async with opened(QueueProducer(path, "q")) as copy:
        assert await copy.source_messages() == SourceMessages(0, 0, 0)


async def test_partitions_add_up_to_the_queue(path: Path, queue: Queue) -> None:
    keyed = [NewMessage(data=b"%d" % number, key=f"k{number}") for number in range(20)]
    await queue.put_many([*keyed, b"without a key", NewMessage(data=b"later", key="k1", delay=60)])
    whole = QueueProducer(path, "q", partitions=3)
    found = []
    async with AsyncExitStack() as stack:
        for index in range(3):
            copy = await stack.enter_async_context(opened(whole.partition(index)))
            found.append(await copy.source_messages())
    of_slots = Counter(slot_of(f"k{number}") % 3 for number in range(20))
    assert found == [
        SourceMessages(of_slots[0] + 1, 1, 0),
        SourceMessages(of_slots[1], None, None),
        SourceMessages(of_slots[2], None, None),
    ]


async def test_a_file_that_cannot_be_read_says_why(path: Path, queue: Queue) -> None:
    async with opened(QueueProducer(path, "q")) as copy:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE dead_letters")
        with pytest.raises(ProducerError) as refused:
            await copy.source_messages()
        assert str(refused.value).startswith(f"queue file {path}: ")


async def test_after_its_end_it_says_so(path: Path) -> None:
    async with opened(QueueProducer(path, "q")) as copy:
        pass
    with pytest.raises(ProducerError) as refused:
        await copy.source_messages()
    assert str(refused.value) == f"queue file {path}: it is closed"


async def test_counting_reads_indexes_only(path: Path, queue: Queue) -> None:
    """A scan of the table would read all payloads."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in (queue_rows._COUNT, queue_rows._COUNT_WAITING, queue_rows._COUNT_SLOTS):
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN {statement}", {"queue": 1, "now": 0.0, "slots": "[1]"}
            ).fetchall()
            steps = [str(step[3]) for step in plan]
            assert [step for step in steps if "messages" in step or "dead_letters" in step]
            assert not [
                step
                for step in steps
                if step.startswith("SCAN") and "VIRTUAL TABLE" not in step and "CONSTANT" not in step
            ]
