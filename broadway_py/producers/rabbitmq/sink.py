"""Publishes to a queue or an exchange of RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any

from aiormq.exceptions import ChannelClosed
from pamqp.commands import Basic

from broadway_py.clock import Clock
from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.examination import Finding
from broadway_py.producers.publishing import ConnectingSink, SinkConnection, Unconfirmed
from broadway_py.producers.rabbitmq.connection import errors, publish_errors
from broadway_py.producers.rabbitmq.connection.connection import Connection, connect
from broadway_py.producers.rabbitmq.connection.log_filter import hush
from broadway_py.producers.rabbitmq.examination.target import examine_target
from broadway_py.producers.rabbitmq.retries.letters import Letter, Unfit
from broadway_py.producers.rabbitmq.retries.publisher import NoQueue, NotTaken, Publisher
from broadway_py.producers.rabbitmq.routing_key import routing_key_of
from broadway_py.producers.rabbitmq.settings.sink_options import RabbitMQSinkOptions
from broadway_py.producers.rabbitmq.topology.delivery_limits import declare_lifted
from broadway_py.publisher import Outgoing
from broadway_py.trace_place import TracePlace

__all__ = ["RabbitMQPublisher", "RabbitMQSink"]


class RabbitMQPublisher(ConnectingSink):
    """Publishes to one queue, or to one exchange.

    ::

        publishers = {"out": RabbitMQPublisher("amqp://guest:guest@127.0.0.1/", queue="invoices")}

    ``emit_to`` of an aggregator takes one, too.

    A message is confirmed when the broker has it safe in every queue that it leads to. One that leads to no queue, or
    that a full queue refuses, is not confirmed, and the error says so. Messages survive a restart of the broker, if the
    queue is durable. The id of a message becomes its ``message_id``.

    Args:
        url: the address of the broker, or a list of addresses; default ``amqp://guest:guest@127.0.0.1/``.
        queue: the queue to publish to.
        exchange: the exchange to publish to, instead of a queue.
        settings: any other field of :class:`RabbitMQSinkOptions`.

    Raises:
        OptionsError: a setting is wrong or unknown.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        queue: str | None = None,
        exchange: str | None = None,
        **settings: Any,
    ) -> None:
        given = {"url": url, "queue": queue, "exchange": exchange}
        settings.update((name, value) for name, value in given.items() if value is not None)
        self.options = RabbitMQSinkOptions(**settings)

    @property
    def place(self) -> str:
        """Returns the queue or exchange, and the broker's address without credentials."""
        options = self.options
        named = f"queue {options.queue!r}" if options.exchange is None else f"exchange {options.exchange!r}"
        return f"{named} on {options.where}"

    @property
    def trace_place(self) -> TracePlace:
        """Returns the queue or exchange."""
        return TracePlace("rabbitmq", self.options.queue if self.options.exchange is None else self.options.exchange)

    def connection(self, name: str, clock: Clock) -> SinkConnection:
        """Returns a connection that only publishes. *name* is its name at the broker, unless the settings have one."""
        return _RabbitMQConnection(self.options, self.options.connection_name or name, clock)

    def examine(self, *, timeout: float) -> AsyncGenerator[Finding, None]:
        """Yields what the brokers, the queue or exchange and the permissions of this user are like."""
        return examine_target(self.options.model_copy(update={"connect_timeout": timeout}))


#: The name of it as a sink of an aggregator.
RabbitMQSink = RabbitMQPublisher


class _RabbitMQConnection(SinkConnection):
    def __init__(self, options: RabbitMQSinkOptions, name: str, clock: Clock) -> None:
        hush()
        self._options = options
        self._name = name
        self._publisher = Publisher(options, name, clock)
        #: Whether the queue is declared, as far as we know. False: it must be declared before the next message.
        self._is_declared = options.declare == "passive"

    async def open(self) -> None:
        """Connects, and checks that the queue or exchange exists, or declares the queue.

        Raises:
            ProducerError: the broker is not available, or refuses us; or there is no such queue or exchange.
        """
        await self._prepare()

    async def send(self, unconfirmed: Unconfirmed) -> None:
        """Publishes what waits, all at the same time.

        Raises:
            ProducerError: the broker is not available, or refuses us; or the queue cannot be declared.
        """
        if not self._is_declared:
            await self._prepare()
        positions = list(unconfirmed.waiting)
        letters = [self._letter(message, unconfirmed.name(at)) for at, message in unconfirmed.waiting.items()]
        reasons = await self._publisher.publish(
            letters, lambda at, reason: self._note(unconfirmed, positions[at], reason)
        )
        away = next((reason for reason in reasons if reason is not None and _is_of_place(reason)), None)
        if away is not None:
            raise away

    def _note(self, unconfirmed: Unconfirmed, position: int, reason: ProducerError | None) -> None:
        match reason:
            case None:
                unconfirmed.confirm(position)
            case Unfit():
                unconfirmed.refuse(position, str(reason))
            case NoQueue() if self._options.declare == "active":
                # Somebody has deleted it. It is declared again before the next try.
                self._is_declared = False
                unconfirmed.fail(str(reason))
            case NoQueue() if self._options.queue is None and self._options.routing_key is None:
                # The next message may have another routing key.
                unconfirmed.refuse(position, str(reason))
            case NoQueue():
                unconfirmed.fail(str(reason), lasting=True)
            case NotTaken():
                unconfirmed.fail(str(reason), position=position)
            case _:
                unconfirmed.fail(str(reason), lasting=isinstance(reason, SourceRefused))

    def _letter(self, message: Outgoing, name: str) -> Letter:
        options = self._options
        # A mode of 2: the broker keeps it on the disk.
        properties = Basic.Properties(
            content_type=message.content_type,
            headers=dict(message.all_headers),
            delivery_mode=2,
            message_id=name,
        )
        if options.exchange is None:
            return Letter(options.queue or "", message.data, properties)
        key = routing_key_of(message.key) if options.routing_key is None else options.routing_key
        return Letter(key, message.data, properties, options.exchange)

    async def _prepare(self) -> None:
        """Looks for the queue or exchange, or declares the queue, on a connection of its own.

        On the publishing connection it might wait for an alarm of the broker to end.
        """
        options = self._options
        connection = await connect(options, self._name)
        try:
            with errors.translated(lambda error: errors.of_connect(error, options, connection.where)):
                async with asyncio.timeout(options.connect_timeout):
                    await self._look(connection)
        except TimeoutError as error:
            raise errors.of_connect(error, options, connection.where) from None
        finally:
            await connection.end()
        self._is_declared = True

    async def _look(self, connection: Connection) -> None:
        options = self._options
        place = f"exchange {options.exchange!r}" if options.queue is None else f"queue {options.queue!r}"
        try:
            if options.queue is None:
                await (await connection.channel()).get_exchange(options.exchange or "")
            elif options.declare == "passive":
                await (await connection.channel()).get_queue(options.queue)
            else:
                declare = partial(_declare, connection, options.queue)
                await declare_lifted(options.queue, options.queue_arguments, connection.version, declare)
        except ChannelClosed as refused:
            raise publish_errors.of_sink(refused, place, connection.where) from refused

    async def close(self) -> None:
        """Closes the connection, and gives up what is being sent."""
        await self._publisher.close()


def _is_of_place(reason: ProducerError) -> bool:
    """Returns whether *reason* is about the broker, and not about one message."""
    return not isinstance(reason, NoQueue | NotTaken | Unfit)


async def _declare(connection: Connection, queue: str, arguments: Mapping[str, Any]) -> None:
    # A channel of its own: a refusal closes it.
    channel = await connection.channel()
    await channel.declare_queue(queue, durable=True, arguments=dict(arguments))
