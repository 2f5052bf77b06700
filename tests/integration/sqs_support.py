"""What the tests of SQS share: a proxy in front of it, a producer that goes through it, and pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broadway_py import Message, Pipeline
from broadway_py.errors import ProducerError
from broadway_py.producers import SQSProducer
from tests.support.localstack import REGION, SQS, Queue
from tests.support.sqs_proxy import SQSProxy

__all__ = ["Handled", "Losses", "faults", "through", "work"]


@pytest.fixture
async def faults(sqs: SQS) -> AsyncIterator[SQSProxy]:
    """A proxy in front of SQS."""
    async with SQSProxy(sqs.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def work(sqs: SQS) -> Queue:
    """The queue of the test."""
    return await sqs.queue("work")


def through(proxy: SQSProxy, queue: Queue, **settings: Any) -> SQSProducer:
    """A producer that reads *queue* by way of *proxy*; short polls, so that stopping is quick."""
    return SQSProducer(queue.url, REGION, proxy.endpoint, **{"wait_time_seconds": 1, **settings})


class Handled(Pipeline[bytes]):
    """Notes each body; fails those that begin with ``bad``. Its context is a list that the notes go to."""

    context: list[bytes]

    async def handle_message(self, message: Message[bytes]) -> None:
        self.context.append(message.data)
        if message.data.startswith(b"bad"):
            message.fail("it is bad")


class Losses(list[ProducerError]):
    """What a copy reported; :meth:`first` waits for it."""

    def __init__(self) -> None:
        self._some = asyncio.Event()

    def append(self, error: ProducerError) -> None:
        super().append(error)
        self._some.set()

    async def first(self) -> ProducerError:
        async with asyncio.timeout(15):
            await self._some.wait()
        return self[0]
