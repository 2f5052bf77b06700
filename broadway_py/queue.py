"""The embedded queue: a durable queue in an SQLite file, safe for several processes, which needs no broker.

::

    async with Queue("orders.db", "orders") as queue:
        await queue.put_many([b"one", b"two"])

A pipeline reads it with ``broadway_py.producers.QueueProducer("orders.db", "orders")``. Code that is not asynchronous
uses :class:`broadway_py.queue.SyncQueue`, which has the same methods.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Collection, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self, TypeVar

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.storage.errors import StorageError
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_message import LONGEST, Item, NewMessage, message_id, new_message, row
from broadway_py.storage.queue_options import QueuePlace
from broadway_py.storage.queue_rows import Counts

__all__ = ["Counts", "DeadLetter", "Item", "NewMessage", "Queue", "StorageError", "SyncQueue"]

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that failed for good. Its payload is kept, and not shown."""

    #: Names it in ``replay`` and ``purge``.
    id: int
    data: bytes = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    #: Why it failed: a :data:`broadway_py.message.Cause`.
    cause: str
    #: The type of the exception, if there was one. Its text is not kept: it may quote the payload.
    exception: str | None
    #: How often it was taken.
    attempts: int
    #: When it was put and when it failed for good, in seconds since 1970.
    enqueued_at: float
    dead_at: float
    #: The pipeline in which it failed.
    pipeline: str


class Queue:
    """One queue in a file: put messages in, see how many there are, look after the dead letters.

    Use it as ``async with Queue(path, name) as queue``. What a call has confirmed by returning is on the disk. All
    queues and producers of a process on one file share one connection.

    Args:
        path: the file; made if it is missing, its directory must exist. Not on a network file system.
        name: the queue in the file; made if it is new.
        dedup_window: seconds (or a timedelta), counted from when it was put, for which a second message of the same
            ``message_id`` is taken for a repetition and not stored; None: never. It counts among those who put with a
            window; give all of them the same. A message without a ``message_id`` is always new.

    Raises:
        OptionsError: the path or the name is none.
        ValueError: the window is none.
    """

    #: What tells the time; a test puts a fake here.
    clock: Clock = SYSTEM_CLOCK

    def __init__(
        self, path: str | os.PathLike[str], name: str, *, dedup_window: float | timedelta | None = None
    ) -> None:
        checked = QueuePlace(path=path, queue=name)
        self.path = checked.path
        self.name = checked.queue
        if isinstance(dedup_window, timedelta):
            dedup_window = dedup_window.total_seconds()
        if dedup_window is not None and not 0 < dedup_window <= LONGEST:
            raise ValueError(f"dedup_window takes seconds up to {LONGEST:.0f} (ten years), got {dedup_window!r}")
        self.dedup_window: float | None = dedup_window
        self._file: QueueFile | None = None

    async def open(self) -> None:
        """Open the file. ``async with`` does it.

        Raises:
            StorageError: the file cannot be used; the sentence says why and what to do.
        """
        if self._file is None:
            self._file = await QueueFile.open(self.path, self.name, self.clock)

    async def close(self) -> None:
        """Close the file, when nobody else in this process uses it. Closing twice does nothing."""
        file, self._file = self._file, None
        if file is not None:
            await file.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def put(
        self,
        data: bytes | str,
        metadata: Mapping[str, Any] | None = None,
        delay: float | timedelta | None = None,
        *,
        priority: int = 0,
        key: str | None = None,
        message_id: str | None = None,
    ) -> int:
        """Put one message; returns its number once it is on the disk. See :class:`NewMessage` for the arguments.

        With a ``dedup_window``, a repetition is not stored and returns the number of the first one.

        Raises:
            TypeError, ValueError: what was given cannot be stored.
            StorageError: the file is away or refuses; nothing was stored.
        """
        new = NewMessage(data=data, metadata=metadata, delay=delay, priority=priority, key=key, message_id=message_id)
        (number,) = await self._put([new])
        return number

    async def put_many(self, items: Iterable[Item]) -> list[int]:
        """Put messages in order, all or none, in one transaction; returns their numbers once they are on the disk.

        Args:
            items: payloads, pairs of a payload and its metadata, or :class:`NewMessage`. Other processes wait while
                they are written, so give a few thousand at a time at most.

        Raises:
            TypeError, ValueError, StorageError: as :meth:`put`.
        """
        return await self._put([new_message(item) for item in items])

    async def _put(self, new: list[NewMessage]) -> list[int]:
        file = self._opened()
        rows = [row(one, file.time()) for one in new]
        if not rows:
            return []
        if self.dedup_window is None:
            return await file.put(rows)
        return await file.put_new(list(zip(rows, map(message_id, new), strict=True)), self.dedup_window)

    async def size(self) -> int:
        """How many messages are not settled: ready, delayed or held. Dead letters are not among them."""
        counts = await self.counts()
        return counts.ready + counts.delayed + counts.held

    async def counts(self) -> Counts:
        """How many messages are ``ready``, ``delayed``, ``held`` (taken, not settled) and ``dead``."""
        return await self._opened().count()

    async def dead_letters(self, limit: int | None = None) -> list[DeadLetter]:
        """The messages that failed for good, with their payloads, the oldest first; at most *limit* (None: all)."""
        return [
            DeadLetter(
                id=row.id,
                data=row.payload,
                metadata={} if row.metadata is None else json.loads(row.metadata),
                cause=row.cause,
                exception=row.exception,
                attempts=row.attempts,
                enqueued_at=row.enqueued_at,
                dead_at=row.dead_at,
                pipeline=row.pipeline,
            )
            for row in await self._opened().dead_rows(limit)
        ]

    async def replay(self, ids: Collection[int] | None = None) -> int:
        """Put dead letters back into the queue, with their attempts forgotten; how many there were.

        Args:
            ids: their ``id``; None: all of them. Unknown ones are passed over.
        """
        return await self._opened().replay(ids)

    async def purge(self, ids: Collection[int] | None = None) -> int:
        """Remove dead letters for good; how many there were. Messages that wait are not touched.

        Args:
            ids: their ``id``; None: all of them. Unknown ones are passed over.
        """
        return await self._opened().discard_dead(ids)

    def _opened(self) -> QueueFile:
        if self._file is None:
            raise StorageError(
                f"queue {self.name!r} in {self.path} is not open: use it inside 'async with Queue(…) as queue'"
            )
        return self._file

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} in {self.path!r}>"


class SyncQueue:
    """:class:`Queue` for code that is not asynchronous: the same methods, each of which waits for its result.

    Use it as ``with SyncQueue(path, name) as queue``. Any number of threads may use one; what they put at the same time
    is written together. Not for code that runs in an event loop, which would stand still meanwhile.

    Args:
        path: as in :class:`Queue`.
        name: as in :class:`Queue`.
        dedup_window: as in :class:`Queue`.

    Raises:
        OptionsError, ValueError: as :class:`Queue`.
    """

    def __init__(
        self, path: str | os.PathLike[str], name: str, *, dedup_window: float | timedelta | None = None
    ) -> None:
        self._queue = Queue(path, name, dedup_window=dedup_window)
        self.path = self._queue.path
        self.name = self._queue.name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._process = 0

    def open(self) -> None:
        """Open the file. ``with`` does it.

        Raises:
            StorageError: the file cannot be used; the sentence says why and what to do.
        """
        if self._loop is not None:
            return
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # Daemonic: a program that forgets to close may end all the same, and what was confirmed is on the disk.
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"broadway-queue:{self.path}", daemon=True)
        self._thread.start()
        try:
            self._result(self._queue.open())
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """Close the file, when nobody else in this process uses it. Closing twice does nothing."""
        if self._loop is not None and self._process != os.getpid():
            self._loop = self._thread = None  # a forked child: the thread and the file are its parent's
        elif self._loop is not None:
            self._result(self._queue.close())
            self._end()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(
        self,
        data: bytes | str,
        metadata: Mapping[str, Any] | None = None,
        delay: float | timedelta | None = None,
        *,
        priority: int = 0,
        key: str | None = None,
        message_id: str | None = None,
    ) -> int:
        """As :meth:`Queue.put`."""
        return self._result(self._queue.put(data, metadata, delay, priority=priority, key=key, message_id=message_id))

    def put_many(self, items: Iterable[Item]) -> list[int]:
        """As :meth:`Queue.put_many`."""
        return self._result(self._queue.put_many(list(items)))

    def size(self) -> int:
        """As :meth:`Queue.size`."""
        return self._result(self._queue.size())

    def counts(self) -> Counts:
        """As :meth:`Queue.counts`."""
        return self._result(self._queue.counts())

    def dead_letters(self, limit: int | None = None) -> list[DeadLetter]:
        """As :meth:`Queue.dead_letters`."""
        return self._result(self._queue.dead_letters(limit))

    def replay(self, ids: Collection[int] | None = None) -> int:
        """As :meth:`Queue.replay`."""
        return self._result(self._queue.replay(ids))

    def purge(self, ids: Collection[int] | None = None) -> int:
        """As :meth:`Queue.purge`."""
        return self._result(self._queue.purge(ids))

    def _result(self, work: Coroutine[Any, Any, R]) -> R:
        try:
            asked = asyncio.run_coroutine_threadsafe(work, self._running())
        except BaseException:
            work.close()
            raise
        try:
            return asked.result()
        except BaseException:
            asked.cancel()  # Ctrl-C, say: nobody waits for it any more
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        place = f"queue {self.name!r} in {self.path}"
        if self._loop is None:
            raise StorageError(f"{place} is not open: use it inside 'with SyncQueue(…) as queue'")
        if self._process != os.getpid():
            raise StorageError(f"{place} was opened by the parent of this process: open it after the fork")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop
        raise StorageError(f"{place}: this would make the event loop stand still: use 'async with Queue(…)' there")

    def __repr__(self) -> str:
        return f"<SyncQueue {self.name!r} in {self.path!r}>"
