"""The embedded queue under the load of several processes: fair, fast, and exact through kill -9."""

from __future__ import annotations

import json
import random
import sqlite3
from asyncio.subprocess import Process
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from broadway_py.queue import Counts, Queue
from tests.producers.queue_load import NAME
from tests.producers.test_queue_processes import line, program
from tests.support.counter import Counted, HandledIds, ids_in
from tests.support.eventually import eventually

DEADLINE = 100.0
MESSAGES = 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


async def start(stack: AsyncExitStack, *arguments: object) -> Process:
    return await stack.enter_async_context(program(*arguments, module="tests.producers.queue_load", deadline=DEADLINE))


def is_empty(path: Path) -> bool:
    connection = sqlite3.connect(path, timeout=10)
    (found,) = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM messages)").fetchone()
    connection.close()
    return bool(found)


def handled(files: list[Path]) -> Counter[str]:
    return Counter(entry[2:] for file in files for entry in ids_in(file) if entry.startswith("h "))


@dataclass
class Load:
    """What some processes did together."""

    shares: list[float]
    #: Seconds that one take stood in line.
    longest_wait: float


async def drain(path: Path, processes: int, tmp_path: Path) -> Load:
    """Fill the queue for *processes* that wait for it, and check that each message was handled once."""
    files = [tmp_path / f"ids-{processes}-{number}" for number in range(processes)]
    async with AsyncExitStack() as stack:
        workers = [await start(stack, "work", path, file) for file in files]
        for worker in workers:
            assert await line(worker) == "ready"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
        for worker in workers:
            assert await line(worker) == "working"
        async with Queue(path, NAME) as queue:
            for first in range(0, MESSAGES, 5_000):
                await queue.put_many(str(number) for number in range(first, first + 5_000))
        await eventually(lambda: is_empty(path), timeout=DEADLINE, what="the queue is empty")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        told = [json.loads(await line(worker)) for worker in workers]
        assert [await worker.wait() for worker in workers] == [0] * processes
    assert handled(files) == Counter(map(str, range(MESSAGES)))
    return Load(
        shares=[handled([file]).total() / MESSAGES for file in files],
        longest_wait=max(wait for one in told for wait in one["waits"]),
    )


@pytest.mark.faults
async def test_four_processes_share_the_work_fairly_and_none_starves(path: Path, tmp_path: Path) -> None:
    load = await drain(path, 4, tmp_path)
    # On a crowded machine one process may stand still for a while: that is not the queue's doing.
    assert min(load.shares) >= 0.02, load
    # Without the line in which they stand, one of them waits until the others have emptied the queue.
    assert load.longest_wait < 5, load


@pytest.mark.faults
async def test_twenty_kills_lose_nothing_and_hand_out_nothing_that_was_acked(path: Path, tmp_path: Path) -> None:
    random_kills = random.Random(20)  # which process is killed when
    published = tmp_path / "published"
    notes = tmp_path / "notes"
    async with AsyncExitStack() as stack:

        async def worker() -> Process:
            made = await start(stack, "work", path, notes)
            assert await line(made) == "ready"
            assert made.stdin is not None
            made.stdin.write(b"go\n")
            return made

        async def putter(life: int) -> Process:
            made = await start(stack, "put", path, published, life * 1_000_000)
            assert await line(made) == "ready"
            return made

        running = {"put": await putter(0), **{f"work-{number}": await worker() for number in range(3)}}
        for kill in range(20):
            some = notes_size(notes) + random_kills.randrange(30_000)
            await eventually(partial(_has_grown_to, notes, some), timeout=DEADLINE, what="work is done")
            victim = random_kills.choice(sorted(running))
            running[victim].kill()
            await running[victim].wait()
            running[victim] = await (putter(kill + 1) if victim == "put" else worker())
        running.pop("put").kill()
        await eventually(lambda: is_empty(path), timeout=DEADLINE, what="the queue is empty")
        for process in running.values():
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    check_notes(published, notes)
    async with Queue(path, NAME) as queue:
        assert await queue.counts() == Counts(0, 0, 0, 0)
    assert not list(tmp_path.glob("*-consumer-*"))


def notes_size(notes: Path) -> int:
    return notes.stat().st_size if notes.exists() else 0


def _has_grown_to(notes: Path, size: int) -> bool:
    return notes_size(notes) >= size


def check_notes(published: Path, notes: Path) -> None:
    """Everything confirmed was handled, and nothing was handed out again once its ack had returned."""
    acked: set[str] = set()
    handled_ids = tmp_ids(notes)
    for entry in ids_in(notes):
        what, _, number = entry.partition(" ")
        if what == "a":
            assert number not in acked, f"{number} was acked twice"
            acked.add(number)
        else:
            assert number not in acked, f"{number} was handed out after it was acked"
    counted = Counted.of(published, handled_ids)
    assert counted.missing == []
    # A put that was killed before it could say so may have stored its last list, and no more than that.
    assert len(counted.strangers) <= 20 * 21
    # What somebody held when it was killed came again; nothing else did.
    assert sum(times - 1 for times in counted.duplicates.values()) <= 20 * 4 * 100


def tmp_ids(notes: Path) -> Path:
    """The ids that were handled, as :class:`Counted` reads them."""
    made = notes.with_suffix(".handled")
    ids = HandledIds(made)
    ids.add(entry[2:] for entry in ids_in(notes) if entry.startswith("h "))
    ids.close()
    return made


@pytest.mark.faults
async def test_an_empty_queue_costs_less_than_a_hundredth_of_a_processor(path: Path) -> None:
    async with AsyncExitStack() as stack:
        # Two processes, so that each also has the other to look after.
        idlers = [await start(stack, "idle", path, 8) for _ in range(2)]
        told = [(await line(idler)).split() for idler in idlers]
    assert max(float(used) for used, _ in told) < 0.01 * 8
    # What a wake-up costs depends on the machine, and their number does not. Looking ten times a second needs 80.
    assert max(int(waits) for _, waits in told) < 60, told


@pytest.mark.faults
async def test_the_file_and_its_log_stay_small_while_far_more_flows_through(path: Path) -> None:
    size = 1_000
    backlog = 5_000
    largest_log = 0
    async with Queue(path, NAME) as queue, AsyncExitStack() as stack:
        await queue.put_many([b"x" * size] * backlog)
        before = path.stat().st_size + log_of(path)
        worker = await start(stack, "work", path, path.with_suffix(".ids"))
        assert await line(worker) == "ready"
        assert worker.stdin is not None
        worker.stdin.write(b"go\n")
        assert await line(worker) == "working"
        for _ in range(30):
            await queue.put_many([b"x" * size] * (backlog // 5))
            await eventually(lambda: _fewer(queue, backlog), timeout=DEADLINE, what="the backlog is small again")
            largest_log = max(largest_log, log_of(path))
        worker.stdin.close()
        await line(worker)
    assert before > backlog * size
    assert path.stat().st_size <= 2 * backlog * size
    assert largest_log <= 40 * 1024 * 1024


def log_of(path: Path) -> int:
    log = Path(f"{path}-wal")
    return log.stat().st_size if log.exists() else 0


async def _fewer(queue: Queue, backlog: int) -> bool:
    return await queue.size() < backlog * 4 // 5
