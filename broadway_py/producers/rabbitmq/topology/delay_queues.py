"""The queues in which failed messages wait for their next attempt.

A queue lets messages go in the order in which they came, so one queue for all delays would have short ones wait behind
long ones. Here each queue is for one delay: the delays asked for are rounded up to a ladder, two rungs to an octave. A
queue's messages return to the queue they failed in, by the broker's own clock.

They are quorum queues that let go of a message only when the queue it returns to has confirmed it. A classic one lets
go without asking, so a restart of the broker loses messages; it is for queues that do not outlive a restart either, and
deleted by the broker when nobody used it for a while.
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
    "way_back",
]

#: The shortest delay, in milliseconds; the others are this times 2, 3, 4, 6, 8, 12, …
_SHORTEST_MS: Final = 125
#: The longest one, some twelve days: longer ones are cut to it.
_LONGEST_MS: Final = 1_048_576_000
#: A classic queue lives this much longer than its messages, in milliseconds, from its last declaration on.
_SLACK_MS: Final = 300_000
#: Seconds after which a queue is declared again before it is used, which sets its clock back; well below the slack.
DECLARED_AGAIN_S: Final = 60.0
#: By which a message leaves a quorum queue only when it has arrived; each needs the others.
_SAFE: Final = {
    "x-queue-type": "quorum",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}
#: The last part of their names: the kind, and which edition of our arguments it is. No queue can be declared with
#: arguments other than those it has, so those of another edition need other names.
_ENDS: Final = {"quorum": "q2", "classic": "c2"}
#: Characters that the name of an exchange may have for the client library.
_LONGEST_EXCHANGE: Final = 127

_NAME: Final = re.compile(r".+\.retry\.([1-9][0-9]{2,9})(\.quorum|\.[cq]2(\.[0-9a-f]{4})?)?", re.DOTALL)


class DelayQueue(NamedTuple):
    """What the broker must be told of one of the queues."""

    name: str
    arguments: Mapping[str, Any]
    #: Seconds after its declaration in which a message may be put in, and is sure to leave it as planned; without end
    #: for a queue that stays.
    safe_s: float


def rungs_ms() -> Iterator[int]:
    """The ladder, in milliseconds."""
    rung = _SHORTEST_MS
    while rung < _LONGEST_MS:
        yield rung
        if rung > _SHORTEST_MS:
            yield rung * 3 // 2
        rung *= 2
    yield _LONGEST_MS


def rung_ms(delay_s: float) -> int:
    """The shortest delay of the ladder that is not below *delay_s*, in milliseconds."""
    wanted = delay_s * 1000.0
    return next((rung for rung in rungs_ms() if rung >= wanted), _LONGEST_MS)


def is_delay_queue(name: str) -> bool:
    """Whether one of these queues would be called *name*, or was by a former version."""
    found = _NAME.fullmatch(name)
    steps, rest = divmod(int(found[1]) if found else 0, _SHORTEST_MS)
    # A power of two, or three times one.
    return steps > 0 and rest == 0 and steps // (steps & -steps) in (1, 3)


def way_back(queue: str) -> str:
    """The exchange by which messages return to *queue*, and by which nothing else comes.

    It is internal: the broker lets nobody publish to it. So what was delivered by it has come through a queue that
    leads to it, whatever its headers say.
    """
    name = f"{_ours(queue)}.retry.back"
    if len(name) <= _LONGEST_EXCHANGE:
        return name
    digest = hashlib.sha256(queue.encode()).hexdigest()[:16]
    return f"{name[:80]}.{digest}.retry.back"


def delay_queue(
    queue: str, delay_s: float, extra: Mapping[str, Any], *, back: str | None = None, is_passing: bool = False
) -> DelayQueue:
    """The queue in which a message of *queue* waits for *delay_s*.

    Args:
        queue: where the message failed, and returns to.
        delay_s: seconds.
        extra: arguments beside ours. Of ours they may replace the kind of queue alone: without the others messages
            would not come back.
        back: the exchange by which it returns. None: that of :func:`way_back`.
        is_passing: *queue* does not outlive its connection, or the broker: what waits for it need not, either.
    """
    wait_ms = rung_ms(delay_s)
    usual = way_back(queue)
    kind = extra.get("x-queue-type", "classic" if is_passing else "quorum")
    arguments = {
        "x-message-ttl": wait_ms,
        "x-dead-letter-exchange": usual if back is None else back,
        # To this queue alone: by the exchange it came from, others would get it a second time.
        "x-dead-letter-routing-key": queue,
        "x-queue-type": kind,
        **(_SAFE if kind == "quorum" else {}),
        **extra,
    }
    name = f"{_ours(queue)}.retry.{wait_ms}.{_ENDS[kind]}{_variant(arguments, usual)}"
    if kind != "classic":
        # No x-expires: to be declared again is no use to a quorum queue, and it goes with the messages that are in it.
        return DelayQueue(name, arguments, math.inf)
    return DelayQueue(name, {"x-expires": wait_ms + _SLACK_MS, **arguments}, _SLACK_MS / 1000.0 - DECLARED_AGAIN_S)


def former_delay_queues(queue: str) -> Iterator[tuple[str, int]]:
    """The names that these queues of *queue* had in the former version, each with its delay in milliseconds.

    They return their messages by themselves, but let go of them without asking whether they arrived.
    """
    for wait_ms in rungs_ms():
        for end in ("", ".quorum"):
            yield f"{_ours(queue)}.retry.{wait_ms}{end}", wait_ms


def _ours(queue: str) -> str:
    # Names that begin with "amq." are the broker's.
    return queue.removeprefix("amq.")


def _variant(arguments: Mapping[str, Any], usual_back: str) -> str:
    """For a name: what distinguishes *arguments* from those of everybody who has set none."""
    own = {name: value for name, value in arguments.items() if name != "x-message-ttl" and _SAFE.get(name) != value}
    for name, usual in (("x-queue-type", "classic"), ("x-dead-letter-exchange", usual_back)):
        if own.get(name) == usual:
            del own[name]
    del own["x-dead-letter-routing-key"]
    if not own:
        return ""
    return f".{hashlib.sha256(repr(sorted(own.items())).encode()).hexdigest()[:4]}"
