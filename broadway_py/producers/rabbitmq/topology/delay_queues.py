"""The queues in which failed messages wait for their next attempt.

A queue releases messages in the order in which they came. With one queue for all delays, short delays would wait behind
long ones. So each queue is for one delay: the requested delay is rounded up to a ladder of delays, two for each
doubling. The messages return to the queue they failed in, by the broker's own clock.

They are quorum queues that release a message only after the queue it returns to has confirmed it. A classic queue does
not wait for a confirm, so a restart of the broker loses messages. Classic queues are used only for queues that do not
survive a restart either, and the broker deletes them when nobody has used them for a while.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "DECLARED_AGAIN_S",
    "DelayQueue",
    "delay_queue",
    "former_delay_queues",
    "is_delay_queue",
    "rung_ms",
    "rungs_ms",
    "rungs_within",
    "way_back",
]

#: The shortest delay, in milliseconds. The others are 2, 3, 4, 6, 8, 12, … times as long.
_SHORTEST_MS: Final = 125
#: The longest delay, about twelve days, in milliseconds. Longer ones are cut to it.
_LONGEST_MS: Final = 1_048_576_000
#: How much longer than its messages a classic queue lives after its last declaration, in milliseconds.
_SLACK_MS: Final = 300_000
#: Seconds after which a queue is declared again before it is used, which restarts its lifetime. Well below the slack.
DECLARED_AGAIN_S: Final = 60.0
#: With these, a message leaves a quorum queue only after it has arrived. Each needs the others.
_SAFE: Final = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
#: The last part of the names: the kind of queue, and the version of our arguments. A queue cannot be declared again
#: with other arguments, so another version needs other names.
_ENDS: Final = {"quorum": "q2", "classic": "c2"}
#: The most characters in the name of an exchange for the client library.
_LONGEST_EXCHANGE: Final = 127

_NAME: Final = re.compile(r".+\.retry\.([1-9][0-9]{2,9})(\.quorum|\.[cq]2(\.[0-9a-f]{4})?)?", re.DOTALL)


class DelayQueue(NamedTuple):
    """The name and the arguments of a delay queue."""

    name: str
    arguments: Mapping[str, Any]
    #: Seconds after its declaration during which a message may be put in and is certain to leave as planned. Infinite
    #: for a queue that stays.
    safe_s: float


def rungs_ms() -> Iterator[int]:
    """Yields the delays of the ladder, in milliseconds."""
    rung = _SHORTEST_MS
    while rung < _LONGEST_MS:
        yield rung
        if rung > _SHORTEST_MS:
            yield rung * 3 // 2
        rung *= 2
    yield _LONGEST_MS


def rung_ms(delay_s: float) -> int:
    """Returns the shortest delay of the ladder that is at least *delay_s*, in milliseconds."""
    wanted = delay_s * 1000.0
    return next((rung for rung in rungs_ms() if rung >= wanted), _LONGEST_MS)


def rungs_within(shortest_s: float, longest_s: float) -> Iterator[int]:
    """Yields the delays of the ladder for requests from *shortest_s* to *longest_s*, in milliseconds."""
    return (rung for rung in rungs_ms() if rung_ms(shortest_s) <= rung <= rung_ms(longest_s))


def is_delay_queue(name: str) -> bool:
    """Returns whether *name* is the name of a delay queue, of this version or a former one."""
    found = _NAME.fullmatch(name)
    steps, rest = divmod(int(found[1]) if found else 0, _SHORTEST_MS)
    # A power of two, or three times a power of two.
    return steps > 0 and rest == 0 and steps // (steps & -steps) in (1, 3)


def way_back(queue: str) -> str:
    """Returns the exchange by which messages return to *queue*, and by which nothing else comes.

    It is internal: the broker lets nobody publish to it. So a message that it delivers came through a queue that leads
    to it, whatever its headers say.
    """
    name = f"{_ours(queue)}.retry.back"
    if len(name) <= _LONGEST_EXCHANGE:
        return name
    digest = hashlib.sha256(queue.encode()).hexdigest()[:16]
    return f"{name[:80]}.{digest}.retry.back"


def delay_queue(
    queue: str, delay_s: float, extra: Mapping[str, Any], *, back: str | None = None, is_passing: bool = False
) -> DelayQueue:
    """Returns the queue in which a message of *queue* waits for *delay_s*.

    Args:
        queue: where the message failed, and returns to.
        delay_s: seconds.
        extra: arguments added to ours. Of ours they may replace only the kind of queue: without the others messages
            would not come back.
        back: the exchange by which the message returns. None: that of :func:`way_back`.
        is_passing: *queue* does not outlive its connection or the broker, so the messages that wait for it need not,
            either.
    """
    wait_ms = rung_ms(delay_s)
    usual = way_back(queue)
    kind = extra.get("x-queue-type", "classic" if is_passing else "quorum")
    arguments = {
        "x-message-ttl": wait_ms,
        "x-dead-letter-exchange": usual if back is None else back,
        # The message returns to this queue alone. By its original exchange, other queues would get it a second time.
        "x-dead-letter-routing-key": queue,
        "x-queue-type": kind,
        **(_SAFE if kind == "quorum" else {}),
        **extra,
    }
    name = f"{_ours(queue)}.retry.{wait_ms}.{_ENDS[kind]}{_variant(arguments, usual)}"
    if kind != "classic":
        # No x-expires: declaring a quorum queue again does not extend its lifetime, and it expires with the messages in
        # it.
        return DelayQueue(name, arguments, math.inf)
    return DelayQueue(name, {"x-expires": wait_ms + _SLACK_MS, **arguments}, _SLACK_MS / 1000.0 - DECLARED_AGAIN_S)


def former_delay_queues(queue: str) -> Iterator[tuple[str, int]]:
    """Yields the names of these queues of *queue* in the former version, each with its delay in milliseconds.

    They return their messages by themselves, but without a confirm that they arrived.
    """
    for wait_ms in rungs_ms():
        for end in ("", ".quorum"):
            yield f"{_ours(queue)}.retry.{wait_ms}{end}", wait_ms


def _ours(queue: str) -> str:
    # Names that begin with "amq." are reserved for the broker.
    return queue.removeprefix("amq.")


def _variant(arguments: Mapping[str, Any], usual_back: str) -> str:
    """Returns the part of a name that marks *arguments* which differ from the usual ones, or ""."""
    own = {name: value for name, value in arguments.items() if name != "x-message-ttl" and _SAFE.get(name) != value}
    for name, usual in (("x-queue-type", "classic"), ("x-dead-letter-exchange", usual_back)):
        if own.get(name) == usual:
            del own[name]
    del own["x-dead-letter-routing-key"]
    if not own:
        return ""
    return f".{hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()[:4]}"
