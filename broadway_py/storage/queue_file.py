"""One queue in a file, for code that puts messages and code that reads its state."""

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
    """The queue *name* in an open file. It is made by :meth:`open`.

    Its methods raise StorageError, and then nothing was stored. They may be called from one event loop only.
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
        """Opens the file and the queue in it. Both are created if they are missing.

        Raises:
            StorageError: they cannot be opened. The text says why and what to do.
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
        """Returns the queues in the file. A missing file is created.

        Raises:
            StorageError: the file cannot be opened. The text says why and what to do.
        """
        writer = await sharing.acquire(os.fspath(path), QUEUE_SCHEMA)
        try:
            return await writer.read(rows.queue_names)
        finally:
            await sharing.release(writer)

    async def close(self) -> None:
        """Ends the use of the file. The last user in this process closes it."""
        await sharing.release(self.writer)

    def time(self) -> float:
        """Returns the current time of the file's own clock."""
        return self.clock.monotonic() + self._origin

    def monotonic(self, file_time: float) -> float:
        """Converts a moment of the file's time to ``clock.monotonic()``."""
        return file_time - self._origin

    async def put(self, new: Sequence[rows.NewRow]) -> list[int]:
        """Stores *new* in order, all or nothing. Returns their ids once they are on the disk."""
        return await self.writer.write(
            lambda at: rows.insert(at, self.queue, new, self.clock.wall()), rows=len(new), wakes=True
        )

    async def put_new(self, named: Sequence[tuple[rows.NewRow, str | None]], window: float) -> list[int]:
        """Does the same as :meth:`put`, but stores an id that was put in the last *window* seconds only once.

        A row whose id is None is always stored.
        """

        def store(at: sqlite3.Connection) -> list[int]:
            now = self.time()
            return insert_new(at, self.queue, named, Moment(self.clock.wall(), now, now + window))

        return await self.writer.write(store, rows=len(named), wakes=True)

    async def count(self) -> rows.Counts:
        """Returns how many messages are in each state."""
        return await self._read(rows.count)

    async def count_waiting(self, slots: Sequence[int] | None = None, *, rest: bool = True) -> rows.Waiting:
        """Returns how many messages of *slots* wait; None: of the whole queue. See :func:`rows.count_waiting_in`."""
        if slots is None:
            return await self._read(partial(rows.count_waiting, now=self.time()))
        return await self._read(partial(rows.count_waiting_in, slots=slots, rest=rest))

    async def dead_rows(self, limit: int | None) -> list[dead.DeadRow]:
        """Returns at most *limit* dead letters, the oldest message first. None: all."""
        return await self._read(partial(dead.dead_rows, limit=limit))

    async def dead_heads(self, most: int | None = None) -> list[dead.DeadHead]:
        """Returns the oldest *most* dead letters (None: all) without their payloads, the oldest message first."""
        return await self._read(partial(dead.dead_heads, most=most))

    async def dead_payload(self, letter: int) -> bytes | None:
        """Returns the payload of one dead letter, or None if there is none of this number."""
        return await self._read(partial(dead.dead_payload, letter=letter))

    async def replay(self, ids: Collection[int] | None) -> int:
        """Puts dead letters (None: all) back into the queue. Returns how many."""
        return await self.writer.write(lambda at: dead.replay(at, self.queue, ids), wakes=True)

    async def discard_dead(self, ids: Collection[int] | None) -> int:
        """Removes dead letters (None: all) for good. Returns how many."""
        return await self.writer.write(lambda at: dead.discard_dead(at, self.queue, ids))

    async def _read(self, look: Callable[[sqlite3.Connection, int], R]) -> R:
        return await self.writer.read(lambda at: look(at, self.queue))
