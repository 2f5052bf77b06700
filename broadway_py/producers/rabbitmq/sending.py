"""Sends bodies to a queue, for ``broadway send``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from aiormq import Channel
from pamqp.commands import Basic

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import ProducerError, PublishError
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.connection.connection import connect
from broadway_py.producers.rabbitmq.retries.letters import Letter
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.routing_key import routing_key_of
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.declare import Topology
from broadway_py.publisher import Outgoing

__all__ = ["sending"]

_NAME: Final = "broadway send"


@asynccontextmanager
async def sending(options: RabbitMQOptions) -> AsyncIterator[Callable[[Sequence[Outgoing]], Coroutine[Any, Any, None]]]:
    """Yields a function: ``await put(messages)`` returns after the broker has confirmed all messages.

    The messages go to the first of the queues; with ``partitions`` to the exchange, by their keys. With ``declare:
    active`` the queues and their bindings are declared first, as a pipeline does.

    Args:
        options: where the broker is; the queue has a name.

    Raises:
        ProducerError: the broker is not available, refuses, or has no such queue.
        PublishError: it has not confirmed some of the messages. All others are confirmed.
    """
    exchange, queue = (options.source, None) if options.partitions is not None else ("", options.queues[0])
    # An exclusive queue belongs to the connection that declares it, and would be deleted with ours.
    if options.declare == "active" and not options.declare_options.exclusive:
        await _declare(options)
    publisher = Publisher(options, _NAME, SYSTEM_CLOCK)

    async def put(messages: Sequence[Outgoing]) -> None:
        letters = [
            Letter(queue or routing_key_of(one.key), one.data, Basic.Properties(delivery_mode=2), exchange)
            for one in messages
        ]
        reasons = await publisher.publish(letters)
        failed = {at: reason for at, reason in enumerate(reasons) if reason is not None}
        if not failed:
            return
        first = next(iter(failed.values()))
        if len(failed) == len(messages) and len(set(map(str, failed.values()))) == 1:
            raise first  # it is no matter of single messages
        raise PublishError(str(first), unpublished=[messages[at] for at in failed])

    try:
        yield put
    finally:
        await publisher.close()


async def _declare(options: RabbitMQOptions) -> None:
    connection = await connect(options, _NAME)
    try:
        with errors.translated(lambda error: errors.of_open(error, options, connection.where)):
            async with asyncio.timeout(options.connect_timeout):
                channel = await connection.channel(publisher_confirms=False)
                underlay = cast("Channel", await channel.get_underlay_channel())
                await Topology(connection, underlay, options).declare()
    except TimeoutError as error:
        raise ProducerError(str(errors.of_open(error, options, connection.where))) from None
    finally:
        await connection.end()
