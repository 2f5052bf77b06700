"""Pipelines on a real RabbitMQ that note what they handle and wait where a test wants them to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from broadway_py import BatchInfo, Message, Pipeline
from broadway_py.producers import RabbitMQProducer
from tests.pipeline.support import check_books, in_flight, outcomes
from tests.support.counter import HandledIds, message_id
from tests.support.eventually import eventually
from tests.support.main_job import Job
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ

PREFETCH: Final = 100


@dataclass
class Hands:
    """What the handlers of one pipeline work with."""

    ids: HandledIds
    #: Handlers wait here while it is shut.
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    #: How many messages or batches were begun.
    begun: int = 0
    batches: list[BatchInfo] = field(default_factory=list)


class Work(Pipeline[bytes]):
    """Notes each message once it is through the gate."""

    context: Hands
    shutdown_timeout = 15.0

    async def handle_message(self, message: Message[bytes]) -> None:
        self.context.begun += 1
        await self.context.gate.wait()
        self.context.ids.add([message_id(message.data)])


class WorkInBatches(Work):
    """The same, by the batch."""

    async def handle_message(self, message: Message[bytes]) -> None:
        pass

    async def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.context.begun += 1
        await self.context.gate.wait()
        self.context.batches.append(info)
        self.context.ids.add(message_id(message.data) for message in messages)


def source(job: Job, proxy: FaultProxy | None = None, **settings: Any) -> RabbitMQProducer:
    url = job.broker.url if proxy is None else job.broker.through(proxy.port)
    return RabbitMQProducer("work", url, prefetch_count=PREFETCH, **settings)


def through(job: Job, proxy: FaultProxy) -> str:
    """How an error shows the way through the proxy."""
    return f"amqp://***@127.0.0.1:{proxy.port}/{job.broker.vhost}"


@asynccontextmanager
async def at_work(pipeline: Pipeline[Any], broker: RabbitMQ) -> AsyncIterator[None]:
    """Run *pipeline*; afterwards its books are closed, and nothing of it is left, neither here nor on the broker."""
    before = asyncio.all_tasks()
    async with pipeline:
        yield
    check_books(pipeline)
    assert in_flight(pipeline) == 0
    if (inside := broker.inside) is not None:
        await inside.until_alone()
        assert (await inside.counts()).unacked == 0
    await eventually(lambda: asyncio.all_tasks() <= before, what="the pipeline's tasks have ended")


def assert_none_lost(job: Job) -> None:
    assert job.counted.missing == []
    assert job.counted.strangers == []


def assert_each_delivery_settled(pipeline: Pipeline[Any], job: Job) -> None:
    """By the books, what was handled was acked or is unknown. An ack that a loss swallowed on its way counts as acked:
    nobody can tell, and the broker delivers again.
    """
    found = outcomes(pipeline)
    assert found["acked"] + found.get("unknown", 0) == job.notes
    assert found["acked"] >= len(job.counted.published)
