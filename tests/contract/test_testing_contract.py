"""The producer contract, on the broker in memory that takes the place of real ones in users' tests."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.producer_description import AnyProducer
from broadway_py.producers.queue import QueueProducer
from broadway_py.testing.broker import Broker
from broadway_py.testing.broker_producer import BrokerProducer
from broadway_py.testing.contract import FailureContract, FailureSource, ProducerContract


class BrokerSource(FailureSource):
    """A queue of the broker, as it stands for an embedded queue."""

    forget = "drop"

    def __init__(self) -> None:
        self.broker = Broker(SYSTEM_CLOCK)
        self.broker.declare("queue", None)
        self.numbers = count(1)

    async def publish(self, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            self.broker.put("queue", body, {"message_id": str(next(self.numbers))}, key=None)

    def producer(self) -> AnyProducer:
        return self.told(None)

    def told(self, on_failure: str | None) -> AnyProducer:
        original = QueueProducer("never-opened.db", "contract", on_failure=on_failure)  # type: ignore[arg-type]  # text
        return BrokerProducer(self.broker, original)

    async def ready_count(self) -> int:
        return self.broker.counts("queue")["ready"]

    async def held_count(self) -> int:
        return self.broker.counts("queue")["held"]

    async def rejected_count(self) -> int:
        return len(self.broker.dead_letters)


class TestTestBroker(ProducerContract, FailureContract):
    """Every sentence but those about other processes."""

    @pytest.fixture
    async def source(self) -> FailureSource:
        return BrokerSource()
