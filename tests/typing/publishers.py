"""Publishers as a user writes them, fully annotated; each ``type: ignore`` is a mistake that must be refused."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, assert_type

from broadway_py import (
    BatchInfo,
    MemoryPublisher,
    Message,
    Pipeline,
    PublishError,
    QueuePublisher,
    QueueSink,
    RabbitMQPublisher,
    RabbitMQSink,
    SQSPublisher,
    SQSSink,
)
from broadway_py.producers import MemoryProducer
from broadway_py.publisher import Outgoing, Sink


@dataclass
class Order:
    number: int
    country: str


class Billing(Pipeline[Order]):
    publishers = {  # noqa: RUF012  # an option
        "out": RabbitMQPublisher("amqp://guest:guest@127.0.0.1/", queue="invoices"),
        "audit": QueuePublisher("var/audit.db", "audit"),
    }

    async def handle_message(self, message: Message[Order]) -> None:
        out = self.publishers["out"]
        assert_type(await out.publish(message), None)
        call: Coroutine[Any, Any, None] = out.publish(b"1", key="DE", timeout=5)
        await call
        await out.publish({"a": 1}, message_id="x", headers={"x": "y"}, timeout=timedelta(seconds=5))
        await out.publish(message, keys="DE")  # type: ignore[call-arg]  # there is no such argument
        await out.publish(message, key=1)  # type: ignore[arg-type]  # a key is text

    async def handle_batch(self, messages: list[Message[Order]], info: BatchInfo) -> None:
        try:
            await self.publishers["audit"].publish_many(
                messages, key=lambda message: message.data.country, message_id=lambda message: str(message.data.number)
            )
        except PublishError as error:
            assert_type(error.unpublished, list[Any])
        await self.publishers["audit"].publish_many(
            messages,
            key=lambda message: message.data.land,  # type: ignore[attr-defined]  # an order has no such field
        )


assert_type(Billing.publishers["out"], Sink)
memory = MemoryPublisher()
Billing(producer=MemoryProducer([Order(1, "DE")]), publishers={"out": memory, "audit": memory})
assert_type(memory.messages, list[Outgoing])
sinks: list[Sink] = [SQSSink("q"), RabbitMQSink(queue="q"), QueueSink("a.db", "q"), SQSPublisher("q")]
