"""Reads the headers of a dead letter: where, why and after how many attempts it died. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from broadway_py.producers.rabbitmq.deliveries.message import ATTEMPT_HEADER
from broadway_py.producers.rabbitmq.topology.delay_queues import is_delay_queue

__all__ = ["Death", "death_of"]

_NOTHING: Final = ("", "")


class Death(NamedTuple):
    """What is known of it; what nobody noted is None."""

    #: In which it failed for good.
    queue: str | None
    #: In our words where we have put it away, in the broker's where the broker did.
    cause: str | None
    attempts: int | None


def death_of(headers: Mapping[str, Any]) -> Death:
    """That of a letter with *headers*: as we have noted it, else as the broker did."""
    queue, reason = _noted_by_the_broker(headers)
    cause = headers.get("x-broadway-cause", reason)
    attempts = headers.get("x-broadway-attempts", headers.get(ATTEMPT_HEADER))
    return Death(
        _text(headers.get("x-broadway-queue")) or queue or None,
        None if cause is None or cause == "" else str(cause),
        attempts if isinstance(attempts, int) and not isinstance(attempts, bool) else None,
    )


def _noted_by_the_broker(headers: Mapping[str, Any]) -> tuple[str, str]:
    """Queue and reason of the death that matters, each "" where the broker says none.

    That is the first one; but to the broker a message that leaves one of our delay queues has died there, and after a
    retry that one is the first.
    """
    retried = ATTEMPT_HEADER in headers
    first = _text(headers.get("x-first-death-queue")), _text(headers.get("x-first-death-reason"))
    if first[0] and not (retried and is_delay_queue(first[0])):
        return first
    found = headers.get("x-death")
    listed: Sequence[object] = found if isinstance(found, list) else ()
    # The newest one comes first.
    deaths = [(_text(one.get("queue")), _text(one.get("reason"))) for one in listed if isinstance(one, dict)]
    elsewhere = [one for one in deaths if one[0] and not (retried and is_delay_queue(one[0]))]
    # We reject; from queue to queue it may have gone on by itself after that.
    return next((one for one in elsewhere if one[1] == "rejected"), elsewhere[0] if elsewhere else _NOTHING)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
