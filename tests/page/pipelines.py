"""Pipelines in the states that the live page has to show."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

from broadway_py import Batcher, BatchInfo, Message, Pipeline, ProducerError
from broadway_py.producers import Producer

#: The breaker counts a message that fails again once.
_NUMBERS = count()


class Trickle(Producer):
    """Has a few messages now and then."""

    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        await asyncio.sleep(0.1)
        return [Message(next(_NUMBERS)) for _ in range(min(demand, 3))]


class Orders(Pipeline[Any]):
    """Works."""

    producer = Trickle()
    batchers = {"default": Batcher(batch_size=10, batch_timeout=0.5)}  # noqa: RUF012  # an option

    async def handle_message(self, message: Message[Any]) -> None:
        await asyncio.sleep(0.02)

    async def handle_batch(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        pass


class WithoutSink(Pipeline[Any]):
    """Fails each message, so that its breaker opens."""

    producer = Trickle()

    async def handle_message(self, message: Message[Any]) -> None:
        raise ConnectionError("the sink is away")


class Away(Producer):
    """Never connects."""

    async def open(self) -> None:
        raise ProducerError("amqp://broker.example/ refused the connection")


class WithoutSource(Pipeline[Any]):
    """Has a source that is away."""

    producer = Away()

    async def handle_message(self, message: Message[Any]) -> None:
        pass
