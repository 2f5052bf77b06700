"""The RabbitMQ producer on uvloop, whose transports are its own; the other tests run on asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.driving import bodies, data, opened, settle, take
from tests.integration.storms import own_node
from tests.support.certificates import Authority
from tests.support.rabbitmq import RabbitMQ

pytestmark = pytest.mark.integration

#: Of different sizes: nothing, what fits one frame, and what takes several.
BODIES = [b"", b"small", b"x" * 300_000, *bodies(200)]


@pytest.fixture(params=["amqp", "amqps"])
def url(request: pytest.FixtureRequest, rabbitmq: RabbitMQ, tmp_path: Path) -> Iterator[str]:
    """The broker's address, in the clear and over TLS."""
    if request.param == "amqp":
        yield rabbitmq.url
        return
    authority = Authority(tmp_path)
    certificate = authority.issue("broker")
    with own_node(rabbitmq).tls_listener(certificate.certificate, certificate.key) as port:
        yield f"{rabbitmq.through(port).replace('amqp:', 'amqps:')}?cafile={authority.file}"


async def test_it_takes_and_settles_everything(rabbitmq: RabbitMQ, url: str) -> None:
    await rabbitmq.declare()
    await rabbitmq.publish(BODIES)

    async def consume() -> list[Any]:
        async with opened(RabbitMQProducer("work", url, prefetch_count=50)) as copy:
            taken: list[Any] = []
            while len(taken) < len(BODIES):
                messages = await take(copy, min(20, len(BODIES) - len(taken)))
                await settle(messages)
                taken += data(messages)
            return taken

    def in_a_loop_of_its_own() -> list[Any]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(consume())

    assert await asyncio.to_thread(in_a_loop_of_its_own) == BODIES
    await rabbitmq.until(ready=0, unacked=0)
