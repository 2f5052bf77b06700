"""Looks at queues and exchanges: whether they exist, fit the settings, and may be used by this user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from aiormq.exceptions import ChannelNotFoundEntity

from broadway_py.examination import counted
from broadway_py.producers.rabbitmq.examination.brokers import Brokers
from broadway_py.producers.rabbitmq.settings.queue_options import DeclareOptions
from broadway_py.producers.rabbitmq.topology.delivery_limits import declare_lifted

__all__ = ["Depth", "declare_as_it_is", "depth", "look_for_exchange"]


class Depth(NamedTuple):
    """How full a queue is."""

    ready: int
    consumers: int

    def __str__(self) -> str:
        """Returns ``12 messages ready, 1 consumer``."""
        return f"{counted(self.ready, 'message')} ready, {counted(self.consumers, 'consumer')}"


async def depth(brokers: Brokers, queue: str) -> Depth | None:
    """Returns how full *queue* is; None: it does not exist.

    Raises:
        ChannelClosed: the queue cannot be looked at, as it belongs to another connection.
    """
    channel = await brokers.channel()
    try:
        found = await channel.queue_declare(queue, passive=True)
    except ChannelNotFoundEntity:
        return None
    await channel.close()
    return Depth(found.message_count or 0, found.consumer_count or 0)


async def declare_as_it_is(
    brokers: Brokers, queue: str, wanted: DeclareOptions, arguments: Mapping[str, Any]
) -> int | None:
    """Compares *queue*, which exists, with what the settings would declare. Returns its delivery limit, if it has one.

    Declaring a queue that exists changes nothing.

    Raises:
        ChannelPreconditionFailed: it differs.
        ChannelAccessRefused: this user may not declare it.
    """

    async def declare(with_arguments: Mapping[str, Any]) -> None:
        channel = await brokers.channel()
        await channel.queue_declare(
            queue, durable=wanted.durable, auto_delete=wanted.auto_delete, arguments=dict(with_arguments)
        )
        await channel.close()

    return await declare_lifted(queue, arguments, brokers.version, declare)


async def look_for_exchange(brokers: Brokers, exchange: str) -> None:
    """Raises ChannelNotFoundEntity if there is no such exchange."""
    channel = await brokers.channel()
    await channel.exchange_declare(exchange, passive=True)
    await channel.close()
