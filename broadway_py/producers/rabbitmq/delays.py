"""The queues in which failed messages wait for their next attempt.

A classic queue lets messages go in the order in which they came, so one queue for all delays would have short ones wait
behind long ones. Here each queue is for one delay: the delays asked for are rounded up to a ladder, two rungs to an
octave. A queue's messages return to the queue they failed in, by the broker's own clock; a classic queue that nobody
used for a while is deleted by the broker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = ["DECLARED_AGAIN_S", "DelayQueue", "delay_queue", "is_delay_queue", "rung_ms"]

#: The shortest delay, in milliseconds; the others are this times 2, 3, 4, 6, 8, 12, …
_SHORTEST_MS: Final = 125
#: The longest one, some twelve days: longer ones are cut to it.
_LONGEST_MS: Final = 1_048_576_000
#: A classic queue lives this much longer than its messages, in milliseconds, from its last declaration on.
_SLACK_MS: Final = 300_000
#: Seconds after which a queue is declared again before it is used, which sets its clock back; well below the slack.
DECLARED_AGAIN_S: Final = 60.0

_NAME: Final = re.compile(r".+\.retry\.([1-9][0-9]{2,9})(\.quorum)?", re.DOTALL)


class DelayQueue(NamedTuple):
    """What the broker must be told of one of the queues."""

    name: str
    arguments: Mapping[str, Any]
    #: Seconds after its declaration in which a message may be put in, and is sure to leave it as planned; without end
    #: for a queue that stays.
    safe_s: float


def rung_ms(delay_s: float) -> int:
    """The shortest delay of the ladder that is not below *delay_s*, in milliseconds."""
    wanted = delay_s * 1000.0
    rung = _SHORTEST_MS
    while rung < wanted and rung < _LONGEST_MS:
        between = rung * 3 // 2
        if rung > _SHORTEST_MS and between >= wanted:
            return between
        rung *= 2
    return min(rung, _LONGEST_MS)


def is_delay_queue(name: str) -> bool:
    """Whether one of these queues would be called *name*."""
    found = _NAME.fullmatch(name)
    steps, rest = divmod(int(found[1]) if found else 0, _SHORTEST_MS)
    # A power of two, or three times one.
    return steps > 0 and rest == 0 and steps // (steps & -steps) in (1, 3)


def delay_queue(queue: str, delay_s: float, extra: Mapping[str, Any]) -> DelayQueue:
    """The queue in which a message of *queue* waits for *delay_s*; *extra* arguments come beside ours.

    Of ours they may replace the kind of queue alone: without the others messages would not come back.
    """
    wait_ms = rung_ms(delay_s)
    arguments = {
        "x-message-ttl": wait_ms,
        "x-dead-letter-exchange": "",
        # To this queue alone: by the exchange it came from, others would get it a second time.
        "x-dead-letter-routing-key": queue,
        "x-queue-type": "classic",
        **extra,
    }
    # Names that begin with "amq." are the broker's.
    name = f"{queue.removeprefix('amq.')}.retry.{wait_ms}"
    kind = arguments["x-queue-type"]
    if kind != "classic":
        # No x-expires: to be declared again is no use to a quorum queue, and it goes with the messages that are in it.
        # A name of its own: until somebody deletes it, no other kind could be declared by the same one.
        return DelayQueue(f"{name}.{kind}", arguments, math.inf)
    return DelayQueue(name, {"x-expires": wait_ms + _SLACK_MS, **arguments}, _SLACK_MS / 1000.0 - DECLARED_AGAIN_S)
