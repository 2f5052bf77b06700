"""The producer contract, on LocalStack's SQS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest

from broadway_py.producer_description import AnyProducer
from broadway_py.producers.sqs import SQSProducer
from broadway_py.testing.contract import FailureContract, FailureSource, ProducerContract
from tests.support.localstack import CREDENTIALS, REGION, SQS, Queue


class SQSSource(FailureSource):
    """A queue and its dead letter queue, filled and counted by a client of the test's own.

    A standard queue promises no order, but LocalStack keeps it as long as one receive runs at a time.
    """

    secret = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    forget = "ack"
    returns_within = 2.0

    def __init__(self, work: Queue, dead: Queue) -> None:
        self.work = work
        self.dead = dead

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await self.work.send(bodies)

    def producer(self) -> AnyProducer:
        return self.told("dead_letter")

    def told(self, on_failure: str | None) -> AnyProducer:
        said = {} if on_failure is None else {"on_failure": on_failure}
        return SQSProducer(
            self.work.url, REGION, wait_time_seconds=1, max_polls=1, dead_letter_queue=self.dead.url, **said
        )

    def elsewhere(self) -> Callable[[], AnyProducer]:
        return partial(SQSProducer, self.work.url, REGION, wait_time_seconds=1, max_polls=1, visibility_timeout=2)

    async def ready_count(self) -> int:
        return (await self.work.counts()).ready

    async def held_count(self) -> int:
        return (await self.work.counts()).held

    async def rejected_count(self) -> int:
        return (await self.dead.counts()).ready


@pytest.mark.integration
class TestSQSProducer(ProducerContract, FailureContract):
    """Every sentence of the contract."""

    @pytest.fixture
    async def source(self, sqs: SQS) -> FailureSource:
        return SQSSource(await sqs.queue("work"), await sqs.queue("dead"))
