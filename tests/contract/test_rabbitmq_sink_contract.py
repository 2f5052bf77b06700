"""The sink contract, on a real RabbitMQ: a classic queue, a quorum queue, and an exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aio_pika
import pytest

from broadway_py import RabbitMQSink
from broadway_py.publisher import Sink
from tests.contract.publisher_contract import PublisherContract
from tests.contract.sink_contract import Arrived, SinkContract, SinkHarness
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ


class RabbitMQSinkHarness(SinkHarness):
    """A virtual host of the test's own, with a proxy in front of it.

    Args:
        broker: where it is.
        proxy: how the sink gets there.
        arrives_in: the queue where the messages arrive.
        settings: of the sink.
    """

    def __init__(self, broker: RabbitMQ, proxy: FaultProxy, arrives_in: str, **settings: Any) -> None:
        self.broker = broker
        self.proxy = proxy
        self.arrives_in = arrives_in
        self.secret = broker.secret
        self._settings = settings

    def sink(self) -> Sink:
        return RabbitMQSink(self.broker.through(self.proxy.port), **self._settings)

    async def count(self) -> int:
        return await self.broker.ready(self.arrives_in) or 0

    async def take(self) -> list[Arrived]:
        taken: list[Arrived] = []
        queue = await self.broker.channel.get_queue(self.arrives_in)
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            taken.append((message.body, message.message_id))
        return taken

    async def kill(self) -> None:
        self.proxy.reset()

    async def go_away(self) -> None:
        await self.proxy.refuse()
        self.proxy.reset()

    async def come_back(self) -> None:
        await self.proxy.accept()


@pytest.fixture
async def proxy(rabbitmq: RabbitMQ) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(*rabbitmq.address) as proxy:
        yield proxy


@pytest.mark.integration
@pytest.mark.delivery_path("plain")
class TestRabbitMQSinkToAClassicQueue(SinkContract):
    """Every sentence of the contract."""

    @pytest.fixture
    async def harness(self, rabbitmq: RabbitMQ, proxy: FaultProxy) -> SinkHarness:
        await rabbitmq.declare("out")
        return RabbitMQSinkHarness(rabbitmq, proxy, "out", queue="out")


@pytest.mark.integration
@pytest.mark.delivery_path("plain")
class TestRabbitMQSinkToAQuorumQueue(SinkContract):
    """The same; the sink declares the queue."""

    @pytest.fixture
    async def harness(self, rabbitmq: RabbitMQ, proxy: FaultProxy) -> SinkHarness:
        return RabbitMQSinkHarness(
            rabbitmq, proxy, "out", queue="out", declare="active", queue_arguments={"x-queue-type": "quorum"}
        )


@pytest.mark.integration
@pytest.mark.delivery_path("plain")
class TestRabbitMQSinkToAnExchange(SinkContract):
    """The same; the exchange leads to one queue by the keys of the messages."""

    @pytest.fixture
    async def harness(self, rabbitmq: RabbitMQ, proxy: FaultProxy) -> SinkHarness:
        exchange = await rabbitmq.channel.declare_exchange("results", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await rabbitmq.channel.declare_queue("out", durable=True)
        await queue.bind(exchange, routing_key="*")
        return RabbitMQSinkHarness(rabbitmq, proxy, "out", exchange="results")


@pytest.mark.integration
@pytest.mark.delivery_path("plain")
class TestRabbitMQPublisher(PublisherContract):
    """The contract for handlers."""

    @pytest.fixture
    async def harness(self, rabbitmq: RabbitMQ, proxy: FaultProxy) -> SinkHarness:
        await rabbitmq.declare("out")
        return RabbitMQSinkHarness(rabbitmq, proxy, "out", queue="out")
