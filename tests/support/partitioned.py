"""A source with partitions, in memory: it outlives the pipelines, and delivers again what was not acked."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from broadway_py import Acknowledgement, Acknowledger, Message
from broadway_py.producer import Producer
from broadway_py.producer_description import ProducerDescription


class PartitionedBroker:
    """What has the messages, and remembers what became of them."""

    def __init__(self, partitions: int) -> None:
        self.ready: list[deque[tuple[str, Any, bool]]] = [deque() for _ in range(partitions)]
        self.unacked: list[dict[str, Any]] = [{} for _ in range(partitions)]
        self.ended = False
        #: (partition, data) of each acked message, in order; and of those that failed.
        self.acked: list[tuple[int, Any]] = []
        self.failed: list[Message[Any]] = []
        #: How many readers of each partition are open.
        self.readers = [0] * partitions
        self._count = 0
        self._changed: set[asyncio.Event] = set()

    def put(self, partition: int, *items: Any) -> None:
        """Has *items* in *partition*."""
        for item in items:
            self.ready[partition].append((str(self._count), item, False))
            self._count += 1
        self.notify()

    def end(self) -> None:
        """Has no more, ever."""
        self.ended = True
        self.notify()

    def bring_back(self) -> None:
        """Delivers again what is not acked, in its order, marked: the process that had it is gone."""
        for partition, unacked in enumerate(self.unacked):
            self.readers[partition] = 0
            for name in sorted(unacked, key=int, reverse=True):
                self.ready[partition].appendleft((name, unacked[name], True))
            unacked.clear()

    def notify(self) -> None:
        """Lets those who wait look again."""
        for event in self._changed:
            event.set()

    async def changed(self) -> None:
        """Waits for :meth:`notify`."""
        event = asyncio.Event()
        self._changed.add(event)
        try:
            await event.wait()
        finally:
            self._changed.discard(event)

    async def until_acked(self, count: int) -> None:
        """Waits until *count* messages are acked, in all partitions together."""
        async with asyncio.timeout(5.0):
            while len(self.acked) < count:
                await self.changed()


class PartitionedProducer(ProducerDescription):
    """Describes *broker*, parted.

    Args:
        broker: what has the messages.
        name: the name of the source.
    """

    redelivers = True
    marks_repeats = True
    outlives_process = True
    keeps_keys_apart = True

    def __init__(self, broker: PartitionedBroker, name: str = "orders") -> None:
        self.broker = broker
        self.name = name
        self.partitions: int | None = len(broker.ready)
        self.index: int | None = None
        self.is_alone = False

    def for_order(self) -> PartitionedProducer:
        """Returns one whose partitions refuse a second reader."""
        changed = copy.copy(self)
        changed.is_alone = True
        return changed

    def describe_partition(self, index: int) -> PartitionedProducer:
        """Returns the reader of one partition."""
        part = copy.copy(self)
        part.index = index
        return part

    def most_in_flight(self, capacity: int) -> int | None:
        """Returns the capacity: the source has no limit of its own below it."""
        return capacity

    def create(self) -> Producer:
        """Returns a reader."""
        assert self.index is not None, "the whole source is read, and not a partition"
        return _Reader(self.broker, self.index, is_alone=self.is_alone)


class _Reader(Producer):
    redelivers = True
    marks_repeats = True
    outlives_process = True

    def __init__(self, broker: PartitionedBroker, index: int, *, is_alone: bool) -> None:
        self.broker = broker
        self.index = index
        self._is_alone = is_alone
        self._settles = _Settles(broker, index)

    async def open(self) -> None:
        self.broker.readers[self.index] += 1
        assert not self._is_alone or self.broker.readers[self.index] == 1, "a partition has two readers"

    async def handle_demand(self, demand: int) -> list[Message[Any]] | None:
        ready, unacked = self.broker.ready[self.index], self.broker.unacked[self.index]
        while not ready:
            if self.broker.ended:
                return None
            if self.draining.is_set():
                return []
            await self.broker.changed()
        made: list[Message[Any]] = []
        while ready and len(made) < demand:
            name, data, is_repeat = ready.popleft()
            unacked[name] = data
            made.append(Message(data, {"message_id": name}, Acknowledgement(self._settles, None, is_repeat)))
        return made

    async def prepare_for_draining(self) -> None:
        self.broker.notify()

    async def close(self) -> None:
        self.broker.readers[self.index] -= 1


class _Settles(Acknowledger):
    def __init__(self, broker: PartitionedBroker, index: int) -> None:
        self._broker = broker
        self._index = index

    def is_repeat(self, data: Any) -> bool:
        return bool(data)

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        for message in [*successful, *failed]:
            del self._broker.unacked[self._index][str(message.metadata["message_id"])]
        self._broker.acked += [(self._index, message.data) for message in successful]
        self._broker.failed += failed
        self._broker.notify()

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        unacked, ready = self._broker.unacked[self._index], self._broker.ready[self._index]
        for message in reversed(messages):
            name = str(message.metadata["message_id"])
            ready.appendleft((name, unacked.pop(name), True))
