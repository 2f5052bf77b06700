"""Messages from an iterable of this process, and a producer that never makes any."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from broadway_py.message import Message
from broadway_py.producer import Producer

__all__ = ["DummyProducer", "MemoryProducer"]


class DummyProducer(Producer):
    """Never makes a message and never ends: for pipelines that are fed with ``submit`` and ``push_messages``."""

    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        """Wait until the pipeline stops."""
        await self.draining.wait()
        return []


class _Position:
    """How far the iterable was read: shared by the copies, so that a restart goes on and nothing is read twice."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        self.items = items
        self.sync: Iterator[Any] | None = None
        self.waiting: AsyncIterator[Any] | None = None
        self.error: Exception | None = None


class MemoryProducer(Producer):
    """Reads an iterable or async iterable; the source ends when it does.

    A :class:`Message` passes as it is, anything else is wrapped in one. Nothing can be given back to an iterable: what
    was read is handled before a stopping pipeline ends. A plain iterable is read in the event loop and must not block.

    Args:
        items: what to read. An iterator is read from where it stands.
        name: the producer's name; default ``memory``.
    """

    _reading: asyncio.Task[list[Message[Any]] | None] | None = None

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], *, name: str | None = None) -> None:
        if not isinstance(items, Iterable | AsyncIterable):
            raise TypeError(f"MemoryProducer: expected an iterable or async iterable, got {type(items).__name__}")
        self.name = name
        self._position = _Position(items)

    async def open(self) -> None:
        """Begin at the start, or go on where the last copy stopped."""
        position = self._position
        if position.sync is None and position.waiting is None:
            if isinstance(position.items, AsyncIterable):
                position.waiting = aiter(position.items)
            else:
                position.sync = iter(position.items)

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        """The next *demand* items of an iterable; of an async one, the next."""
        if self._position.waiting is not None:
            return await self._next_of_async(self._position.waiting)
        items: list[Any] = []
        if self._position.error is None:
            try:
                # extend() keeps what came before an error.
                items.extend(islice(self._position.sync or (), demand))
            except Exception as error:  # noqa: BLE001  # raised again once what came before it was handed over
                self._position.error = error
        if not items:
            failure, self._position.error = self._position.error, None
            if failure is not None:
                raise failure
            return None
        return [item if isinstance(item, Message) else Message(item) for item in items]

    async def _next_of_async(self, items: AsyncIterator[Any]) -> list[Message[Any]] | None:
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.ensure_future(self._read(items))
        draining = asyncio.ensure_future(self.draining.wait())
        try:
            await asyncio.wait({reading, draining}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
        if not reading.done() or reading.cancelled():
            return []
        self._reading = None
        return reading.result()

    @staticmethod
    async def _read(items: AsyncIterator[Any]) -> list[Message[Any]] | None:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            return None
        return [item if isinstance(item, Message) else Message(item)]

    async def prepare_for_draining(self) -> None:
        """Call off a read that is still waiting; hand over what it had read."""
        reading = await self._stop_reading()
        if (
            reading is not None
            and not reading.cancelled()
            and reading.exception() is None
            and (read := reading.result())
        ):
            await self.push(read)

    async def close(self) -> None:
        """Call off a read that is still waiting."""
        await self._stop_reading()

    async def _stop_reading(self) -> asyncio.Task[list[Message[Any]] | None] | None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        return reading
