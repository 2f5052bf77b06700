"""Reads the headers of a dead letter: where, why and after how many attempts it died. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from broadway_py.producers.rabbitmq.deliveries.message import ATTEMPT_HEADER
from broadway_py.producers.rabbitmq.topology.delay_queues import is_delay_queue

__all__ = ["Death", "death_of"]

_NOTHING: Final = ("", "")


class Death(NamedTuple):
    """What the headers tell about the death. None stands for what nobody has noted."""

    #: The queue in which the message failed for good.
    queue: str | None
    #: Our word for the cause if we dead-lettered the message, else the broker's.
    cause: str | None
    attempts: int | None


def death_of(headers: Mapping[str, Any]) -> Death:
    """Returns the death of a letter with *headers*: as we have noted it, else as the broker has."""
    queue, reason = _noted_by_the_broker(headers)
    cause = headers.get("x-broadway-cause", reason)
    attempts = headers.get("x-broadway-attempts", headers.get(ATTEMPT_HEADER))
    return Death(
        _text(headers.get("x-broadway-queue")) or queue or None,
        None if cause is None or cause == "" else str(cause),
        attempts if isinstance(attempts, int) and not isinstance(attempts, bool) else None,
    )


def _noted_by_the_broker(headers: Mapping[str, Any]) -> tuple[str, str]:
    """Returns queue and reason of the death that matters, each "" if the broker gives none.

    That is the first death. But for the broker, a message that leaves one of our delay queues has died there, so after
    a retry the delay queue comes first.
    """
    retried = ATTEMPT_HEADER in headers
    first = _text(headers.get("x-first-death-queue")), _text(headers.get("x-first-death-reason"))
    if first[0] and not (retried and is_delay_queue(first[0])):
        return first
    found = headers.get("x-death")
    listed: Sequence[object] = found if isinstance(found, list) else ()
    # The newest death comes first.
    deaths = [(_text(one.get("queue")), _text(one.get("reason"))) for one in listed if isinstance(one, dict)]
    elsewhere = [one for one in deaths if one[0] and not (retried and is_delay_queue(one[0]))]
    # Our rejection is the death that matters. After it the broker may have moved the message from queue to queue.
    return next((one for one in elsewhere if one[1] == "rejected"), elsewhere[0] if elsewhere else _NOTHING)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
