"""One queue in a file, for those who put and those who look."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Self, TypeVar

from broadway_py.clock import Clock
from broadway_py.storage import queue_dead as dead
from broadway_py.storage import queue_rows as rows
from broadway_py.storage import sharing
from broadway_py.storage.queue_recent import Moment, insert_new
from broadway_py.storage.queue_schema import QUEUE_SCHEMA
from broadway_py.storage.queue_time import origin
from broadway_py.storage.writer import Writer

__all__ = ["QueueFile"]

R = TypeVar("R")


class QueueFile:
    """The queue *name* in an open file; made by :meth:`open`.

    Its methods raise StorageError, in which case nothing was stored, and may be called from one event loop only.
    """

    def __init__(self, writer: Writer, name: str, clock: Clock, queue: int, file_origin: float) -> None:
        self.writer = writer
        self.name = name
        self.clock = clock
        #: The queue's number in the file.
        self.queue = queue
        self._origin = file_origin

    @classmethod
    async def open(cls, path: str | os.PathLike[str], name: str, clock: Clock) -> Self:
        """Open the file and the queue in it; both are made if they are missing.

        Raises:
            StorageError: why not, and what to do.
        """
        writer = await sharing.acquire(os.fspath(path), QUEUE_SCHEMA)
        try:
            queue, file_origin = await writer.write(lambda at: (rows.queue_id(at, name), origin(at, clock)))
        except BaseException:
            await sharing.release(writer)
            raise
        return cls(writer, name, clock, queue, file_origin)

    @staticmethod
    async def names(path: str | os.PathLike[str]) -> list[str]:
        """The queues in the file, which is made if it is missing.

        Raises:
            StorageError: why not, and what to do.
        """
        writer = await sharing.acquire(os.fspath(path), QUEUE_SCHEMA)
        try:
            return await writer.read(rows.queue_names)
        finally:
            await sharing.release(writer)

    async def close(self) -> None:
        """No longer use the file; the last one in this process closes it."""
        await sharing.release(self.writer)

    def time(self) -> float:
        """What the file's own time is now."""
        return self.clock.monotonic() + self._origin

    def monotonic(self, file_time: float) -> float:
        """A moment of the file's time on ``clock.monotonic()``."""
        return file_time - self._origin

    async def put(self, new: Sequence[rows.NewRow]) -> list[int]:
        """Store *new* in order, all or nothing; returns their ids once they are on the disk."""
        return await self.writer.write(
            lambda at: rows.insert(at, self.queue, new, self.clock.wall()), rows=len(new), wakes=True
        )

    async def put_new(self, named: Sequence[tuple[rows.NewRow, str | None]], window: float) -> list[int]:
        """As :meth:`put`, but a row whose id (None: none) was put in the last *window* seconds is stored once."""

        def store(at: sqlite3.Connection) -> list[int]:
            now = self.time()
            return insert_new(at, self.queue, named, Moment(self.clock.wall(), now, now + window))

        return await self.writer.write(store, rows=len(named), wakes=True)

    async def count(self) -> rows.Counts:
        """How many messages stand where."""
        return await self._read(rows.count)

    async def dead_rows(self, limit: int | None) -> list[dead.DeadRow]:
        """The dead letters, the oldest message first."""
        return await self._read(partial(dead.dead_rows, limit=limit))

    async def dead_heads(self) -> list[dead.DeadHead]:
        """The dead letters without their payloads, the oldest message first."""
        return await self._read(dead.dead_heads)

    async def dead_payload(self, letter: int) -> bytes | None:
        """The payload of one dead letter; None when there is none of this number."""
        return await self._read(partial(dead.dead_payload, letter=letter))

    async def replay(self, ids: Collection[int] | None) -> int:
        """Put dead letters (None: all) back into the queue; how many."""
        return await self.writer.write(lambda at: dead.replay(at, self.queue, ids), wakes=True)

    async def discard_dead(self, ids: Collection[int] | None) -> int:
        """Remove dead letters (None: all) for good; how many."""
        return await self.writer.write(lambda at: dead.discard_dead(at, self.queue, ids))

    async def _read(self, look: Callable[[sqlite3.Connection, int], R]) -> R:
        return await self.writer.read(lambda at: look(at, self.queue))
