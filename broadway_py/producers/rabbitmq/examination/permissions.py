"""Asks what this user may do, by requests that have one impossible value each, so that nothing happens.

The broker looks at the permission first, and then at the value. So it answers ACCESS_REFUSED if the permission is
missing, and PRECONDITION_FAILED otherwise.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp.commands import Basic

__all__ = ["Channels", "try_to_bind", "try_to_consume", "try_to_declare", "try_to_publish"]

#: Opens a channel. A refusal closes it, so each request has one of its own.
Channels = Callable[[], Awaitable[Channel]]

#: A text where the broker expects a number.
_NO_NUMBER: Final = "permission-test"


async def try_to_declare(channels: Channels, queue: str, arguments: Mapping[str, Any]) -> None:
    """Raises ChannelAccessRefused if this user may not declare *queue* with *arguments*, whether or not it exists."""
    channel = await channels()
    await _refused(channel.queue_declare(queue, durable=True, arguments={**arguments, "x-message-ttl": _NO_NUMBER}))


async def try_to_consume(channels: Channels, queue: str) -> None:
    """Raises ChannelAccessRefused if this user may not consume *queue*, which exists."""
    channel = await channels()
    await _refused(channel.basic_consume(queue, _ignore, arguments={"x-priority": _NO_NUMBER}))
    await channel.close()


async def try_to_publish(channels: Channels, exchange: str, routing_key: str) -> None:
    """Raises ChannelAccessRefused if this user may not publish to *exchange*; "" is the default one.

    A broker that is out of memory or of disk space does not answer.

    Raises:
        ChannelNotFoundEntity: there is no such exchange.
    """
    channel = await channels()
    properties = Basic.Properties(expiration=_NO_NUMBER)
    await channel.basic_publish(b"", exchange=exchange, routing_key=routing_key, properties=properties, wait=False)
    # A publish has no answer of its own. The broker takes the requests of a channel one after the other.
    await _refused(channel.basic_qos(prefetch_count=1))


async def try_to_bind(channels: Channels, queue: str, exchange: str, routing_key: str) -> None:
    """Raises ChannelAccessRefused if this user may not bind *queue* to *exchange*, which both exist.

    It asks for the removal of a binding that nobody has made, which needs the same permissions.
    """
    channel = await channels()
    await channel.queue_unbind(queue, exchange, routing_key, arguments={_NO_NUMBER: uuid.uuid4().hex})
    await channel.close()


async def _refused(request: Awaitable[object]) -> None:
    try:
        await request
    except ChannelPreconditionFailed:
        return


async def _ignore(_message: DeliveredMessage) -> None:
    """Nothing is delivered: the broker refuses the consumer."""
