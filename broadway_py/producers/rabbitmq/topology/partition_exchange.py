"""The exchange of a source with partitions: it chooses a queue by the hash of the routing key.

Its type is ``x-modulus-hash``. For a key it always chooses the same queue, because it orders the bound queues by their
names. The type ``x-consistent-hash`` orders them as they were bound, and a broker older than RabbitMQ 4.3 binds them in
a new order when it restarts: most keys then go to another queue.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiormq import Channel
from aiormq.exceptions import ChannelPreconditionFailed, ConnectionClosed

from broadway_py.errors import ProducerError
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection.errors import words_of

__all__ = ["make_partitions"]

log = logger("broadway_py.producers.rabbitmq")

_BY_NAME: Final = "x-modulus-hash"
#: The broker's words if it has no such type. A plug-in that was switched off leaves an invalid one.
_NO_SUCH_TYPE: Final = re.compile("(unknown|invalid) exchange type")
#: The broker's words if the exchange orders its queues as they were bound.
_IS_AS_BOUND: Final = re.compile("current is '*x-consistent-hash'")
#: From this version on the broker keeps the order in which queues were bound.
_KEEPS_ORDER: Final = (4, 3)


async def make_partitions(
    channels: Callable[[], Awaitable[Channel]],
    exchange: str,
    queues: Sequence[str],
    version: tuple[int, ...],
    where: str,
) -> None:
    """Makes *exchange*, and binds *queues*, which exist, to it. What exists already stays as it is.

    Args:
        channels: opens a channel; a refusal closes it, so nothing else may use it.
        exchange: its name.
        queues: the queues of all partitions.
        version: of the broker.
        where: its address.

    Raises:
        ProducerError: the broker has no such type of exchange, or the exchange has another type.
        AMQPError: the broker refused, or is not available.
    """
    channel = await channels()
    try:
        await channel.exchange_declare(exchange, exchange_type=_BY_NAME, durable=True)
    except (ConnectionClosed, ChannelPreconditionFailed) as refused:
        said = words_of(refused)
        if _NO_SUCH_TYPE.search(said):
            raise ProducerError(
                f"RabbitMQ at {where} has no exchanges of type {_BY_NAME}, which partitions need: run rabbitmq-plugins "
                "enable rabbitmq_sharding on each node, or use RabbitMQ 4.3 or newer, which has it built in"
            ) from refused
        if isinstance(refused, ConnectionClosed):
            raise
        if not _IS_AS_BOUND.search(said):
            raise ProducerError(
                f"exchange {exchange!r} on {where} does not divide messages into partitions: {said}; delete it, or "
                "give queue another name"
            ) from refused
        if version < _KEEPS_ORDER:
            log.warning(
                "when this broker restarts, keys move to other partitions, because the exchange has the type "
                "x-consistent-hash: stop the publishers, let the partitions become empty, delete the exchange, and the "
                "producer makes one that keeps them in place",
                exchange=exchange,
                broker=where,
            )
        channel = await channels()
    *others, last = queues
    for queue in others:
        # Only the last answer is awaited, which makes the time short in which some queues are not bound yet: until then
        # keys go to wrong partitions. The type ignores the binding key; for x-consistent-hash it is a weight.
        await channel.queue_bind(queue, exchange, "1", nowait=True)
    await channel.queue_bind(last, exchange, "1")
    await channel.close()
