"""How often a quorum queue hands out one message before it drops it, and how to stay below that.

A quorum queue counts the deliveries that came back: what was rejected, what a lost connection had in hand, and before
RabbitMQ 4.3 also what was given back. Beyond its limit it drops the message, or dead-letters it where it has an
exchange for that. From 4.0 on the limit is 20 where nobody has said another one.
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

#: The header in which the broker says how often a message came back, as it stands on the wire.
COUNTER: Final = b"x-delivery-count"
#: The argument of a queue.
LIMIT: Final = "x-delivery-limit"
#: Of RabbitMQ 4.x.
DEFAULT_LIMIT: Final = 20
_SINCE: Final = (4,)
_NONE: Final = -1
#: Returns that are kept in reserve: where connections die often, what is put away comes back some times before the ack
#: gets through.
_RESERVE: Final = 5
#: The broker's words for the argument that a queue has: "current is the value '5' of type 'byte'", "current is '5'".
_THERE: Final = re.compile(r"inequivalent arg 'x-delivery-limit' .*current is (?:the value )?(?:none|'(-?\d+)')")


def default_limit(version: tuple[int, ...]) -> int | None:
    """That of a queue of whose limit nobody has said anything, on a broker of *version*; None: there is none."""
    return DEFAULT_LIMIT if version >= _SINCE else None


def may_be_lifted(queue: str, arguments: Mapping[str, Any], version: tuple[int, ...]) -> bool:
    """Whether *queue*, which is ours to declare with *arguments*, would have a limit that nobody has asked for."""
    # What waits in a delay queue is never delivered.
    is_quorum = arguments.get("x-queue-type") == "quorum"
    return version >= _SINCE and is_quorum and LIMIT not in arguments and not is_delay_queue(queue)


async def declare_lifted(
    queue: str,
    arguments: Mapping[str, Any],
    version: tuple[int, ...],
    declare: Callable[[Mapping[str, Any]], Awaitable[object]],
) -> int | None:
    """Have *declare* make *queue* with *arguments*, without a limit if it is a new one; the limit that it has.

    Args:
        queue: its name.
        arguments: what was asked for.
        version: of the broker.
        declare: declares it with the arguments it is given, on a channel that is not used for anything else.

    Raises:
        ChannelPreconditionFailed: there is one with other arguments, the limit apart.
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
    # It is as somebody has made it, and stays so. What else it is has not been compared yet.
    there = dict(arguments) if found[1] is None else {**arguments, LIMIT: int(found[1])}
    await declare(there)
    return limit_in(there, version)


def limit_in(arguments: Mapping[str, Any], version: tuple[int, ...]) -> int | None:
    """That of a queue with *arguments*; of one without, in case it is a quorum queue all the same, the broker's own."""
    if arguments.get("x-queue-type", "quorum") != "quorum":
        return None
    given = arguments.get(LIMIT, default_limit(version))
    return given if isinstance(given, int) and given >= 0 else None


def times_returned(headers: Mapping[str, object], *, redelivered: bool) -> int | None:
    """How often a delivery with *headers* came back, as the broker's limit counts; None: its queue does not count.

    A publisher may have written the header. The broker replaces it when it has something to count.
    """
    count = count_in(headers.get(COUNTER.decode()))
    if not redelivered:
        return None if count is None else 0
    acquired = count_in(headers.get("x-acquired-count"))
    if acquired is None:
        return count
    # RabbitMQ 4.3: every delivery counts there, and those that count towards the limit are some of them.
    return count if count is not None and count <= acquired else 0


#: A header can say anything, and what comes of it is to fit into a header again.
_MOST: Final = 2**31 - 1


def count_in(value: object) -> int | None:
    """*value* if it counts something, or else None."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return None
    return min(value, _MOST)


def is_near(returned: int | None, limit: int) -> bool:
    """Whether a message that came back so often must not be left to a queue with *limit* any longer."""
    return returned is not None and returned >= max(1, limit - min(_RESERVE, limit // 4))
