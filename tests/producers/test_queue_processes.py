"""One queue file, several processes: nothing lost, nothing doubled, whoever dies when."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Counts, NewMessage, Queue
from broadway_py.storage.queue_slots import slot_of
from broadway_py.testing.driving import data, opened, settle, take
from tests.support.eventually import eventually

DEADLINE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@asynccontextmanager
async def program(
    *arguments: object, module: str = "tests.producers.queue_programs", deadline: float = DEADLINE
) -> AsyncIterator[Process]:
    """A running program of *module*; killed at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *map(str, arguments), stdin=PIPE, stdout=PIPE, limit=1 << 24
    )
    try:
        async with asyncio.timeout(deadline):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        # The transport of the pipe is closed with its last byte.
        if process.stdout is not None:
            await process.stdout.read()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def end(process: Process) -> None:
    """Let a worker drain, and see that it leaves cleanly."""
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


def handled(*files: Path) -> Counter[int]:
    return Counter(int(text) for file in files for text in file.read_text(encoding="ascii").split())


async def test_two_workers_and_a_writer_handle_each_message_once(path: Path, tmp_path: Path) -> None:
    files = [tmp_path / "ids-0", tmp_path / "ids-1"]
    async with program("work", path, files[0]) as one, program("work", path, files[1]) as two:
        assert [await line(one), await line(two)] == ["open", "open"]
        async with program("put", path, 3_000) as writer:
            confirmed = [int(await line(writer)) for _ in range(3_000)]
            assert await writer.wait() == 0
        async with Queue(path, "q") as queue:
            await eventually(lambda: _is_empty(queue), timeout=DEADLINE, what="the queue is empty")
        await end(one)
        await end(two)

    assert sorted(confirmed) == list(range(3_000))
    assert handled(*files) == Counter(range(3_000))
    assert all(handled(file) for file in files), "one worker got nothing"


async def _is_empty(queue: Queue) -> bool:
    return await queue.counts() == Counts(0, 0, 0, 0)


@pytest.mark.faults
async def test_a_writer_that_is_killed_has_stored_all_that_it_confirmed(path: Path) -> None:
    async with program("put", path, 20_000) as writer:
        confirmed = {int(await line(writer)) for _ in range(700)}
        writer.kill()
        assert writer.stdout is not None
        rest = (await writer.stdout.read()).split(b"\n")
        confirmed |= {int(text) for text in rest[:-1]}
        await writer.wait()

    stored: list[int] = []
    async with Queue(path, "q") as queue, opened(QueueProducer(path, "q")) as copy:
        ready = (await queue.counts()).ready
        while len(stored) < ready:
            messages = await take(copy, min(500, ready - len(stored)))
            stored += [int(message.data) for message in messages]
            await settle(messages)

    assert len(confirmed) >= 700
    assert confirmed <= set(stored)
    assert len(stored) == len(set(stored))


@pytest.mark.faults
async def test_what_a_killed_worker_held_comes_again_at_once(path: Path, tmp_path: Path) -> None:
    async with Queue(path, "q") as queue, opened(QueueProducer(path, "q")) as alive:
        await queue.put_many([b"a", b"b", b"c"])
        async with program("hold", path, 3) as worker:
            assert await line(worker) == "held"
            waiting = asyncio.create_task(take(alive, 3))
            worker.kill()
            await worker.wait()
            async with asyncio.timeout(10):  # its visibility of 30 s is not waited for
                messages = await waiting
        assert sorted(data(messages)) == [b"a", b"b", b"c"]
        assert {message.attempt for message in messages} == {2}
        await settle(messages)
        assert await queue.counts() == Counts(0, 0, 0, 0)
    assert not list(tmp_path.glob("*-consumer-*"))


@pytest.mark.faults
async def test_killing_workers_at_any_moment_loses_nothing(path: Path, tmp_path: Path) -> None:
    async with Queue(path, "q") as queue:
        await queue.put_many([str(number) for number in range(4_000)])
        files = []
        for life in range(3):
            files.append(tmp_path / f"ids-{life}")
            before = (await queue.counts()).ready
            async with program("work", path, files[-1]) as worker:
                assert await line(worker) == "open"
                await eventually(partial(_shrank, queue, before), what="the worker handles")
                worker.kill()
        files.append(tmp_path / "ids-last")
        async with program("work", path, files[-1]) as worker:
            assert await line(worker) == "open"
            await eventually(lambda: _is_empty(queue), timeout=DEADLINE, what="the queue is empty")
            await end(worker)

    seen = handled(*files)
    assert set(seen) == set(range(4_000))
    # At most what one life held when it died is handled a second time.
    assert sum(seen.values()) - 4_000 <= 3 * 20


@pytest.mark.faults
async def test_a_process_stands_by_for_a_partition_and_goes_on_where_the_killed_one_stopped(
    path: Path, tmp_path: Path
) -> None:
    """Another partition, the messages without a key included, is handled beside it by a third process."""
    stands_by = f"queue file {path}, queue 'q': another reader has partition 1; waiting until that reader is gone"
    sent = [NewMessage(data=str(number), key=str(number % 50) if number % 7 else None) for number in range(4_000)]
    of_second = {int(one.data) for one in sent if one.key is not None and slot_of(one.key) % 2 == 1}
    first, killed, heir = (tmp_path / f"ids-{name}" for name in ("first", "killed", "heir"))
    async with (
        program("work", path, first, 0, 2) as neighbour,
        program("work", path, killed, 1, 2) as worker,
        Queue(path, "q") as queue,
    ):
        assert [await line(neighbour), await line(worker)] == ["open", "open"]
        async with program("work", path, heir, 1, 2) as standby:
            assert await line(standby) == stands_by
            await queue.put_many(sent)
            await eventually(lambda: _has_handled(killed), what="the worker handles")
            worker.kill()
            assert await line(standby) == "open"
            await eventually(lambda: _is_empty(queue), timeout=DEADLINE, what="the queue is empty")
            await end(standby)
        await end(neighbour)

    assert handled(first) == Counter(set(range(4_000)) - of_second)
    # Each is handled once, but for those that the killed one had written down and not settled.
    seen = handled(killed, heir)
    assert set(seen) == of_second
    assert handled(killed), "the worker got nothing"
    assert handled(heir), "it was killed after the last one"
    assert sum(seen.values()) - len(of_second) <= 20


async def _has_handled(file: Path) -> bool:
    return file.exists() and bool(file.read_text(encoding="ascii"))


async def _shrank(queue: Queue, before: int) -> bool:
    return (await queue.counts()).ready < before


@pytest.mark.faults
@pytest.mark.parametrize("told", [1, 250, 600])
async def test_a_pipeline_that_is_killed_among_dead_letters_loses_and_doubles_none(path: Path, told: int) -> None:
    async with Queue(path, "q") as queue:
        await queue.put_many([str(number) for number in range(2_000)])
    async with program("fail", path, "-") as failing:
        for _ in range(told):
            await line(failing)
        failing.kill()
        await failing.wait()

    async with Queue(path, "q") as queue, opened(QueueProducer(path, "q")) as copy:
        dead = [int(letter.data) for letter in await queue.dead_letters()]
        waiting = [int(message.data) for message in await take(copy, 2_000 - len(dead))]
        assert await queue.counts() == Counts(0, 0, len(waiting), len(dead))

    assert waiting, "it was killed after the last one"
    assert Counter(dead + waiting) == Counter(range(2_000))
