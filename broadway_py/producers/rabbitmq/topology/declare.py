"""Declares or checks queues and bindings on the consuming channel, at each connect, before anything is consumed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, cast

from aiormq import Channel
from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity

from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection import publish_errors
from broadway_py.producers.rabbitmq.connection.connection import Connection
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.delivery_limits import LIMIT, declare_lifted, default_limit, may_be_lifted
from broadway_py.producers.rabbitmq.topology.partition_exchange import make_partitions

__all__ = ["Topology", "make_way_back"]

log = logger("broadway_py.producers.rabbitmq")


class Topology:
    """Declares or checks the queues of *options*, on *channel* of *connection*."""

    def __init__(self, connection: Connection, channel: Channel, options: RabbitMQOptions) -> None:
        self._connection = connection
        self._channel = channel
        self._options = options
        self._where = connection.where
        #: Queue -> the number of returns after which the broker drops a message, as far as we know. Queues without a
        #: limit are left out.
        self.limits: dict[str, int] = {}

    async def declare(self) -> list[str]:
        """Declares or checks the queues to consume, and binds them. Returns their names at the broker.

        Raises:
            AMQPError: the broker refused, or is not available.
        """
        channel, options = self._channel, self._options
        names = list(options.queues)
        if options.partitions is not None and options.declare == "active":
            await self._declare_partitions(names)
            return names
        for position, queue in enumerate(options.queues):
            if options.declare == "active":
                names[position] = await self._declare_and_note(queue)
            elif options.declare == "passive":
                await channel.queue_declare(queue, passive=True)
            if options.declare != "active":
                self._note_limit(names[position], default_limit(self._connection.version))
            for bound in options.bindings:
                if bound.queue in (None, queue):
                    await channel.queue_bind(
                        names[position], bound.exchange, bound.routing_key, arguments=bound.arguments
                    )
        return names

    async def _declare_partitions(self, consumed: Collection[str]) -> None:
        """Declares the queues of all partitions and the exchange that chooses one of them, and binds them.

        Each reader does this for all of them, not only for those *consumed* here: a key whose partition is not bound
        yet would go to another one.
        """
        options = self._options
        for queue in options.all_queues:
            if queue in consumed:
                await self._declare_and_note(queue)
            else:
                await self._declare(queue)
        await make_partitions(
            self._another_channel, options.source, options.all_queues, self._connection.version, self._where
        )

    async def _declare_and_note(self, queue: str) -> str:
        """Declares *queue* as the settings say, and notes its limit. Returns its name."""
        name, limit = await self._declare(queue)
        arguments = self._options.declare_arguments
        self._note_limit(name, limit, is_said=LIMIT in arguments)
        if limit is not None and may_be_lifted(queue, arguments, self._connection.version):
            log.warning(
                "the queue was declared with a delivery limit: messages that come back almost that often go to the "
                "dead letters; to remove the limit, delete the queue when it is empty, and the producer declares it",
                queue=name,
                limit=limit,
                broker=self._where,
            )
        return name

    async def _declare(self, queue: str) -> tuple[str, int | None]:
        """Declares *queue* as the settings say. Returns its name and its delivery limit."""
        wanted, name = self._options.declare_options, queue
        wanted_arguments = self._options.declare_arguments

        async def declare(arguments: Mapping[str, Any]) -> None:
            nonlocal name
            lifts = may_be_lifted(queue, wanted_arguments, self._connection.version)
            # The broker may refuse this, which closes the channel, but another try may follow.
            channel = await self._another_channel() if lifts else self._channel
            answer = await channel.queue_declare(
                queue,
                durable=wanted.durable,
                auto_delete=wanted.auto_delete,
                exclusive=wanted.exclusive,
                arguments=dict(arguments),
            )
            name = answer.queue or queue
            if lifts:
                await channel.close()

        limit = await declare_lifted(queue, wanted_arguments, self._connection.version, declare)
        return name, limit

    def _note_limit(self, queue: str, limit: int | None, *, is_said: bool = False) -> None:
        given = self._options.delivery_limit
        if given is not None:
            # We cannot read limits of policies and operators. Of a policy's limit and an argument, the smaller one
            # counts.
            limit = min(limit, given) if is_said and limit is not None else given
        if limit is not None:
            self.limits[queue] = limit

    async def _another_channel(self) -> Channel:
        channel = await self._connection.channel(publisher_confirms=False)
        return cast("Channel", await channel.get_underlay_channel())

    async def declare_own(self, queue: str, arguments: Mapping[str, Any]) -> None:
        """Makes sure that *queue*, for failed messages, exists.

        Raises:
            ProducerError: the broker refused, with its words.
        """

        async def declare(with_arguments: Mapping[str, Any]) -> None:
            lifts = may_be_lifted(queue, arguments, self._connection.version)
            channel = await self._another_channel() if lifts else self._channel
            await channel.queue_declare(queue, durable=True, arguments=dict(with_arguments))
            if lifts:
                await channel.close()

        try:
            await declare_lifted(queue, arguments, self._connection.version, declare)
        except ChannelClosed as refused:
            raise publish_errors.of_own_queue(refused, queue, self._where) from refused

    async def look_at_own(self, queue: str) -> None:
        """Works like :meth:`declare_own`, but *queue* must exist already."""
        try:
            await self._channel.queue_declare(queue, passive=True)
        except ChannelClosed as refused:
            raise publish_errors.of_own_queue(refused, queue, self._where) from refused


async def make_way_back(channels: Callable[[], Awaitable[Channel]], queue: str, exchange: str) -> bool:
    """Makes messages return to *queue* by *exchange*, to which nobody can publish. Returns True if the exchange is new.

    Args:
        channels: opens a channel; a refusal closes it, so nothing else may use it.
        queue: exists, and may belong to the connection of the channels.
        exchange: is deleted with the queue.

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
