"""Two defects of the original, on a real broker.

A success that could not be acked kept failures from being rejected, and what after_connect raised ended the pipeline.
"""

from __future__ import annotations

import asyncio

import pytest
from aio_pika.abc import AbstractChannel

from broadway_py import Message, Pipeline
from broadway_py.errors import SettleError
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import opened, settle, take
from tests.support.conformance import conforms
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration


class Handles(Pipeline[bytes]):
    """Tells that a message came. The first crash would be its last."""

    max_restarts = 0

    def __init__(self, producer: RabbitMQProducer) -> None:
        super().__init__(producer=producer)
        self.handled = asyncio.Event()

    async def handle_message(self, message: Message[bytes]) -> None:
        self.handled.set()


@conforms("R-039")
async def test_what_failed_is_rejected_although_a_success_of_the_same_call_was_settled_before(
    rabbitmq: RabbitMQ,
) -> None:
    await rabbitmq.declare_with_dead_letters()
    await rabbitmq.publish([b"good", b"bad"])
    async with opened(RabbitMQProducer("work", rabbitmq.url)) as copy:
        good, bad = await take(copy, 2)
        await settle([good])
        with pytest.raises(SettleError) as partial:
            await settle([good], [bad])
        assert partial.value.unsettled == [good]
        await rabbitmq.until(ready=0, unacked=0)
        dead = await (await rabbitmq.channel.get_queue("work.dead")).get(no_ack=True)
        assert dead is not None
        assert dead.body == b"bad"


@conforms("R-029")
async def test_a_mistake_in_after_connect_crashes_nothing_and_is_tried_again(rabbitmq: RabbitMQ) -> None:
    mistakes = [LookupError("no such setting")]

    async def mistaken_once(channel: AbstractChannel) -> None:
        if mistakes:
            raise mistakes.pop()

    await rabbitmq.declare()
    await rabbitmq.publish([b"1"])
    async with Handles(RabbitMQProducer("work", rabbitmq.url, after_connect=mistaken_once)) as pipeline:
        async with asyncio.timeout(10):
            await pipeline.handled.wait()
        assert pipeline.stats().restarts == 0
    await rabbitmq.until(ready=0, unacked=0)
