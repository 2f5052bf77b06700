"""A pipeline as a user writes it, fully annotated; each ``type: ignore`` is a mistake that must be refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from broadway_py import (
    Acknowledgement,
    Acknowledger,
    Batcher,
    BatchInfo,
    Failed,
    Message,
    Pipeline,
    Processors,
    RateLimit,
    Settled,
    ack_immediately,
)
from broadway_py import run as run_pipeline
from broadway_py.producers import MemoryProducer, Producer


@dataclass
class Order:
    customer: str
    amount: int


class Orders(Pipeline[Order]):
    schema = Order
    processors = Processors(concurrency=4)

    async def setup(self) -> None:
        self.total = 0

    def partition_by(self, message: Message[Order]) -> str:
        return message.data.customer

    async def handle_message(self, message: Message[Order]) -> None:
        assert_type(message.data, Order)
        assert_type(message.status, Failed | None)
        message.data.amounts  # type: ignore[attr-defined]  # noqa: B018  # an order has no such field
        message.batcher = None
        message.fail("no stock")

    async def handle_batch(self, messages: list[Message[Order]], info: BatchInfo) -> list[Message[Order]]:
        assert_type(info.size, int)
        self.total += sum(message.data.amount for message in messages)
        return messages

    async def handle_failed(self, messages: list[Message[Order]]) -> None:
        await ack_immediately(messages)


class PlainOrders(Pipeline[bytes]):
    """Plain ``def`` callbacks are as good as async ones."""

    def handle_message(self, message: Message[bytes]) -> Message[bytes]:
        return message


class Shop(Acknowledger):
    async def ack(self, ref: object, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        raise NotImplementedError


class Tills(Producer):
    async def handle_demand(self, demand: int) -> Sequence[Message[Any]] | None:
        return [Message(b"", {"till": 1}, Acknowledgement(Shop()))][:demand]


async def use() -> None:
    orders = Orders(
        producer=[MemoryProducer([Order("a", 1)]), Tills()],
        batchers={"default": Batcher(batch_size=10), "large": Batcher(max_batch_bytes=1 << 20)},
        rate_limit=RateLimit(allowed_messages=10, interval=1.0),
    )
    async with orders:
        assert_type(orders.is_paused, bool)
        settled = await orders.submit_batch([Order("b", 2)])
        assert_type(settled, Settled)
        orders.request_stop()
    report = await orders.stop()
    assert_type(report.in_time, bool)


def main() -> int:
    return run_pipeline(PlainOrders(producer=MemoryProducer([b"a"])))
