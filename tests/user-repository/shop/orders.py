"""Checks each order, stores invoices and parcels in batches, and publishes that they are accepted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, PositiveInt

from broadway_py import (
    Batcher,
    BatchInfo,
    FailurePolicy,
    Message,
    Pipeline,
    Processors,
    QueuePublisher,
    Reject,
    Unavailable,
)


class Order(BaseModel):
    """What the web shop puts into the queue."""

    number: PositiveInt
    customer: str
    amount: PositiveInt
    delivery: Literal["download", "parcel"] = "parcel"


class Bank(Protocol):
    """Says whether a customer can pay."""

    async def may_buy(self, customer: str, amount: int) -> bool: ...


class Store(Protocol):
    """Keeps invoices and parcels. Storing an order again changes nothing."""

    async def store(self, table: str, orders: Sequence[Order]) -> None: ...


class Services:
    """What the pipeline works with. It is given as ``context``."""

    def __init__(self, bank: Bank, store: Store) -> None:
        self.bank = bank
        self.store = store


class Orders(Pipeline[Order]):
    """Messages with downloads go to the invoices, the others to the parcels."""

    schema = Order
    processors = Processors(concurrency=4, timeout=10)
    batchers = {  # noqa: RUF012  # an option
        "invoices": Batcher(batch_size=100, batch_timeout=1),
        "parcels": Batcher(batch_size=3, batch_timeout=60),
    }
    failure = FailurePolicy(attempts=4, backoff=(1, 60))
    publishers = {"accepted": QueuePublisher("var/shop.db", "accepted")}  # noqa: RUF012  # an option
    deduplicate_by = "id"
    state = "var/orders.db"
    context: Services

    async def handle_message(self, message: Message[Order]) -> None:
        """Ask the bank."""
        order = message.data
        try:
            may_buy = await self.context.bank.may_buy(order.customer, order.amount)
        except ConnectionError as error:
            raise Unavailable("the bank does not answer") from error
        if not may_buy:
            raise Reject("the customer cannot pay")
        message.batcher = "invoices" if order.delivery == "download" else "parcels"

    async def handle_batch(self, messages: list[Message[Order]], info: BatchInfo) -> None:
        """Store the whole batch, then tell others."""
        orders = [message.data for message in messages]
        await self.context.store.store(info.batcher, orders)
        await self.publishers["accepted"].publish_many(
            orders, message_id=lambda order: f"accepted-{order.number}", key=lambda order: order.customer
        )
