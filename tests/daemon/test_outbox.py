"""What a supervisor says to a worker that may not read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest

from broadway_py.daemon.workers.messages import Command
from broadway_py.daemon.workers.outbox import Outbox
from tests.support.eventually import eventually


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, int]]:
    """The worker's end, and ours."""
    theirs, ours = os.pipe()
    connection = Connection(theirs, writable=False)
    yield connection, ours
    connection.close()


async def said_next(worker: Connection) -> Any:
    return await asyncio.to_thread(worker.recv)


async def test_commands_come_in_their_order(pipe: tuple[Connection, int]) -> None:
    worker, ours = pipe
    outbox = Outbox(ours)
    commands = [Command("report", 1), Command("pause", 2, "a"), Command("stop")]
    for command in commands:
        outbox.put(command)
    assert [worker.recv() for _ in commands] == commands
    outbox.close()


async def test_an_assignment_that_is_larger_than_the_pipe_does_not_wait_and_comes_first(
    pipe: tuple[Connection, int],
) -> None:
    worker, ours = pipe
    outbox = Outbox(ours)
    large: Any = "x" * 1_000_000
    outbox.begin(large)
    outbox.put(Command("stop"))
    assert await said_next(worker) == large
    assert await said_next(worker) == Command("stop")
    outbox.close()


async def test_of_what_a_silent_worker_has_not_read_the_last_of_each_kind_is_kept(
    pipe: tuple[Connection, int],
) -> None:
    worker, ours = pipe
    outbox = Outbox(ours)
    for number in range(1, 20_001):
        outbox.put(Command("report", number))
        outbox.put(Command("pause" if number % 2 else "resume", number, "a"))
    outbox.put(Command("pause", 20_001, "b"))
    outbox.put(Command("stop"))
    assert len(outbox._waiting) == 4
    said: list[Any] = []
    while not said or said[-1] != Command("stop"):
        said.append(await said_next(worker))
    assert said[-4:] == [
        Command("report", 20_000),
        Command("resume", 20_000, "a"),
        Command("pause", 20_001, "b"),
        Command("stop"),
    ]
    assert len(said) < 5_000, "what was overtaken was left out"
    outbox.close()


async def test_a_worker_that_is_gone_is_told_nothing(pipe: tuple[Connection, int]) -> None:
    worker, ours = pipe
    outbox = Outbox(ours)
    large: Any = "x" * 1_000_000
    outbox.begin(large)
    worker.close()
    await eventually(lambda: not outbox._unsent, what="the outbox has noticed")
    outbox.put(Command("stop"))
    assert not outbox._waiting
    outbox.close()
    outbox.put(Command("stop"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(ours)
