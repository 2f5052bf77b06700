"""Messages from an iterable of this process, and a producer that never makes any."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from broadway_py.acknowledger import Acknowledger
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.foreign import foreign_errors, is_a
from broadway_py.message import Acknowledgement, Message
from broadway_py.producer import Producer
from broadway_py.stage import Wake

__all__ = ["DummyProducer", "MemoryProducer"]


class DummyProducer(Producer):
    """Never makes a message and never ends: for pipelines that are fed with ``submit`` and ``push_messages``."""

    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        """Wait until the pipeline stops."""
        await self.draining.wait()
        return []


#: How many dead letters are kept for whoever looks.
_DEAD_LETTERS_KEPT = 1_000
#: While so many wait for their next attempt, nothing new is read.
_MOST_AGAIN = 10_000


class _Position:
    """How far the iterable was read, and what is to come again: shared by the copies, so that a restart goes on."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        self.items = items
        self.sync: Iterator[Any] | None = None
        self.waiting: AsyncIterator[Any] | None = None
        self.error: BaseException | None = None
        self.exhausted = False
        # Wrapped items without an outcome; a retry is one.
        self.in_flight = 0
        # A heap of what is due when, in which order, which item, its metadata, and the number of the attempt.
        self.again: list[tuple[float, int, Any, dict[str, Any], int]] = []
        self.order = itertools.count()
        self.dead_letters: deque[Message[Any]] = deque(maxlen=_DEAD_LETTERS_KEPT)
        #: Set when something was settled.
        self.moved = Wake()


class _MemoryAcknowledger(Acknowledger):
    """Counts what is in flight, and keeps what is to come again."""

    def __init__(self, position: _Position) -> None:
        self._position = position
        self.clock: Clock = SYSTEM_CLOCK

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Nobody needs to be told."""
        self._leave(len(successful) + len(failed))

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Deliver the original item again; after a stop it is delivered by whoever runs this producer next."""
        position, now = self._position, self.clock.monotonic()
        for message, delay_s in messages_and_delays:
            attempt = 1 if message.attempt is None else message.attempt
            # A handler may have put anything in its place.
            metadata = message.metadata if is_a(message.metadata, dict) else {}
            heapq.heappush(position.again, (now + delay_s, next(position.order), message.raw, metadata, attempt + 1))
        self._leave(len(messages_and_delays))

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Keep the last thousand in :attr:`MemoryProducer.dead_letters`."""
        self._position.dead_letters.extend(messages)
        self._leave(len(messages))

    def _leave(self, count: int) -> None:
        self._position.in_flight -= count
        self._position.moved.set()


class MemoryProducer(Producer):
    """Reads an iterable or async iterable; the source ends when it does, and nothing of it is to come again.

    A :class:`Message` passes as it is, anything else is wrapped in one, which the failure policy may deliver again;
    while 10,000 of them wait for that, nothing new is read.
    Nothing can be given back to an iterable: what was read is handled before a stopping pipeline ends. A plain iterable
    is read in the event loop and must not block.

    Args:
        items: what to read. An iterator is read from where it stands.
        name: the producer's name; default ``memory``.
    """

    redelivers = True
    _reading: asyncio.Task[list[Any] | None] | None = None

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], *, name: str | None = None) -> None:
        if not isinstance(items, Iterable | AsyncIterable):
            raise TypeError(f"MemoryProducer: expected an iterable or async iterable, got {type(items).__name__}")
        self.name = name
        self._position = _Position(items)
        self._acknowledger = _MemoryAcknowledger(self._position)
        self._acknowledgement = Acknowledgement(self._acknowledger)

    @property
    def dead_letters(self) -> list[Message[Any]]:
        """The messages that failed for good, oldest first; only the last 1,000 are kept."""
        return list(self._position.dead_letters)

    async def open(self) -> None:
        """Begin at the start, or go on where the last copy stopped."""
        position = self._position
        self._acknowledger.clock = self.clock
        self._told_end = False
        if position.sync is None and position.waiting is None:
            if isinstance(position.items, AsyncIterable):
                position.waiting = aiter(position.items)
            else:
                position.sync = iter(position.items)

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        """The next *demand* items of an iterable; of an async one, the next. What is due again comes first."""
        position = self._position
        if position.again and (due := self._due(demand)):
            return due
        if position.exhausted:
            return await self._after_the_end(demand)
        if len(position.again) >= _MOST_AGAIN:
            return await self._wait_for_due(demand)
        if position.waiting is not None:
            return await self._next_of_async(position.waiting, demand)
        items: list[Any] = []
        if position.error is None:
            try:
                # extend() keeps what came before an error.
                items.extend(islice(position.sync or (), demand))
            except foreign_errors() as error:
                # Raised again once what came before it was handed over.
                position.error = error
        if items:
            return self._wrapped(items)
        failure, position.error = position.error, None
        if failure is not None:
            raise failure
        position.exhausted = True
        return await self._after_the_end(demand)

    def _wrapped(self, items: Sequence[Any]) -> list[Message[Any]]:
        acknowledgement, fresh = self._acknowledgement, 0
        messages: list[Message[Any]] = []
        last: type = object
        is_message = False
        for item in items:
            # By its true type: an object's own __class__ may raise. Neighbours are mostly of one type.
            if type(item) is not last:
                last = type(item)
                is_message = issubclass(last, Message)
            if is_message:
                messages.append(item)
            else:
                fresh += 1
                messages.append(Message(item, None, acknowledgement))
        self._position.in_flight += fresh
        return messages

    def _due(self, most: int) -> list[Message[Any]]:
        again, now = self._position.again, self.clock.monotonic()
        due: list[Message[Any]] = []
        while again and len(due) < most and again[0][0] <= now:
            _, _, item, metadata, attempt = heapq.heappop(again)
            message = Message(item, metadata, self._acknowledgement)
            message.attempt = attempt
            due.append(message)
        self._position.in_flight += len(due)
        return due

    async def _after_the_end(self, demand: int) -> list[Message[Any]] | None:
        """None at once, so that open batches leave; then wait for what is to come again, until nothing can."""
        position = self._position
        if not self._told_end:
            self._told_end = True
            return None
        while position.in_flight or position.again:
            if self.draining.is_set():
                return []
            if due := self._due(demand):
                self._told_end = False
                return due
            await position.moved.wait_until(position.again[0][0] if position.again else None, self.clock)
        return None

    async def _wait_for_due(self, demand: int) -> list[Message[Any]]:
        """What is due again, once something is."""
        position = self._position
        while not self.draining.is_set():
            if due := self._due(demand):
                return due
            await position.moved.wait_until(position.again[0][0], self.clock)
        return []

    async def _next_of_async(self, items: AsyncIterator[Any], demand: int) -> list[Message[Any]] | None:
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.ensure_future(self._read(items))
        ends = [asyncio.ensure_future(self.draining.wait()), asyncio.ensure_future(self._until_due())]
        try:
            await asyncio.wait({reading, *ends}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            # One at a time may wait for what has moved: the next must not begin before this one has left.
            await asyncio.wait(ends)
        if not self.draining.is_set() and (due := self._due(demand)):
            return due
        if self._reading is not reading or not reading.done() or reading.cancelled():
            return []  # still waiting, or the drain has taken it over
        self._reading = None
        read = reading.result()
        if read is None:
            self._position.exhausted = True
            return await self._after_the_end(1)
        return self._wrapped(read)

    async def _until_due(self) -> None:
        position = self._position
        while not position.again or position.again[0][0] > self.clock.monotonic():
            await position.moved.wait_until(position.again[0][0] if position.again else None, self.clock)

    @staticmethod
    async def _read(items: AsyncIterator[Any]) -> list[Any] | None:
        try:
            item = await anext(items)
        except StopAsyncIteration:
            return None
        return [item]

    async def prepare_for_draining(self) -> None:
        """Call off a read that is still waiting; hand over what it had read."""
        self._position.moved.set()
        reading = await self._stop_reading()
        if (
            reading is not None
            and not reading.cancelled()
            and reading.exception() is None
            and (read := reading.result())
        ):
            await self.push(self._wrapped(read))

    async def close(self) -> None:
        """Call off a read that is still waiting."""
        await self._stop_reading()

    async def _stop_reading(self) -> asyncio.Task[list[Any] | None] | None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        return reading
