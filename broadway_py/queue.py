"""The embedded queue: a durable queue in an SQLite file. It is safe for several processes and needs no broker.

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
    """A message that failed for good. Its payload is kept, but ``repr`` does not show it."""

    #: The number to give to ``replay`` and ``purge``.
    id: int
    data: bytes = field(repr=False)
    metadata: dict[str, Any] = field(repr=False)
    #: Why it failed: a :data:`broadway_py.message.Cause`.
    cause: str
    #: The type of the exception, if there was one. Its text is not kept, because it may quote the payload.
    exception: str | None
    #: How often the message was taken.
    attempts: int
    #: When the message was put and when it failed for good, in seconds since 1970.
    enqueued_at: float
    dead_at: float
    #: The pipeline in which it failed.
    pipeline: str


class Queue:
    """One queue in a file. It takes messages, counts them and gives access to the dead letters.

    Use it as ``async with Queue(path, name) as queue``. When a call has returned, its result is on the disk. All queues
    and producers of a process that use one file share one connection.

    Args:
        path: the file; it is made if it is missing. Its directory must exist. A network file system does not work.
        name: the queue in the file; it is made if it is new.
        dedup_window: seconds (or a timedelta), counted from when a message was put. A second message with the same
            ``message_id`` within this time is a repetition and is not stored. None: there is no such check. Only
            messages that were put with a window are compared; give the same window everywhere. A message without a
            ``message_id`` is always new.

    Raises:
        OptionsError: the path or the name is not valid.
        ValueError: the window is not valid.
    """

    #: The clock; a test may put a fake one here.
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
        """Opens the file. ``async with`` does this.

        Raises:
            StorageError: the file cannot be used; the text says why and what to do.
        """
        if self._file is None:
            self._file = await QueueFile.open(self.path, self.name, self.clock)

    async def close(self) -> None:
        """Closes the file if nothing else in this process uses it. Closing twice does nothing."""
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
        """Puts one message and returns its number once it is on the disk. See :class:`NewMessage` for the arguments.

        With a ``dedup_window``, a repetition is not stored, and the number of the first message is returned.

        Raises:
            TypeError, ValueError: the arguments cannot be stored.
            StorageError: the file is not available or cannot be written; nothing was stored.
        """
        new = NewMessage(data=data, metadata=metadata, delay=delay, priority=priority, key=key, message_id=message_id)
        (number,) = await self._put([new])
        return number

    async def put_many(self, items: Iterable[Item]) -> list[int]:
        """Puts messages in order, all or none, in one transaction. Returns their numbers once they are on the disk.

        Args:
            items: payloads, pairs of a payload and its metadata, or :class:`NewMessage`. Give a few thousand at a time
                at most, because other processes wait while they are written.

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
        """Returns how many messages are not settled (ready, delayed or held). Dead letters are not counted."""
        counts = await self.counts()
        return counts.ready + counts.delayed + counts.held

    async def counts(self) -> Counts:
        """Returns how many messages are ``ready``, ``delayed``, ``held`` (taken, but not settled) and ``dead``."""
        return await self._opened().count()

    async def dead_letters(self, limit: int | None = None) -> list[DeadLetter]:
        """Returns the messages that failed for good, with payloads, the oldest first; at most *limit* (None: all)."""
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
        """Puts dead letters back into the queue and sets their attempts to zero. Returns how many there were.

        Args:
            ids: the ``id`` of each; None: all of them. Unknown ones are ignored.
        """
        return await self._opened().replay(ids)

    async def purge(self, ids: Collection[int] | None = None) -> int:
        """Removes dead letters for good and returns how many there were. Messages in the queue are not touched.

        Args:
            ids: the ``id`` of each; None: all of them. Unknown ones are ignored.
        """
        return await self._opened().discard_dead(ids)

    def _opened(self) -> QueueFile:
        if self._file is None:
            raise StorageError(
                f"queue {self.name!r} in {self.path} is not open; use it inside 'async with Queue(…) as queue'"
            )
        return self._file

    def __repr__(self) -> str:
        return f"<Queue {self.name!r} in {self.path!r}>"


class SyncQueue:
    """:class:`Queue` for code that is not asynchronous. It has the same methods, and each waits for its result.

    Use it as ``with SyncQueue(path, name) as queue``. Any number of threads may share one; what they put at the same
    time is written together. Do not use it in an event loop, because each call would block the loop.

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
        """Opens the file. ``with`` does this.

        Raises:
            StorageError: the file cannot be used; the text says why and what to do.
        """
        if self._loop is not None:
            return
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # Daemonic, so that a program that forgets to close can still end. What was confirmed is on the disk.
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"broadway-queue:{self.path}", daemon=True)
        self._thread.start()
        try:
            self._result(self._queue.open())
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """Closes the file if nothing else in this process uses it. Closing twice does nothing."""
        if self._loop is not None and self._process != os.getpid():
            self._loop = self._thread = None  # in a forked child, the thread and the file belong to its parent
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
        """Works as :meth:`Queue.put`."""
        return self._result(self._queue.put(data, metadata, delay, priority=priority, key=key, message_id=message_id))

    def put_many(self, items: Iterable[Item]) -> list[int]:
        """Works as :meth:`Queue.put_many`."""
        return self._result(self._queue.put_many(list(items)))

    def size(self) -> int:
        """Works as :meth:`Queue.size`."""
        return self._result(self._queue.size())

    def counts(self) -> Counts:
        """Works as :meth:`Queue.counts`."""
        return self._result(self._queue.counts())

    def dead_letters(self, limit: int | None = None) -> list[DeadLetter]:
        """Works as :meth:`Queue.dead_letters`."""
        return self._result(self._queue.dead_letters(limit))

    def replay(self, ids: Collection[int] | None = None) -> int:
        """Works as :meth:`Queue.replay`."""
        return self._result(self._queue.replay(ids))

    def purge(self, ids: Collection[int] | None = None) -> int:
        """Works as :meth:`Queue.purge`."""
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
            asked.cancel()  # for example after Ctrl-C: nothing waits for the result any more
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        place = f"queue {self.name!r} in {self.path}"
        if self._loop is None:
            raise StorageError(f"{place} is not open; use it inside 'with SyncQueue(…) as queue'")
        if self._process != os.getpid():
            raise StorageError(f"{place} was opened by the parent of this process; open it after the fork")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._loop
        raise StorageError(f"{place}: this would block the event loop; use 'async with Queue(…)' there")

    def __repr__(self) -> str:
        return f"<SyncQueue {self.name!r} in {self.path!r}>"
