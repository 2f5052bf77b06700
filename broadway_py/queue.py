"""The embedded queue: a durable queue in an SQLite file, safe for several processes, which needs no broker.

::

    async with Queue("orders.db", "orders") as queue:
        await queue.put_many([b"one", b"two"])

A pipeline reads it with ``broadway_py.producers.QueueProducer("orders.db", "orders")``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.storage.errors import StorageError
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_options import QueuePlace
from broadway_py.storage.queue_rows import Counts, NewRow

__all__ = ["Counts", "DeadLetter", "Item", "Queue", "StorageError"]

#: What ``put_many`` takes: a payload, or a payload with its metadata.
Item = bytes | str | tuple[bytes | str, Mapping[str, Any] | None]


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

    Raises:
        OptionsError: the path or the name is none.
    """

    #: What tells the time; a test puts a fake here.
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        checked = QueuePlace(path=path, queue=name)
        self.path = checked.path
        self.name = checked.queue
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
        self, data: bytes | str, metadata: Mapping[str, Any] | None = None, delay: float | None = None
    ) -> int:
        """Put one message; returns its number once it is on the disk.

        Args:
            data: the payload; a str is stored as UTF-8.
            metadata: what JSON can say; becomes part of ``message.metadata``. A ``message_id`` in it names the
                message; otherwise its number does.
            delay: seconds until it may be taken.

        Raises:
            TypeError, ValueError: what was given cannot be stored.
            StorageError: the file is away or refuses; nothing was stored.
        """
        file = self._opened()
        due = None if delay is None else file.time() + _checked_delay(delay)
        (number,) = await file.put([_new_row(data, metadata, due)])
        return number

    async def put_many(self, items: Iterable[Item]) -> list[int]:
        """Put messages in order, all or none, in one transaction; returns their numbers once they are on the disk.

        Args:
            items: payloads, or pairs of a payload and its metadata, as :meth:`put` takes them. Other processes wait
                while they are written, so give a few thousand at a time at most.

        Raises:
            TypeError, ValueError, StorageError: as :meth:`put`.
        """
        file = self._opened()
        rows = [
            _new_row(*item, due=None) if isinstance(item, tuple) else _new_row(item, None, due=None) for item in items
        ]
        return await file.put(rows) if rows else []

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


_LONGEST_DELAY: Final = 10 * 365 * 86_400.0


def _checked_delay(delay: float) -> float:
    if not 0 <= delay <= _LONGEST_DELAY:
        raise ValueError(f"delay takes seconds from 0 to {_LONGEST_DELAY:.0f} (ten years), got {delay!r}")
    return float(delay)


def _new_row(data: bytes | str, metadata: Mapping[str, Any] | None, due: float | None) -> NewRow:
    if isinstance(data, str):
        payload = data.encode()
    elif isinstance(data, bytes | bytearray | memoryview):
        payload = bytes(data)
    else:
        raise TypeError(
            f"a payload is bytes or str, got {type(data).__name__}: encode it first, with json.dumps for example"
        )
    if not metadata:
        return NewRow(payload, None, due)
    try:
        return NewRow(payload, json.dumps(dict(metadata), allow_nan=False), due)
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata holds something that JSON cannot say: {error}") from None
