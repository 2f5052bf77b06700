"""The producer contract, on an iterable of this process, as far as one can keep it.

What was read from an iterable cannot go back and is not handed out again, so the harness counts in its place.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from broadway_py import Acknowledgement, Acknowledger, Message
from broadway_py.producer_description import AnyProducer
from broadway_py.producers import MemoryProducer
from broadway_py.testing.contract import ProducerContract, SourceUnderTest


class Items:
    """An async iterable that waits for more, and settles what it handed out."""

    def __init__(self) -> None:
        self.ready: deque[bytes] = deque()
        self.held = 0
        self.rejected = 0
        self._more = asyncio.Event()
        self._acknowledger = _Counts(self)

    def put(self, bodies: Sequence[bytes]) -> None:
        """Have *bodies*."""
        self.ready.extend(bodies)
        self._more.set()

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Message[bytes]:
        while not self.ready:
            self._more.clear()
            await self._more.wait()
        self.held += 1
        message = Message(self.ready.popleft(), None, Acknowledgement(self._acknowledger))
        message.attempt = 1
        return message


class _Counts(Acknowledger):
    def __init__(self, items: Items) -> None:
        self._items = items

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        self._items.held -= len(successful) + len(failed)
        self._items.rejected += len(failed)


class MemorySource(SourceUnderTest):
    """An iterable of its own."""

    can_release = False
    redelivers = False

    def __init__(self) -> None:
        self.items = Items()

    async def publish(self, bodies: Sequence[bytes]) -> None:
        self.items.put(bodies)

    def producer(self) -> AnyProducer:
        return MemoryProducer(self.items)

    async def ready_count(self) -> int:
        return len(self.items.ready)

    async def held_count(self) -> int:
        return self.items.held

    async def rejected_count(self) -> int:
        return self.items.rejected


class TestMemoryProducer(ProducerContract):
    """Every sentence that a source without memory of its own can keep."""

    @pytest.fixture
    async def source(self) -> SourceUnderTest:
        return MemorySource()
