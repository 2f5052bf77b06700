"""The producer contract, on a real RabbitMQ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from broadway_py.producer_description import AnyProducer
from broadway_py.producers.rabbitmq import RabbitMQProducer
from broadway_py.testing.contract import FailureContract, FailureSource, ProducerContract
from tests.support.certificates import Authority
from tests.support.rabbitmq import RabbitMQ


class RabbitMQSource(FailureSource):
    """One queue in a virtual host of the test's own; what is rejected goes to ``work.dead``.

    Args:
        broker: where it is.
        url: how the producer gets there; None: without TLS.
    """

    forget = "ack"

    def __init__(self, broker: RabbitMQ, url: str | None = None) -> None:
        self.broker = broker
        self.url = url or broker.url
        self.secret = broker.secret

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await self.broker.publish(bodies)

    def producer(self) -> AnyProducer:
        return self.told(None)

    def told(self, on_failure: str | None) -> AnyProducer:
        said = {} if on_failure is None else {"on_failure": on_failure}
        return RabbitMQProducer("work", self.url, **said)

    def elsewhere(self) -> Callable[[], AnyProducer]:
        return partial(RabbitMQProducer, "work", self.url)

    async def ready_count(self) -> int:
        return (await self.broker.counts()).ready

    async def held_count(self) -> int:
        return (await self.broker.counts()).unacked

    async def rejected_count(self) -> int:
        return (await self.broker.counts("work.dead")).ready


@pytest.mark.integration
class TestRabbitMQProducer(ProducerContract, FailureContract):
    """Every sentence of the contract."""

    @pytest.fixture
    async def source(self, rabbitmq: RabbitMQ) -> FailureSource:
        await rabbitmq.declare_with_dead_letters()
        return RabbitMQSource(rabbitmq)


@pytest.mark.integration
class TestRabbitMQProducerOverTLS(ProducerContract, FailureContract):
    """The same, over a connection that nobody can listen to."""

    @pytest.fixture
    async def source(self, rabbitmq: RabbitMQ, tmp_path: Path) -> AsyncIterator[FailureSource]:
        if rabbitmq.node is None:
            pytest.skip("this test makes a port for TLS: unset BROADWAY_TEST_AMQP_URL, so that we start our own broker")
        await rabbitmq.declare_with_dead_letters()
        authority = Authority(tmp_path)
        broker = authority.issue("broker")
        with rabbitmq.node.tls_listener(broker.certificate, broker.key) as port:
            url = rabbitmq.through(port).replace("amqp:", "amqps:")
            yield RabbitMQSource(rabbitmq, f"{url}?cafile={authority.file}")
