"""What a RabbitMQ may deliver again is marked: on this an aggregator relies, to look up few messages."""

from __future__ import annotations

import pytest

from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import give_back, marks, opened, settle, take
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("kind", ["classic", "quorum"])
@pytest.mark.parametrize("path", ["fast", "plain"])
async def test_both_kinds_of_queue_mark_what_was_given_back_or_left_open(
    rabbitmq: RabbitMQ, kind: str, path: str
) -> None:
    """From 4.3 on, a quorum queue does not count what was given back as an attempt. It marks it all the same."""
    await rabbitmq.declare("work", **{"x-queue-type": kind})
    await rabbitmq.publish([b"given back", b"left open"])
    async with opened(RabbitMQProducer("work", rabbitmq.url, delivery_path=path)) as copy:
        messages = await take(copy, 2)
        assert marks(messages) == {b"given back": False, b"left open": False}
        await give_back(messages[:1])
    await rabbitmq.publish([b"new"])
    async with opened(RabbitMQProducer("work", rabbitmq.url, delivery_path=path)) as copy:
        messages = await take(copy, 3)
        assert marks(messages) == {b"given back": True, b"left open": True, b"new": False}
        await settle(messages)
