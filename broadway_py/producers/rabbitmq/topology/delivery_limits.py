"""The delivery limit of quorum queues, and how messages stay below it.

A quorum queue counts the deliveries that came back: those that were rejected, those that a lost connection held, and
before RabbitMQ 4.3 also those that were given back. Beyond the limit it drops the message, or dead-letters it if it has
a dead-letter exchange. From 4.0 on the limit is 20 unless another one is set.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aiormq.exceptions import ChannelPreconditionFailed

from broadway_py.producers.rabbitmq.topology.delay_queues import is_delay_queue

__all__ = [
    "COUNTER",
    "DEFAULT_LIMIT",
    "LIMIT",
    "count_in",
    "declare_lifted",
    "default_limit",
    "is_near",
    "limit_in",
    "may_be_lifted",
    "times_returned",
]

#: The header in which the broker counts how often a message came back, as bytes on the wire.
COUNTER: Final = b"x-delivery-count"
#: The argument of a queue that sets its limit.
LIMIT: Final = "x-delivery-limit"
#: The default limit of RabbitMQ 4.x.
DEFAULT_LIMIT: Final = 20
_SINCE: Final = (4,)
_NONE: Final = -1
#: How many returns are kept in reserve. If connections die often, a message that is being moved comes back some times
#: before its ack gets through.
_RESERVE: Final = 5
#: Finds the argument that a queue has in the broker's words: "current is the value '5' of type 'byte'", "current is
#: '5'".
_THERE: Final = re.compile(r"inequivalent arg 'x-delivery-limit' .*current is (?:the value )?(?:none|'(-?\d+)')")


def default_limit(version: tuple[int, ...]) -> int | None:
    """Returns the limit of a queue without a limit of its own, on a broker of *version*; None: there is none."""
    return DEFAULT_LIMIT if version >= _SINCE else None


def may_be_lifted(queue: str, arguments: Mapping[str, Any], version: tuple[int, ...]) -> bool:
    """Returns whether *queue*, which we declare with *arguments*, would have a limit that nobody has asked for."""
    # Messages in a delay queue are never delivered, so its limit does not matter.
    is_quorum = arguments.get("x-queue-type") == "quorum"
    return version >= _SINCE and is_quorum and LIMIT not in arguments and not is_delay_queue(queue)


async def declare_lifted(
    queue: str,
    arguments: Mapping[str, Any],
    version: tuple[int, ...],
    declare: Callable[[Mapping[str, Any]], Awaitable[object]],
) -> int | None:
    """Calls *declare* for *queue* with *arguments*, without a limit if the queue is new. Returns the limit that it has.

    Args:
        queue: its name.
        arguments: the wanted arguments.
        version: of the broker.
        declare: declares it with the arguments that it is given, on a channel that is not used for anything else.

    Raises:
        ChannelPreconditionFailed: the queue exists, and other arguments than the limit differ.
    """
    if not may_be_lifted(queue, arguments, version):
        await declare(arguments)
        return limit_in(arguments, version)
    try:
        await declare({**arguments, LIMIT: _NONE})
    except ChannelPreconditionFailed as refused:
        found = _THERE.search(" ".join(map(str, refused.args)))
        if found is None:
            raise
    else:
        return None
    # The queue exists, and its limit stays. The broker has not compared the other arguments yet.
    there = dict(arguments) if found[1] is None else {**arguments, LIMIT: int(found[1])}
    await declare(there)
    return limit_in(there, version)


def limit_in(arguments: Mapping[str, Any], version: tuple[int, ...]) -> int | None:
    """Returns the limit of a queue with *arguments*; None: there is none.

    A queue without a type may be a quorum queue, so the broker's default limit is assumed.
    """
    if arguments.get("x-queue-type", "quorum") != "quorum":
        return None
    given = arguments.get(LIMIT, default_limit(version))
    return given if isinstance(given, int) and given >= 0 else None


def times_returned(headers: Mapping[str, object], *, redelivered: bool) -> int | None:
    """Returns how often a delivery with *headers* came back, as the limit counts; None: its queue does not count.

    A publisher may have written the header. The broker replaces it as soon as it counts.
    """
    count = count_in(headers.get(COUNTER.decode()))
    if not redelivered:
        return None if count is None else 0
    acquired = count_in(headers.get("x-acquired-count"))
    if acquired is None:
        return count
    # RabbitMQ 4.3: this header counts every delivery, and only some of them count for the limit.
    return count if count is not None and count <= acquired else 0


#: A header may hold any number, but ours must fit into a header again.
_MOST: Final = 2**31 - 1


def count_in(value: object) -> int | None:
    """Returns *value* if it is a count, cut to the most that fits; None: it is none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return min(value, _MOST)


def is_near(returned: int | None, limit: int) -> bool:
    """Returns whether a message that came back so often must leave a queue with *limit* now."""
    return returned is not None and returned >= max(1, limit - min(_RESERVE, limit // 4))
