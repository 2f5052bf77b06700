"""An open writer on a small table, and the tools to hold it up and to look at it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broadway_py.storage import sharing
from broadway_py.storage.schema import Schema
from broadway_py.storage.writer import Writer

SCHEMA = Schema("test file", 77, (("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT NOT NULL DEFAULT '')",),))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "test.db")


@pytest.fixture
async def writer(path: str) -> AsyncIterator[Writer]:
    made = await sharing.acquire(path, SCHEMA)
    yield made
    await sharing.release(made)


def add(number: int) -> Callable[[sqlite3.Connection], int]:
    """Work that stores *number* and returns it."""

    def work(at: sqlite3.Connection) -> int:
        at.execute("INSERT INTO t (n) VALUES (?)", (number,))
        return number

    return work


def stored(path: str) -> list[int]:
    """What another program sees in the file."""
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]
    finally:
        connection.close()


class Gate:
    """Holds the writer's thread inside a request until it is opened, so that what comes meanwhile gathers."""

    def __init__(self, writer: Writer) -> None:
        self._may_go = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._is_held = asyncio.Event()
        self._task = asyncio.create_task(writer.read(self._hold))

    def _hold(self, at: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self._is_held.set)
        assert self._may_go.wait(30)

    async def held(self) -> None:
        """Return once the thread is held."""
        await self._is_held.wait()

    async def open(self) -> None:
        """Let the thread go on."""
        self._may_go.set()
        await self._task


async def gathered(writer: Writer, *works: Callable[[sqlite3.Connection], object], rows: int = 1) -> list[object]:
    """Results or errors of *works*, which the writer finds waiting all at once."""
    gate = Gate(writer)
    await gate.held()
    tasks = [asyncio.create_task(writer.write(work, rows=rows)) for work in works]
    await handed_in(writer, len(tasks))
    await gate.open()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def handed_in(writer: Writer, count: int) -> None:
    """Let tasks that were just made run until each has handed in its request (they do not wait before)."""
    await asyncio.sleep(0)
    assert writer._inbox.qsize() == count


def inotifies() -> int:
    """How many watches of the kernel this process has open."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # it is closed by now
            targets.append(str(descriptor.readlink()))
    return sum("inotify" in target for target in targets)
