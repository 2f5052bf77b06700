"""Turns what goes wrong when something is published, or a queue for it is declared, into one sentence."""

from __future__ import annotations

import re
from typing import Final

from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.producers.rabbitmq.connection.errors import words_of

__all__ = [
    "largest_taken",
    "of_full",
    "of_missing_own_queue",
    "of_missing_place",
    "of_own_queue",
    "of_refused_write",
    "of_returned",
    "of_sink",
    "of_too_large",
]

#: What the broker says when it closes the channel, of every version that has the setting ``max_message_size``.
_TOO_LARGE: Final = re.compile(r"message size \d+ is larger than (?:configured )?max size (\d+)")


def of_own_queue(error: ChannelClosed, queue: str, where: str) -> ProducerError:
    """Returns why a queue for retries or dead letters cannot be used."""
    named, said = f"queue {queue!r} on {where}, for failed messages,", words_of(error)
    match error:
        case ChannelAccessRefused():
            return SourceRefused(
                f"{named} may not be declared by this user: {said}; give the user the permission, "
                "or let somebody else declare it and set dead_letter_declare: passive"
            )
        case ChannelPreconditionFailed():
            return ProducerError(
                f"{named} exists, but with other arguments: {said}; delete or rename it, or give its arguments in "
                "dead_letter_arguments or retry_arguments"
            )
        case ChannelNotFoundEntity():
            return ProducerError(of_missing_own_queue(queue, where))
    return ProducerError(f"{named} cannot be declared: {said}")


def of_missing_own_queue(queue: str, where: str) -> str:
    """Returns what to do if a queue for dead letters must exist, and does not."""
    return (
        f"queue {queue!r} on {where}, for failed messages, does not exist; create it or set dead_letter_declare: active"
    )


def of_full(queue: str, where: str, most: int) -> str:
    """Returns what to do if the queue for dead letters has its *most* messages, and refuses more."""
    return (
        f"queue {queue!r} on {where}, for failed messages, is full: it takes {most:,} messages and refuses more; look "
        "at its dead letters, and replay or purge them"
    )


def of_refused_write(error: ChannelClosed, place: str, exchange: str, where: str) -> SourceRefused:
    """Returns why nothing can be published to *place*, by this *exchange*."""
    named = f"exchange {exchange!r}" if exchange else "the default exchange"
    return SourceRefused(
        f"this user may not publish to {place} on {where}: {words_of(error)}; give the user the permission to write to "
        f"{named}"
    )


def of_sink(error: ChannelClosed, place: str, where: str) -> ProducerError:
    """Returns why *place*, to which a sink publishes, cannot be used."""
    named, said = f"{place} on {where}", words_of(error)
    match error:
        case ChannelNotFoundEntity():
            return SourceRefused(of_missing_place(place, where))
        case ChannelAccessRefused():
            return SourceRefused(f"this user may not declare {named}: {said}; give the user the permission")
        case ChannelPreconditionFailed():
            return SourceRefused(
                f"{named} exists, but with other arguments: {said}; make queue_arguments match them, or set declare: "
                "passive"
            )
    return ProducerError(f"{named} cannot be used: {said}")


def of_missing_place(place: str, where: str) -> str:
    """Returns what to do if *place*, to which a sink publishes, does not exist."""
    advice = "create it" if place.startswith("exchange") else "create it, or set declare: active"
    return f"there is no {place} on {where}; {advice}"


def of_returned(place: str, exchange: str, where: str) -> str:
    """Returns why the broker has returned a message for *place*."""
    if exchange:
        return f"{place} on {where} leads to no queue for the routing key of a message: bind a queue to it"
    return f"there is no {place} on {where}"


def largest_taken(error: BaseException | None) -> int | None:
    """Returns the most bytes that the broker takes in a message, if *error* is that one was larger; None: it is not."""
    if not isinstance(error, ChannelPreconditionFailed):
        return None
    found = _TOO_LARGE.search(words_of(error))
    return None if found is None else int(found[1])


def of_too_large(size: int, largest: int, place: str, where: str) -> str:
    """Returns why the broker does not take a message of *size* bytes for *place*."""
    return (
        f"a message for {place} has {size:,} bytes, and RabbitMQ at {where} takes at most {largest:,}: make the "
        "message smaller, or raise max_message_size at the broker"
    )
