"""Turns what goes wrong when something is published, or a queue for it is declared, into one sentence."""

from __future__ import annotations

from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelNotFoundEntity, ChannelPreconditionFailed

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.producers.rabbitmq.connection.errors import words_of

__all__ = ["of_own_queue", "of_refused_write", "of_returned", "of_sink"]


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
            return ProducerError(f"{named} does not exist; create it or set dead_letter_declare: active")
    return ProducerError(f"{named} cannot be declared: {said}")


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
            return SourceRefused(f"there is no {named}; create it, or, if it is a queue, set declare: active")
        case ChannelAccessRefused():
            return SourceRefused(f"this user may not declare {named}: {said}; give the user the permission")
        case ChannelPreconditionFailed():
            return SourceRefused(
                f"{named} exists, but with other arguments: {said}; make queue_arguments match them, or set declare: "
                "passive"
            )
    return ProducerError(f"{named} cannot be used: {said}")


def of_returned(place: str, exchange: str, where: str) -> str:
    """Returns why the broker has returned a message for *place*."""
    if exchange:
        return f"{place} on {where} leads to no queue for the routing key of a message: bind a queue to it"
    return f"there is no {place} on {where}"
