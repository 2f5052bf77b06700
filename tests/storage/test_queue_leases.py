"""How long a message stays held: by life and by beat, never by a wall clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from broadway_py.storage.errors import StorageError
from broadway_py.storage.queue_consumer import ConsumerLost, QueueConsumer
from broadway_py.storage.queue_dead import NewDeadLetter
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_rows import Counts, Held, NewRow
from broadway_py.storage.queue_take import Row
from broadway_py.testing import FakeClock
from tests.storage.conftest import Gate, handed_in


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def file(tmp_path: Path, clock: FakeClock) -> AsyncIterator[QueueFile]:
    opened = await QueueFile.open(tmp_path / "q.db", "q", clock)
    yield opened
    await opened.close()


@asynccontextmanager
async def consumers(file: QueueFile, count: int, visibility: float = 30.0) -> AsyncIterator[list[QueueConsumer]]:
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            consumer = await QueueConsumer.open(file, visibility)
            stack.push_async_callback(consumer.close)
            made.append(consumer)
        yield made


async def put(file: QueueFile, count: int, due: float | None = None) -> list[int]:
    return await file.put([NewRow(b"%d" % number, None, due) for number in range(count)])


def held(rows: list[Row]) -> list[Held]:
    return [Held(row.id, row.lease) for row in rows]


async def pass_time(clock: FakeClock, seconds: float, *alive: QueueConsumer) -> None:
    """Let time pass as consumers that are alive see it: in rounds."""
    for _ in range(round(seconds)):
        await clock.advance(1.0)
        for consumer in alive:
            await consumer.upkeep()


async def test_rows_are_taken_in_order_once_and_settled(file: QueueFile) -> None:
    ids = await put(file, 5)
    async with consumers(file, 2) as (one, two):
        first = (await one.take(3)).rows
        second = (await two.take(3)).rows
        assert [row.id for row in first + second] == ids
        assert {row.attempts for row in first + second} == {1}
        assert await one.settle(held(first)) == set()
        assert await two.settle(held(second[:1]), [NewDeadLetter(held(second)[1], "raised", "KeyError")], "p") == set()

        assert await file.count() == Counts(0, 0, 0, 1)


async def test_a_consumer_settles_only_what_it_still_holds(file: QueueFile) -> None:
    await put(file, 3)
    async with consumers(file, 2) as (one, two):
        before = held((await one.take(3)).rows)
        await one.release(before)
        again = (await two.take(2)).rows

        assert await one.settle(before[:1], [NewDeadLetter(before[1], "failed", None)]) == set(before[:2])
        assert await one.release(before) == set(before)
        assert await file.count() == Counts(1, 0, 2, 0)
        assert await two.settle(held(again)) == set()


async def test_what_a_call_may_settle_is_settled_although_another_part_was_lost(file: QueueFile) -> None:
    await put(file, 2)
    async with consumers(file, 1) as (one,):
        mine = held((await one.take(2)).rows)
        stale = Held(mine[0].id, mine[0].lease + 1)

        assert await one.settle([stale, mine[1]]) == {stale}
        assert await file.count() == Counts(0, 0, 1, 0)


async def test_giving_back_costs_no_attempt(file: QueueFile) -> None:
    await put(file, 1)
    async with consumers(file, 1) as (one,):
        for _ in range(3):
            (row,) = (await one.take(1)).rows
            assert row.attempts == 1
            await one.release(held([row]))


async def test_closing_gives_back_what_was_held_and_counts_the_attempt(file: QueueFile, tmp_path: Path) -> None:
    await put(file, 2)
    async with consumers(file, 1) as (one,):
        taken = held((await one.take(2)).rows)
    assert await file.count() == Counts(2, 0, 0, 0)
    assert await one.settle(taken) == set(taken)
    assert not list(tmp_path.glob("*-consumer-*"))
    async with consumers(file, 1) as (two,):
        assert {row.attempts for row in (await two.take(2)).rows} == {2}


async def test_a_consumer_that_stands_still_loses_what_it_holds_after_its_visibility(
    file: QueueFile, clock: FakeClock
) -> None:
    await put(file, 2)
    async with consumers(file, 2) as (stuck, watcher):
        stale = held((await stuck.take(2)).rows)
        await watcher.upkeep()
        await pass_time(clock, 29, watcher)
        assert await file.count() == Counts(0, 0, 2, 0)

        await pass_time(clock, 1, watcher)

        assert await file.count() == Counts(2, 0, 0, 0)
        assert await stuck.settle(stale) == set(stale)
        assert [row.attempts for row in (await watcher.take(2)).rows] == [2, 2]


async def test_a_consumer_that_lives_keeps_what_it_holds_for_as_long_as_it_takes(
    file: QueueFile, clock: FakeClock
) -> None:
    await put(file, 2)
    async with consumers(file, 2) as (slow, watcher):
        taken = held((await slow.take(2)).rows)
        await pass_time(clock, 300, slow, watcher)

        assert await slow.settle(taken) == set()


async def test_a_consumer_that_was_idle_for_long_is_not_thought_to_stand_still(
    file: QueueFile, clock: FakeClock
) -> None:
    async with consumers(file, 2) as (idle, watcher):
        await pass_time(clock, 100, watcher)
        await put(file, 1)
        taken = held((await idle.take(1)).rows)
        await pass_time(clock, 29, watcher)

        assert await idle.settle(taken) == set()


async def test_a_consumer_is_idle_while_it_listens_and_nobody_has_anything_to_give_back(file: QueueFile) -> None:
    await put(file, 1)
    async with consumers(file, 2) as (idle, other):
        with other.listening(lambda: None):
            await idle.upkeep()
            assert idle.idle_round == 1  # the other one listens, and this one does not
        with idle.listening(lambda: None):
            assert await idle.take(0) == ([], None)
            assert idle.idle_round == 1
            await idle.upkeep()
            assert idle.idle_round == 10

            taken = held((await other.take(1)).rows)
            assert idle.idle_round == 1
            await idle.upkeep()
            assert idle.idle_round == 1  # the other one may stop to run
            await other.settle(taken)
            await idle.upkeep()
            assert idle.idle_round == 10

            await put(file, 1)
            taken = held((await idle.take(1)).rows)
            await idle.upkeep()
            assert idle.idle_round == 1  # it must show that it runs
            await idle.settle(taken)
            await idle.upkeep()
            assert idle.idle_round == 10
        assert idle.idle_round == 1


async def test_a_consumer_with_keys_is_never_idle(file: QueueFile) -> None:
    consumer = await QueueConsumer.open(file, 30.0, sharing="partitioned")
    with consumer.listening(lambda: None):
        await consumer.upkeep()
        assert consumer.idle_round == 1
    await consumer.close()


async def test_a_watcher_that_slept_itself_takes_nothing_away(file: QueueFile, clock: FakeClock) -> None:
    await put(file, 1)
    async with consumers(file, 2) as (holder, watcher):
        taken = held((await holder.take(1)).rows)
        await watcher.upkeep()
        await clock.advance(3_600)  # the machine was suspended, and the watcher happens to wake up first
        await watcher.upkeep()

        assert await holder.settle(taken) == set()


@pytest.mark.parametrize("step", [-100_000.0, 100_000.0])
async def test_a_step_of_the_wall_clock_neither_frees_a_held_row_nor_hides_a_ready_one(
    file: QueueFile, clock: FakeClock, step: float
) -> None:
    await put(file, 2)
    async with consumers(file, 2) as (one, two):
        (first,) = (await one.take(1)).rows
        await two.upkeep()
        clock.step_wall(step)
        await pass_time(clock, 5, two)

        assert [row.payload for row in (await two.take(5)).rows] == [b"1"]
        assert await one.settle(held([first])) == set()


@pytest.mark.parametrize("step", [-100_000.0, 100_000.0])
async def test_a_step_of_the_wall_clock_does_not_move_a_delay(file: QueueFile, clock: FakeClock, step: float) -> None:
    await put(file, 1, due=file.time() + 60)
    async with consumers(file, 1) as (one,):
        clock.step_wall(step)
        assert await one.take(1) == ([], clock.monotonic() + 60)
        await clock.advance(59)
        assert (await one.take(1)).rows == []
        await clock.advance(1)
        assert len((await one.take(1)).rows) == 1


async def test_a_delay_outlives_a_restart_of_the_program(tmp_path: Path, clock: FakeClock) -> None:
    before = await QueueFile.open(tmp_path / "q.db", "q", clock)
    await put(before, 1, due=before.time() + 60)
    await before.close()
    clock.step_wall(-5_000)
    after = await QueueFile.open(tmp_path / "q.db", "q", clock)
    async with consumers(after, 1) as (one,):
        assert (await one.take(1)).next_due == clock.monotonic() + 60
    await after.close()


async def test_a_delay_goes_by_the_wall_clock_after_a_restart_of_the_machine(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await QueueFile.open(tmp_path / "q.db", "q", clock)
    await put(before, 1, due=before.time() + 60)
    await before.close()
    monkeypatch.setattr("broadway_py.storage.queue_time._this_boot", lambda: "another")
    rebooted = FakeClock(monotonic=3.0, wall=clock.wall() + 20)
    after = await QueueFile.open(tmp_path / "q.db", "q", rebooted)
    async with consumers(after, 1) as (one,):
        assert (await one.take(1)).next_due == pytest.approx(3.0 + 40)
    await after.close()


async def test_many_delayed_rows_become_ready_a_part_at_a_time(file: QueueFile, clock: FakeClock) -> None:
    await put(file, 1_200, due=file.time() + 1)
    await clock.advance(1)
    async with consumers(file, 1) as (one,):
        taken = [len((await one.take(500)).rows) for _ in range(3)]
        assert taken == [500, 500, 200]


async def test_a_new_consumer_frees_at_once_what_a_dead_one_held(file: QueueFile, tmp_path: Path) -> None:
    await put(file, 3)
    dead = await QueueConsumer.open(file, 3_600)
    stale = held((await dead.take(3)).rows)
    assert dead._lock is not None
    dead._lock.drop()  # what the kernel does when a process dies

    async with consumers(file, 1) as (heir,):
        assert [row.attempts for row in (await heir.take(3)).rows] == [2, 2, 2]
        with pytest.raises(ConsumerLost) as lost:
            await dead._file.writer.write(dead._beat)
        assert str(lost.value) == (
            f"queue file {tmp_path / 'q.db'}: this consumer was declared dead, because its lock file "
            f"{tmp_path / 'q.db'}-consumer-1 was gone; its messages were given back: do not remove lock files"
        )
        assert await dead.settle(stale) == set(stale)


async def test_a_living_consumer_frees_what_a_dead_one_held_in_its_next_round(file: QueueFile) -> None:
    await put(file, 3)
    async with consumers(file, 1) as (alive,):
        dead = await QueueConsumer.open(file, 3_600)
        await dead.take(3)
        assert dead._lock is not None
        dead._lock.drop()
        await alive.upkeep()

        assert await file.count() == Counts(3, 0, 0, 0)


async def test_what_a_failed_settlement_left_is_given_back_in_the_next_round(file: QueueFile) -> None:
    await put(file, 2)
    async with consumers(file, 1) as (one,):
        taken = held((await one.take(2)).rows)
        await file.writer.read(lambda at: at.execute("PRAGMA query_only = ON"))
        with pytest.raises(StorageError):
            await one.settle(taken)
        with pytest.raises(StorageError):
            await one.upkeep()
        await file.writer.read(lambda at: at.execute("PRAGMA query_only = OFF"))
        await one.upkeep()

        assert await file.count() == Counts(2, 0, 0, 0)


async def test_what_was_taken_for_a_cancelled_caller_is_given_back_in_the_next_round(file: QueueFile) -> None:
    await put(file, 2)
    async with consumers(file, 1) as (one,):
        gate = Gate(file.writer)
        await gate.held()
        taking = asyncio.create_task(one.take(2))
        await handed_in(file.writer, 1)
        request = file.writer._inbox.get()
        assert request is not None
        work = request.work
        request.work = lambda at: (request.loop.call_soon_threadsafe(taking.cancel), work(at))[1]
        file.writer._inbox.put(request)
        await gate.open()
        await asyncio.wait([taking])
        assert taking.cancelled()
        assert (await file.count()).held == 2
        await one.upkeep()

        assert await file.count() == Counts(2, 0, 0, 0)


async def test_a_consumer_that_cannot_sign_off_counts_as_dead(file: QueueFile) -> None:
    await put(file, 1)
    one = await QueueConsumer.open(file, 3_600)
    await one.take(1)
    await file.writer.read(lambda at: at.execute("PRAGMA query_only = ON"))
    await one.close()
    await file.writer.read(lambda at: at.execute("PRAGMA query_only = OFF"))

    async with consumers(file, 1) as (heir,):
        assert len((await heir.take(1)).rows) == 1


async def test_a_place_for_locks_that_cannot_be_written_is_named(
    file: QueueFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(path: str, main: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("broadway_py.storage.queue_consumer.LifeLock", refuse)
    with pytest.raises(StorageError) as refused:
        await QueueConsumer.open(file, 30)
    assert str(refused.value) == (
        f"queue file {tmp_path / 'q.db'}: the lock file {tmp_path / 'q.db'}-consumer-1 cannot be created "
        "(Permission denied): give this user write permission to the directory, or choose another path"
    )
