"""Publishes to the embedded queue: a durable queue in an SQLite file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import Field

from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.examination import Finding
from broadway_py.options import PositiveDuration
from broadway_py.producers.publishing import ConnectingSink, SinkConnection, Unconfirmed
from broadway_py.publisher import Outgoing
from broadway_py.storage.errors import StorageError
from broadway_py.storage.examination import examine_queue
from broadway_py.storage.queue_file import QueueFile
from broadway_py.storage.queue_message import LONGEST, NewMessage, row
from broadway_py.storage.queue_options import QueuePlace
from broadway_py.storage.queue_rows import NewRow
from broadway_py.trace_place import TracePlace

__all__ = ["QueuePublisher", "QueueSink", "QueueSinkOptions"]

#: The most messages that one transaction stores. More would delay other writers of the file.
_MOST_AT_ONCE: Final = 500


class QueueSinkOptions(QueuePlace):
    """The settings of a :class:`QueuePublisher`."""

    #: Seconds, counted from when a message was stored. A second message with the same id within this time is a
    #: repetition, and is not stored.
    dedup_window: Annotated[PositiveDuration, Field(le=LONGEST)] = 86_400.0


class QueuePublisher(ConnectingSink):
    """Publishes to an embedded queue (see :class:`broadway_py.queue.Queue`).

    ::

        publishers = {"out": QueuePublisher("var/invoices.db", "invoices")}

    ``emit_to`` of an aggregator takes one, too.

    What is published at the same time is stored in one transaction. The id of a message becomes its ``message_id``, and
    an id is stored once within *dedup_window*. The key of a message becomes its key, and its headers become metadata.

    Args:
        path: the file; it is created if it is missing. Its directory must exist.
        queue: the queue in the file; it is created if it is new.
        dedup_window: seconds (or a timedelta) in which a second message with the same id is a repetition. Default: a
            day.

    Raises:
        OptionsError: a setting is wrong.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        queue: str | None = None,
        dedup_window: float | timedelta | None = None,
    ) -> None:
        given: Mapping[str, Any] = {"path": path, "queue": queue, "dedup_window": dedup_window}
        self.options = QueueSinkOptions(**{name: value for name, value in given.items() if value is not None})

    @property
    def place(self) -> str:
        """Returns the queue and its file."""
        return f"queue {self.options.queue!r} in {self.options.path}"

    @property
    def trace_place(self) -> TracePlace:
        """Returns the queue."""
        return TracePlace("broadway_queue", self.options.queue)

    def connection(self, name: str, clock: Clock) -> SinkConnection:
        """Returns what stores messages in the file. A file does not need the *name*."""
        return _QueueConnection(self.options, clock)

    async def examine(self, *, timeout: float) -> AsyncGenerator[Finding, None]:
        """Yields what the file, its disk and the queue in it are like."""
        async with asyncio.timeout(timeout):
            found = await asyncio.to_thread(examine_queue, self.options.path, self.options.queue)
        for finding in found:
            yield finding


#: The name of it as a sink of an aggregator.
QueueSink = QueuePublisher


class _QueueConnection(SinkConnection):
    def __init__(self, options: QueueSinkOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._file: QueueFile | None = None
        self._is_closed = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Opens the file. A missing file or queue is created.

        Raises:
            ProducerError: the file cannot be used.
        """
        await self._opened()

    async def send(self, unconfirmed: Unconfirmed) -> None:
        """Stores what waits.

        Raises:
            ProducerError: the file cannot be used or written.
        """
        file = await self._opened()
        rows = list(_rows(unconfirmed, file.time()))
        for start in range(0, len(rows), _MOST_AT_ONCE):
            part = rows[start : start + _MOST_AT_ONCE]
            try:
                await file.put_new([named for _, named in part], self._options.dedup_window)
            except StorageError as error:
                raise ProducerError(str(error)) from error
            for position, _ in part:
                unconfirmed.confirm(position)

    async def _opened(self) -> QueueFile:
        async with self._opening:
            if self._is_closed:
                raise ProducerError(f"queue {self._options.queue!r} in {self._options.path} was closed")
            if self._file is None:
                try:
                    self._file = await QueueFile.open(self._options.path, self._options.queue, self._clock)
                except StorageError as error:
                    raise ProducerError(str(error)) from error
            return self._file

    async def close(self) -> None:
        """Closes the file if nothing else in this process uses it."""
        self._is_closed = True
        async with self._opening:
            file, self._file = self._file, None
        if file is not None:
            await file.close()


def _rows(unconfirmed: Unconfirmed, now: float) -> Iterator[tuple[int, tuple[NewRow, str | None]]]:
    """Yields each message that can be stored as a row with its id. *now* is the file's time."""
    for position, message in list(unconfirmed.waiting.items()):
        try:
            yield position, (row(_new(message), now), message.dedup_id or message.message_id)
        except (TypeError, ValueError) as wrong:
            unconfirmed.refuse(position, f"a message cannot be stored: {wrong}")


def _new(message: Outgoing) -> NewMessage:
    return NewMessage(
        data=message.data,
        metadata=dict(message.all_headers),
        key=message.key or None,  # the queue takes no empty key
        message_id=message.message_id,
    )
