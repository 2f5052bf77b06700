"""The settings of a RabbitMQ sink."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from broadway_py.conflict import Conflict
from broadway_py.producers.rabbitmq.settings.arguments import Arguments, ExchangeToPublishTo, Name, queue_name
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions

__all__ = ["RabbitMQSinkOptions"]


class RabbitMQSinkOptions(BrokerOptions):
    """All settings of a :class:`RabbitMQSink`. Give *queue* or *exchange*."""

    #: The queue to publish to.
    queue: Annotated[str, Field(min_length=1), AfterValidator(queue_name)] | None = None
    #: The exchange to publish to. It must exist, and lead to a queue: a message that reaches none is not confirmed.
    exchange: ExchangeToPublishTo | None = None
    #: The routing key of every message to the exchange. None: the key of the message.
    routing_key: Name | None = None
    #: ``passive`` expects that the queue exists, ``active`` creates it, durable, if it is missing.
    declare: Literal["passive", "active"] = "passive"
    #: Arguments for the broker with which ``declare: active`` creates the queue, such as ``x-queue-type: quorum``. If
    #: the queue exists already, they must match it.
    queue_arguments: Arguments = Field(default_factory=dict)

    def conflicts(self) -> Iterator[Conflict]:
        """Yields the settings that conflict."""
        yield from super().conflicts()
        both = frozenset({"queue", "exchange"})
        if self.queue is None and self.exchange is None:
            yield Conflict(("queue",), "required, but missing: give queue, or exchange", both)
        elif self.queue is not None and self.exchange is not None:
            yield Conflict(("exchange",), "give queue or exchange, not both", both)
        if self.routing_key is not None and self.exchange is None:
            yield Conflict(
                ("routing_key",),
                "this is for an exchange, but a queue is published to directly: give exchange, or leave it out",
                both | {"routing_key"},
            )
        if self.declare == "active" and self.exchange is not None:
            yield Conflict(
                ("declare",),
                "active creates a queue, but no exchange: create the exchange and its bindings, and leave declare out",
                both | {"declare"},
            )
        if self.queue_arguments and self.declare != "active":
            yield Conflict(
                ("queue_arguments",),
                f"used by declare: active only, but declare is {self.declare!r}: set declare: active, or remove them",
                frozenset({"queue_arguments", "declare"}),
            )
