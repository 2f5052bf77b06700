"""The sink contract, on LocalStack's SQS: a standard queue, and a FIFO queue."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broadway_py import SQSSink
from broadway_py.publisher import Sink
from tests.contract.publisher_contract import PublisherContract
from tests.contract.sink_contract import Arrived, SinkContract, SinkHarness, messages
from tests.support.localstack import CREDENTIALS, REGION, SQS, Queue
from tests.support.sqs_proxy import SQSProxy


class SQSSinkHarness(SinkHarness):
    """A queue, with a proxy in front of it.

    Args:
        queue: where the messages arrive.
        proxy: how the sink gets there.
    """

    secret = CREDENTIALS["AWS_SECRET_ACCESS_KEY"]
    many = 300
    unfit = b"\xff"

    def __init__(self, queue: Queue, proxy: SQSProxy) -> None:
        self.queue = queue
        self.proxy = proxy
        self.keeps_order = queue.url.endswith(".fifo")

    def sink(self) -> Sink:
        return SQSSink(self.queue.url, REGION, self.proxy.endpoint)

    async def count(self) -> int:
        return (await self.queue.counts()).ready

    async def take(self) -> list[Arrived]:
        taken: list[Arrived] = []
        while came := await self.queue.take():
            for message in came:
                taken.append((message["Body"].encode(), message["MessageAttributes"]["message_id"]["StringValue"]))
                await self.queue.client.delete_message(QueueUrl=self.queue.url, ReceiptHandle=message["ReceiptHandle"])
        return taken

    async def kill(self) -> None:
        await self.go_away()
        await self.come_back()

    async def go_away(self) -> None:
        await self.proxy.refuse()

    async def come_back(self) -> None:
        await self.proxy.accept()


@pytest.fixture
async def proxy(sqs: SQS) -> AsyncIterator[SQSProxy]:
    async with SQSProxy(sqs.endpoint) as proxy:
        yield proxy


@pytest.mark.integration
class TestSQSSink(SinkContract):
    """Every sentence of the contract."""

    @pytest.fixture
    async def harness(self, sqs: SQS, proxy: SQSProxy) -> SinkHarness:
        return SQSSinkHarness(await sqs.queue("out"), proxy)


@pytest.mark.integration
class TestSQSSinkToAFIFOQueue(SinkContract):
    """The same, on a queue that keeps the order of each key."""

    @pytest.fixture
    async def harness(self, sqs: SQS, proxy: SQSProxy) -> SinkHarness:
        return SQSSinkHarness(await sqs.queue("out", fifo=True), proxy)

    async def test_what_was_sent_twice_arrives_once(self, harness: SinkHarness) -> None:
        """The answer is lost after SQS has stored the messages, so the sink sends them again."""
        sent = messages(3)
        assert isinstance(harness, SQSSinkHarness)
        harness.proxy.cut("SendMessage", after=True)
        publisher = harness.sink().create("shop.revenue")
        await publisher.publish(sent, timeout=20.0)
        await publisher.close()

        assert len(harness.proxy.requests("SendMessage")) == 2
        assert [name for _, name in await harness.take()] == [message.message_id for message in sent]


@pytest.mark.integration
class TestSQSPublisher(PublisherContract):
    """The contract for handlers."""

    @pytest.fixture
    async def harness(self, sqs: SQS, proxy: SQSProxy) -> SinkHarness:
        return SQSSinkHarness(await sqs.queue("out"), proxy)


@pytest.mark.integration
class TestSQSPublisherToAFIFOQueue(PublisherContract):
    """The same, on a queue that keeps the order of each key."""

    @pytest.fixture
    async def harness(self, sqs: SQS, proxy: SQSProxy) -> SinkHarness:
        return SQSSinkHarness(await sqs.queue("out", fifo=True), proxy)
