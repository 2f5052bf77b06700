"""Queues and bindings: seen to on the consuming channel, at each connect, before anything is consumed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiormq import Channel
from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity

from broadway_py.producers.rabbitmq import troubles
from broadway_py.producers.rabbitmq.options import RabbitMQOptions

__all__ = ["Topology", "make_way_back"]


class Topology:
    """What *options* say of queues, on *channel* of the broker *where*."""

    def __init__(self, channel: Channel, options: RabbitMQOptions, where: str) -> None:
        self._channel = channel
        self._options = options
        self._where = where

    async def declare(self) -> list[str]:
        """Declare, or look for, the queues that are consumed, and bind them; their names, also of the nameless.

        Raises:
            AMQPError: the broker refused, or is away.
        """
        channel, options = self._channel, self._options
        names = list(options.queues)
        for position, queue in enumerate(options.queues):
            if options.declare == "active":
                wanted = options.declare_options
                declared = await channel.queue_declare(
                    queue,
                    durable=wanted.durable,
                    auto_delete=wanted.auto_delete,
                    exclusive=wanted.exclusive,
                    arguments=wanted.arguments,
                )
                names[position] = declared.queue or queue
            elif options.declare == "passive":
                await channel.queue_declare(queue, passive=True)
            for bound in options.bindings:
                if bound.queue in (None, queue):
                    await channel.queue_bind(
                        names[position], bound.exchange, bound.routing_key, arguments=bound.arguments
                    )
        return names

    async def declare_own(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """See that *queue*, in which we put failed messages, exists.

        Raises:
            ProducerError: the broker refused, with its words.
        """
        try:
            await self._channel.queue_declare(queue, durable=True, arguments=dict(arguments))
        except ChannelClosed as refused:
            raise troubles.of_own_queue(refused, queue, self._where) from refused

    async def look_at_own(self, queue: str) -> None:
        """As :meth:`declare_own`, but *queue* must be there."""
        try:
            await self._channel.queue_declare(queue, passive=True)
        except ChannelClosed as refused:
            raise troubles.of_own_queue(refused, queue, self._where) from refused


async def make_way_back(channels: Callable[[], Awaitable[Channel]], queue: str, exchange: str) -> bool:
    """See that messages return to *queue* by *exchange*, to which nobody can publish; True if that is new here.

    Args:
        channels: opens one; a refusal closes it, and nothing else is to suffer from that.
        queue: exists, and may belong to the connection of the channels.
        exchange: goes with the queue.

    Raises:
        ChannelClosed: the broker refused.
    """
    is_new = False
    channel = await channels()
    try:
        await channel.exchange_declare(exchange, passive=True)
    except ChannelNotFoundEntity:
        is_new = True
        channel = await channels()
    await channel.exchange_declare(exchange, exchange_type="direct", durable=True, auto_delete=True, internal=True)
    await channel.queue_bind(queue, exchange, queue)
    await channel.close()
    return is_new
