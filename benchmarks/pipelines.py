"""The pipelines that are measured. Their handlers do nothing but note which ids came."""

from __future__ import annotations

from typing import Any

from benchmarks.measure import Ids
from benchmarks.rabbitmq_queue import identity
from broadway_py import BatchInfo, Message, Pipeline

__all__ = ["Batched", "Counted", "Drained", "DrainedInBatches"]


class Counted(Pipeline[int]):
    """Notes the id in ``handle_message``. Give it ``ids`` before the start."""

    ids: Ids

    async def handle_message(self, message: Message[int]) -> None:
        """Note it."""
        self.ids.seen[message.data] += 1


class Batched(Pipeline[int]):
    """Does nothing in ``handle_message`` and notes the ids in ``handle_batch``. Give it ``ids`` before the start."""

    ids: Ids

    async def handle_message(self, message: Message[int]) -> None:
        """Nothing."""

    async def handle_batch(self, messages: list[Message[int]], info: BatchInfo) -> None:
        """Note them."""
        seen = self.ids.seen
        for message in messages:
            seen[message.data] += 1


class Drained(Pipeline[bytes]):
    """Notes the id in a body of 256 bytes, and asks for a stop at the last. Give it ``ids`` before the start."""

    ids: Ids

    async def setup(self) -> None:
        """Nothing has come yet."""
        self._missing = len(self.ids.seen)

    async def handle_message(self, message: Message[Any]) -> None:
        """Note it."""
        self.ids.seen[identity(message.data)] += 1
        self._missing -= 1
        if self._missing == 0:
            self.request_stop()


class DrainedInBatches(Pipeline[bytes]):
    """As :class:`Drained`, but in ``handle_batch``. Give it ``ids`` before the start."""

    ids: Ids

    async def setup(self) -> None:
        """Nothing has come yet."""
        self._missing = len(self.ids.seen)

    async def handle_message(self, message: Message[Any]) -> None:
        """Nothing."""

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        """Note them."""
        seen = self.ids.seen
        for message in messages:
            seen[identity(message.data)] += 1
        self._missing -= len(messages)
        if self._missing == 0:
            self.request_stop()
