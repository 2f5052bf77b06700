"""Who may read a queue together, and which reader may take which keys."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broadway_py.storage.errors import StorageError
from broadway_py.storage.queue_consumer import QueueConsumer
from broadway_py.storage.queue_dead import NewDeadLetter
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_members import Partition, Sharing
from broadway_py.storage.queue_rows import Held, NewRow
from broadway_py.storage.queue_slots import SLOTS
from broadway_py.storage.queue_take import Row
from broadway_py.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def file(tmp_path: Path, clock: FakeClock) -> AsyncIterator[QueueFile]:
    opened = await QueueFile.open(tmp_path / "q.db", "q", clock)
    yield opened
    await opened.close()


async def reader(file: QueueFile, sharing: Sharing = "partitioned", holder: str = "") -> QueueConsumer:
    return await QueueConsumer.open(file, 30.0, sharing=sharing, holder=holder)


async def put(file: QueueFile, *slots: int | None) -> None:
    """One message for each of *slots*; the payload says which and the how manieth of it it is."""
    count: Counter[int | None] = Counter()
    rows = []
    for slot in slots:
        rows.append(NewRow(f"{slot}:{count[slot]}".encode(), slot=slot))
        count[slot] += 1
    await file.put(rows)


def names(rows: list[Row]) -> list[str]:
    return [row.payload.decode() for row in rows]


def slots(rows: list[Row]) -> set[int]:
    return {int(name.partition(":")[0]) for name in names(rows)}


def held(rows: list[Row]) -> list[Held]:
    return [Held(row.id, row.lease) for row in rows]


async def test_two_readers_never_hold_messages_of_one_slot(file: QueueFile) -> None:
    await put(file, *(list(range(SLOTS)) * 4))
    one, other = await reader(file), await reader(file)

    mine, theirs = (await one.take(500)).rows, (await other.take(500)).rows

    assert slots(mine).isdisjoint(slots(theirs))
    assert slots(mine) | slots(theirs) == set(range(SLOTS))
    assert len(mine) == len(theirs) == 4 * SLOTS // 2
    await one.close()
    await other.close()


async def test_the_messages_of_a_slot_come_in_the_order_of_puts_however_few_are_taken(file: QueueFile) -> None:
    await put(file, *([1, 1, 2, 1, 3, 2, 1, 1] * 5))
    one = await reader(file)
    taken: list[str] = []
    while rows := (await one.take(3)).rows:
        assert len(rows) <= 3
        taken += names(rows)
        await one.settle(held(rows))

    for slot, count in ((1, 25), (2, 10), (3, 5)):
        assert [name for name in taken if name.startswith(f"{slot}:")] == [f"{slot}:{n}" for n in range(count)]
    await one.close()


async def test_a_slot_moves_to_a_reader_that_comes_once_its_held_messages_are_settled(file: QueueFile) -> None:
    await put(file, *range(SLOTS))
    one = await reader(file)
    before = (await one.take(500)).rows
    assert slots(before) == set(range(SLOTS))
    await put(file, *range(SLOTS))

    other = await reader(file)
    assert (await other.take(500)).rows == []  # everything is still in the hands of the first
    kept = (await one.take(500)).rows
    moved = set(range(SLOTS)) - slots(kept)
    assert len(moved) == SLOTS // 2
    first = min(moved)
    await one.settle([Held(row.id, row.lease) for row in before if row.payload == b"%d:0" % first])
    assert slots((await other.take(500)).rows) == {first}

    await one.release([Held(row.id, row.lease) for row in before if row.payload != b"%d:0" % first])
    theirs = (await other.take(500)).rows
    # What was given back comes before what was put later.
    assert names(theirs)[: len(moved) - 1] == [f"{slot}:0" for slot in sorted(moved - {first})]
    await one.close()
    await other.close()


async def test_what_a_dead_reader_owned_goes_on_with_another(file: QueueFile) -> None:
    one, other = await reader(file), await reader(file)
    await put(file, *(list(range(SLOTS)) * 2))
    lost = (await one.take(10)).rows
    assert one._lock is not None
    one._lock.drop()  # what the kernel does when a process dies

    before = (await other.take(500)).rows
    await other.upkeep()
    after = (await other.take(500)).rows

    assert slots(lost).isdisjoint(slots(before))
    assert len(before) + len(after) == 2 * SLOTS
    # Again from the first one on that was not settled.
    again = [name for name in names(after) if int(name.partition(":")[0]) in slots(lost)]
    assert [name for name in again if name.endswith(":0")] == names(lost)
    await other.close()


async def rounds(clock: FakeClock, count: int, *alive: QueueConsumer) -> None:
    for _ in range(count):
        await clock.advance(1.0)
        for consumer in alive:
            await consumer.upkeep()


async def test_an_idle_reader_that_stands_still_loses_its_keys_and_gets_them_again(
    file: QueueFile, clock: FakeClock
) -> None:
    stuck, other = await reader(file), await reader(file)
    await put(file, *range(SLOTS))
    mine = slots((await other.take(500)).rows)
    assert len(mine) == SLOTS // 2
    await rounds(clock, 29, other)
    assert (await other.take(500)).rows == []

    await rounds(clock, 2, other)
    theirs = (await other.take(500)).rows
    assert slots(theirs) | mine == set(range(SLOTS))

    await put(file, *range(SLOTS))
    assert (await stuck.take(500)).rows == []  # it moves again, but the other one has not finished
    await other.settle(held(theirs))
    assert slots((await stuck.take(500)).rows) == slots(theirs)
    await stuck.close()
    await other.close()


async def test_an_idle_reader_that_lives_keeps_its_keys(file: QueueFile, clock: FakeClock) -> None:
    one, other = await reader(file), await reader(file)
    await rounds(clock, 100, one, other)
    await put(file, *range(SLOTS))

    assert len((await other.take(500)).rows) == SLOTS // 2
    await one.close()
    await other.close()


async def test_messages_without_a_key_go_to_any_reader_by_age(file: QueueFile) -> None:
    await put(file, None, 1, None, 2, None)
    one = await reader(file)
    assert names((await one.take(4)).rows) == ["None:0", "1:0", "None:1", "2:0"]
    other = await reader(file)
    assert names((await other.take(4)).rows) == ["None:2"]
    await one.close()
    await other.close()


async def test_readers_that_share_take_messages_with_a_key_as_any_other(file: QueueFile) -> None:
    await put(file, 5, None, 5, 5)
    one, other = await reader(file, "shared"), await reader(file, "shared")
    assert names((await one.take(2)).rows) == ["5:0", "None:0"]
    assert names((await other.take(9)).rows) == ["5:1", "5:2"]
    await one.close()
    await other.close()


async def test_a_slot_with_a_long_backlog_holds_up_no_other(file: QueueFile) -> None:
    await put(file, *([7] * 1_000), *range(10, 20))
    one = await reader(file)
    taken = slots((await one.take(50)).rows)
    assert taken == {7, *range(10, 20)}
    await one.close()


@pytest.mark.parametrize("partition", [None, Partition(1, 3)])
@pytest.mark.parametrize("most", [1, 7, 50])
async def test_a_reader_that_is_alone_takes_the_oldest_first_whatever_the_backlogs(
    file: QueueFile, partition: Partition | None, most: int
) -> None:
    """Otherwise the keys with few messages would run ahead of the others in time."""
    chance = random.Random(most)
    # Of the slots of this partition, one has most of the messages, and some have few.
    put_there = [chance.choice([7, 7, 7, 7, 7, 10, 10, 13, *range(16, 40, 3)]) for _ in range(300)]
    await put(file, *put_there)
    one = await QueueConsumer.open(file, 30.0, sharing="alone", holder="me", partition=partition)
    taken: list[int] = []
    while rows := (await one.take(most)).rows:
        assert len(rows) <= most
        taken += [row.id for row in rows]
        await one.settle(held(rows))
    assert taken == sorted(taken)
    assert len(taken) == len(put_there)
    await one.close()


async def test_a_reader_that_is_alone_takes_those_without_a_key_in_their_turn(file: QueueFile) -> None:
    await put(file, *([7] * 60 + [None] * 60 + [8]) * 2)
    one = await QueueConsumer.open(file, 30.0, sharing="alone", holder="me")
    taken: list[int] = []
    while rows := (await one.take(20)).rows:
        taken += [row.id for row in rows]
        await one.settle(held(rows))
    assert taken == sorted(taken)
    assert len(taken) == 242
    await one.close()


IN_USE = "an ordered pipeline already reads it alone"
NOT_ALONE = "an ordered pipeline must read it alone, and it has another reader"
MIXED = "it has readers with partitioned: true and others without"


@pytest.mark.parametrize(
    ("there", "comes", "reason"),
    [
        (("shared", ""), ("shared", ""), None),
        (("partitioned", ""), ("partitioned", ""), None),
        (("alone", "a"), ("alone", "a"), None),
        (("alone", "a"), ("alone", "b"), IN_USE),
        (("alone", "a"), ("shared", ""), IN_USE),
        (("alone", "a"), ("partitioned", ""), IN_USE),
        (("shared", ""), ("alone", "a"), NOT_ALONE),
        (("partitioned", ""), ("alone", "a"), NOT_ALONE),
        (("shared", ""), ("partitioned", ""), MIXED),
        (("partitioned", ""), ("shared", ""), MIXED),
    ],
)
async def test_readers_that_cannot_be_there_together_stand_by_until_the_other_has_gone(
    file: QueueFile, tmp_path: Path, there: tuple[Sharing, str], comes: tuple[Sharing, str], reason: str | None
) -> None:
    first = await reader(file, *there)
    if reason is not None:
        with pytest.raises(StorageError) as refused:
            await reader(file, *comes)
        assert str(refused.value) == (
            f"queue file {tmp_path / 'q.db'}, queue 'q': {reason}; waiting until it is free: for ordered work in "
            "several processes, put messages with a key and set partitioned: true for every reader"
        )
        await first.close()
    second = await reader(file, *comes)
    if reason is None:
        await first.close()
    await second.close()
    assert not list(tmp_path.glob("*-consumer-*"))


async def test_a_dead_reader_is_in_nobodys_way(file: QueueFile) -> None:
    dead = await reader(file, "alone", "a")
    assert dead._lock is not None
    dead._lock.drop()
    heir = await reader(file, "alone", "b")
    await heir.close()


async def test_a_suspended_reader_still_counts_as_partitioned(file: QueueFile, clock: FakeClock) -> None:
    stuck, other = await reader(file), await reader(file)
    await rounds(clock, 32, other)
    third = await reader(file)
    await third.close()
    with pytest.raises(StorageError, match="it has readers with partitioned: true and others without"):
        await reader(file, "shared")
    await stuck.close()
    await other.close()


async def test_a_reader_of_another_queue_in_the_file_is_in_nobodys_way(file: QueueFile, tmp_path: Path) -> None:
    elsewhere = await QueueFile.open(tmp_path / "q.db", "other", file.clock)
    first, second = await reader(file, "alone", "a"), await reader(elsewhere, "alone", "b")
    await first.close()
    await second.close()
    await elsewhere.close()


# --- partitions -------------------------------------------------------------------------------------------------------


async def part(file: QueueFile, number: int, partitions: int, holder: str = "") -> QueueConsumer:
    return await QueueConsumer.open(file, 30.0, sharing="alone", holder=holder, partition=Partition(number, partitions))


@pytest.mark.parametrize("partitions", [1, 4, 5, SLOTS])
async def test_each_message_lies_in_one_partition_and_those_without_a_key_in_the_first(
    file: QueueFile, partitions: int
) -> None:
    await put(file, *range(SLOTS), None, *range(SLOTS), None)
    readers = [await part(file, number, partitions) for number in range(partitions)]

    taken = [names((await reader.take(500)).rows) for reader in readers]

    for number, mine in enumerate(taken):
        expected = [f"{slot}:{n}" for n in range(2) for slot in range(number, SLOTS, partitions)]
        without_key = ["None:0", "None:1"] if number == 0 else []
        assert Counter(mine) == Counter(expected + without_key)
        # The oldest first.
        assert [name for name in mine if name.startswith(f"{number}:")] == [f"{number}:0", f"{number}:1"]
    for reader in readers:
        await reader.close()


async def test_a_partition_without_messages_gets_none_of_the_others(file: QueueFile) -> None:
    await put(file, None, 0, 2, None)
    second = await part(file, 1, 2)

    taken = await second.take(500)

    assert (taken.rows, taken.next_due) == ([], None)
    await second.close()


async def test_a_message_comes_back_to_its_partition(file: QueueFile, clock: FakeClock) -> None:
    """After a retry, and from the dead letters."""
    await put(file, 3, None, 5)
    first, second = await part(file, 0, 2), await part(file, 1, 2)
    for reader, mine in ((first, ["None:0"]), (second, ["3:0", "5:0"])):
        rows = (await reader.take(500)).rows
        assert names(rows) == mine
        await reader.retry([(one, 10.0) for one in held(rows)])
    await clock.advance(11.0)
    assert names((await first.take(500)).rows) == ["None:0"]
    again = (await second.take(500)).rows
    assert names(again) == ["3:0", "5:0"]

    await second.settle((), [NewDeadLetter(one, "raised", None) for one in held(again)])
    await file.replay(None)
    assert (await first.take(500)).rows == []
    assert names((await second.take(500)).rows) == ["3:0", "5:0"]
    await first.close()
    await second.close()


async def test_what_the_dead_reader_of_a_partition_held_comes_to_its_next_reader(file: QueueFile) -> None:
    await put(file, 0, 1, 2, 3)
    dead, neighbour = await part(file, 0, 2, "a"), await part(file, 1, 2, "b")
    assert names((await dead.take(1)).rows) == ["0:0"]
    with pytest.raises(StorageError, match="another reader has partition 0"):
        await part(file, 0, 2, "c")
    assert dead._lock is not None
    dead._lock.drop()  # what the kernel does when a process dies

    heir = await part(file, 0, 2, "c")

    assert names((await heir.take(500)).rows) == ["0:0", "2:0"]
    assert names((await neighbour.take(500)).rows) == ["1:0", "3:0"]
    await heir.close()
    await neighbour.close()


async def test_a_partition_whose_reader_stands_still_keeps_it(file: QueueFile, clock: FakeClock) -> None:
    """Its messages are given back, but only the end of its process makes another one its reader."""
    stuck, neighbour = await part(file, 0, 2, "a"), await part(file, 1, 2, "b")
    await put(file, 0, 1)
    before = (await stuck.take(500)).rows
    await rounds(clock, 32, neighbour)

    assert names((await neighbour.take(500)).rows) == ["1:0"]
    with pytest.raises(StorageError, match="another reader has partition 0"):
        await part(file, 0, 2, "c")
    assert await stuck.settle(held(before)) == set(held(before))
    assert names((await stuck.take(500)).rows) == ["0:0"]
    await stuck.close()
    await neighbour.close()


async def test_two_readers_of_one_holder_may_have_the_same_partition(file: QueueFile) -> None:
    """The next copy of a producer opens before the last one has ended."""
    one, other = await part(file, 1, 4, "a"), await part(file, 1, 4, "a")
    await one.close()
    await other.close()


@pytest.mark.parametrize(
    ("there", "comes", "reason"),
    [
        ((1, 4), (1, 4), "another reader has partition 1; waiting until that reader is gone"),
        (
            (0, 4),
            (1, 8),
            (
                "it is read in 4 partitions, but this reader must read it in 8 partitions; waiting until its readers "
                "are gone: set the same partitions for every reader"
            ),
        ),
        *[
            (
                (0, 4),
                sharing,
                (
                    "it is read in 4 partitions, but this reader must read it as a whole; waiting until its readers "
                    "are gone: set the same partitions for every reader"
                ),
            )
            for sharing in ("shared", "partitioned", "alone")
        ],
        *[
            (
                sharing,
                (0, 4),
                (
                    "it is read as a whole, but this reader must read it in 4 partitions; waiting until its readers "
                    "are gone: set the same partitions for every reader"
                ),
            )
            for sharing in ("shared", "partitioned", "alone")
        ],
    ],
)
async def test_a_reader_of_a_partition_stands_by_while_the_queue_is_read_otherwise(
    file: QueueFile, tmp_path: Path, there: tuple[int, int] | Sharing, comes: tuple[int, int] | Sharing, reason: str
) -> None:
    async def opened(how: tuple[int, int] | Sharing, holder: str) -> QueueConsumer:
        return await (reader(file, how, holder) if isinstance(how, str) else part(file, *how, holder))

    first = await opened(there, "a")
    with pytest.raises(StorageError) as refused:
        await opened(comes, "b")
    assert str(refused.value) == f"queue file {tmp_path / 'q.db'}, queue 'q': {reason}"
    await first.close()
    second = await opened(comes, "b")
    await second.close()
    assert not list(tmp_path.glob("*-consumer-*"))
