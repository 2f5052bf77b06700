"""A producer that reads an iterable of this process, and one that never makes a message."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from broadway_py.acknowledger import Acknowledger
from broadway_py.clock import Clock
from broadway_py.foreign import foreign_errors, is_a
from broadway_py.message import Acknowledgement, Message, messages_of
from broadway_py.producer import Producer, SourceMessages
from broadway_py.stage import Wake, first_completed

__all__ = ["DummyProducer", "MemoryProducer"]


class DummyProducer(Producer):
    """Makes no messages and never ends. It is for pipelines that get messages by ``submit`` and ``push_messages``."""

    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        """Waits until the pipeline stops."""
        await self.draining.wait()
        return []


#: How many dead letters are kept for inspection.
_DEAD_LETTERS_KEPT = 1_000
#: While this many messages wait for their next attempt, nothing new is read.
_MOST_AGAIN = 10_000


class _Position:
    """How far the iterable was read, and what is to be delivered again. The copies share it, so a restart continues."""

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        self.items = items
        self.sync: Iterator[Any] | None = None
        self.waiting: AsyncIterator[Any] | None = None
        self.error: BaseException | None = None
        self.exhausted = False
        # Wrapped items without a result. A retry counts as a result.
        self.in_flight = 0
        # A heap: when it is due, its order, the item, its metadata, and the number of the attempt.
        self.again: list[tuple[float, int, Any, dict[str, Any], int]] = []
        self.order = itertools.count()
        self.dead_letters: deque[Message[Any]] = deque(maxlen=_DEAD_LETTERS_KEPT)
        #: One of each open copy, set when something was settled.
        self.moved: set[Wake] = set()
        #: Held by the copy that waits for the next item of an async iterable.
        self.turn = asyncio.Lock()


class _MemoryAcknowledger(Acknowledger):
    """Counts the messages in flight, and keeps the items that are to be delivered again."""

    def __init__(self, position: _Position, clock: Clock) -> None:
        self._position = position
        self._clock = clock

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Counts the messages as settled. There is no broker to tell."""
        self._leave(len(successful) + len(failed))

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Delivers the original item again. After a stop, the next run of this producer delivers it."""
        position, now = self._position, self._clock.monotonic()
        for message, delay_s in messages_and_delays:
            attempt = 1 if message.attempt is None else message.attempt
            # A handler may have replaced the metadata with anything.
            metadata = message.metadata if is_a(message.metadata, dict) else {}
            heapq.heappush(position.again, (now + delay_s, next(position.order), message.raw, metadata, attempt + 1))
        self._leave(len(messages_and_delays))

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Keeps the last 1,000 messages in :attr:`MemoryProducer.dead_letters`."""
        self._position.dead_letters.extend(messages)
        self._leave(len(messages))

    def _leave(self, count: int) -> None:
        self._position.in_flight -= count
        for moved in self._position.moved:
            moved.set()


class MemoryProducer(Producer):
    """Reads an iterable or async iterable. The source ends when it ends and no item waits to be delivered again.

    A :class:`Message` passes unchanged. Anything else is wrapped in a message, which the failure policy may deliver
    again. While 10,000 of them wait for that, nothing new is read.

    Nothing can be given back to an iterable: what was read is handled before a stopping pipeline ends. A plain iterable
    is read in the event loop and must not block.

    Args:
        items: what to read. An iterator is read from its current position.
        name: the producer's name; default ``memory``.
    """

    redelivers = True
    _reading: asyncio.Task[list[Any] | None] | None = None

    def __init__(self, items: Iterable[Any] | AsyncIterable[Any], *, name: str | None = None) -> None:
        if not isinstance(items, Iterable | AsyncIterable):
            raise TypeError(f"MemoryProducer: expected an iterable or async iterable, got {type(items).__name__}")
        self.name = name
        self._position = _Position(items)
        self._moved = Wake()

    @property
    def dead_letters(self) -> list[Message[Any]]:
        """Returns the messages that failed for good, oldest first. Only the last 1,000 are kept."""
        return list(self._position.dead_letters)

    async def open(self) -> None:
        """Begins at the start, or continues where the last copy stopped."""
        position = self._position
        self._clock = self._bound_context.clock
        self._acknowledgement = Acknowledgement(_MemoryAcknowledger(position, self._clock))
        self._told_end = False
        # Of this copy: only one task may wait for it.
        self._moved = Wake()
        if not position.moved:
            position.turn = asyncio.Lock()  # in this event loop
        position.moved.add(self._moved)
        if position.sync is None and position.waiting is None:
            if isinstance(position.items, AsyncIterable):
                position.waiting = aiter(position.items)
            else:
                position.sync = iter(position.items)

    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        """Returns the next *demand* items, or one item of an async iterable. Items that are due again come first."""
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
                # extend() keeps the items that came before an error.
                items.extend(islice(position.sync or (), demand))
            except foreign_errors() as error:
                # It is raised after the items before it were handed over.
                position.error = error
        if items:
            return self._wrapped(items)
        failure, position.error = position.error, None
        if failure is not None:
            raise failure
        position.exhausted = True
        return await self._after_the_end(demand)

    def _wrapped(self, items: Sequence[Any]) -> list[Message[Any]]:
        acknowledgement = self._acknowledgement
        # The true types, because an object's own __class__ may raise.
        ready = {kind for kind in set(map(type, items)) if issubclass(kind, Message)}
        if not ready:
            self._position.in_flight += len(items)
            return messages_of(items, acknowledgement)
        messages = [item if type(item) in ready else Message(item, None, acknowledgement) for item in items]
        self._position.in_flight += sum(type(item) not in ready for item in items)
        return messages

    def _due(self, most: int) -> list[Message[Any]]:
        again, now = self._position.again, self._clock.monotonic()
        due: list[Message[Any]] = []
        while again and len(due) < most and again[0][0] <= now:
            _, _, item, metadata, attempt = heapq.heappop(again)
            message = Message(item, metadata, self._acknowledgement)
            message.attempt = attempt
            due.append(message)
        self._position.in_flight += len(due)
        return due

    async def _after_the_end(self, demand: int) -> list[Message[Any]] | None:
        """Returns None at once, so that open batches are flushed. Later calls wait for items that are due again.

        They return None when no item can be due again.
        """
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
            await self._moved.wait_until(position.again[0][0] if position.again else None, self._clock)
        return None

    async def _wait_for_due(self, demand: int) -> list[Message[Any]]:
        """Waits until an item is due again, and returns what is due."""
        position = self._position
        while not self.draining.is_set():
            if due := self._due(demand):
                return due
            await self._moved.wait_until(position.again[0][0], self._clock)
        return []

    async def _next_of_async(self, items: AsyncIterator[Any], demand: int) -> list[Message[Any]] | None:
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.ensure_future(self._read(items))
        # Only one task at a time may wait on *moved*; this one has ended when the call returns.
        await first_completed(reading, self.draining.wait(), self._until_due())
        if not self.draining.is_set() and (due := self._due(demand)):
            return due
        if self._reading is not reading or not reading.done() or reading.cancelled():
            return []  # still waiting, or the drain has taken the read over
        self._reading = None
        read = reading.result()
        if read is None:
            return await self._after_the_end(1)
        return self._wrapped(read)

    async def _until_due(self) -> None:
        position = self._position
        while not position.again or position.again[0][0] > self._clock.monotonic():
            await self._moved.wait_until(position.again[0][0] if position.again else None, self._clock)

    async def _read(self, items: AsyncIterator[Any]) -> list[Any] | None:
        position = self._position
        async with position.turn:
            if position.exhausted:
                return None
            try:
                return [await anext(items)]
            except StopAsyncIteration:
                position.exhausted = True
                return None

    async def source_messages(self) -> SourceMessages:
        """Returns how many wait to be delivered again, and how many dead letters are kept.

        Nobody knows how many items an iterable still has. After its end there are none.
        """
        position, now = self._position, self._clock.monotonic()
        due = sum(one[0] <= now for one in position.again)
        ready = due if position.exhausted else None
        return SourceMessages(ready, len(position.again) - due, len(position.dead_letters))

    async def prepare_for_draining(self) -> None:
        """Cancels a read that still waits. Hands over what it has read."""
        self._moved.set()
        reading = await self._stop_reading()
        if (
            reading is not None
            and not reading.cancelled()
            and reading.exception() is None
            and (read := reading.result())
        ):
            await self.push(self._wrapped(read))

    async def close(self) -> None:
        """Cancels a read that still waits."""
        await self._stop_reading()
        self._position.moved.discard(self._moved)
        self._moved.close()

    async def _stop_reading(self) -> asyncio.Task[list[Any] | None] | None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        return reading
