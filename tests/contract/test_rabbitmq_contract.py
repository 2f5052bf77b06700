"""The producer contract, on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broadway_py.producer import Producer
from broadway_py.producers.rabbitmq import RabbitMQProducer
from tests.contract.producer_contract import Harness, ProducerContract
from tests.support.rabbitmq import RabbitMQ
from tests.support.rabbitmq_node import PASSWORD


class RabbitMQHarness(Harness):
    """One queue in a virtual host of the test's own; what is rejected goes to ``work.dead``."""

    secret = PASSWORD

    def __init__(self, broker: RabbitMQ) -> None:
        self.broker = broker

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await self.broker.publish(bodies)

    def producer(self) -> Producer:
        return RabbitMQProducer("work", self.broker.url)

    async def ready_count(self) -> int:
        return (await self.broker.counts()).ready

    async def held_count(self) -> int:
        return (await self.broker.counts()).unacked

    async def rejected_count(self) -> int:
        return (await self.broker.counts("work.dead")).ready


@pytest.mark.integration
class TestRabbitMQProducer(ProducerContract):
    """Every sentence of the contract."""

    @pytest.fixture
    async def harness(self, rabbitmq: RabbitMQ) -> Harness:
        await rabbitmq.declare_with_dead_letters()
        return RabbitMQHarness(rabbitmq)
