"""What the client library raises, as one sentence that says what to do."""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final

from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    InvalidFrameError,
    ProbableAuthenticationError,
)

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.producers.rabbitmq.options import RabbitMQOptions

__all__ = ["LIBRARY_ERRORS", "of_after_connect", "of_loss", "of_open"]

#: Everything that aio-pika and aiormq raise for what happens at the broker or on the way to it.
LIBRARY_ERRORS: Final = CONNECTION_EXCEPTIONS


def of_open(error: BaseException, options: RabbitMQOptions, where: str | None = None) -> ProducerError:
    """Why connecting failed; *where* is the address that was tried, if there are several."""
    where = where or options.where
    if isinstance(error, TimeoutError):
        return ProducerError(
            f"no answer from {where} within {options.connect_timeout:g} s; check host and port, and the network"
        )
    if isinstance(error, ChannelClosed):
        return _of_channel(error, options, where)
    if (refusal := _refusal(error)) is not None:
        return SourceRefused(f"RabbitMQ at {where} {refusal}")
    if (reason := _os_reason(error)) is not None:
        return ProducerError(f"cannot reach {where}: {reason}; check host and port, and whether the broker runs")
    if isinstance(error, ConnectionClosed):
        return ProducerError(f"RabbitMQ at {where} ended the connection while it was set up: {_said(error)}")
    return ProducerError(f"the connection to {where} broke while it was set up ({type(error).__name__})")


def of_after_connect(error: Exception, where: str) -> ProducerError:
    """Why the user's ``after_connect`` did not work out."""
    # An error of the user's own is not quoted: nobody knows what it holds. It is chained.
    said = f": {_said(error)}" if isinstance(error, ChannelClosed | ConnectionClosed) else ""
    return ProducerError(f"after_connect on {where} raised {type(error).__name__}{said}")


def _refusal(error: BaseException) -> str | None:
    match error:
        case ProbableAuthenticationError():
            return "refused the login; check user and password in the url"
        case AuthenticationError():
            return "offers none of our ways to log in; check auth= in the url"
        case InvalidFrameError() | ConnectionClosed() if _answers_connection_open(error):
            return "refused the virtual host; check that it exists and that the user may enter it"
    return None


def _of_channel(error: ChannelClosed, options: RabbitMQOptions, where: str) -> ProducerError:
    said = _said(error)
    # Of several queues the broker's own words name the one.
    named = next((one for one in options.queues if f"queue '{one}'" in said), options.queues[0])
    queue = f"queue {named!r} on {where}"
    match error:
        case ChannelAccessRefused() if "in exclusive use" in said:
            return ProducerError(f"{queue} has an exclusive consumer; waiting until it has gone")
        case ChannelAccessRefused():
            return SourceRefused(
                f"this user may not work on {queue}: {said}; give the user the permission, or change the url"
            )
        case ChannelNotFoundEntity() if "no exchange" in said:
            return ProducerError(f"a binding of {queue} cannot be made: {said}; create the exchange")
        case ChannelNotFoundEntity():
            return ProducerError(f"{queue} does not exist; create it or set declare: active")
        case ChannelLockedResource():
            return ProducerError(f"{queue} belongs to another connection: {said}")
        case ChannelPreconditionFailed():
            return ProducerError(
                f"{queue} cannot be used as asked: {said}; "
                "make declare_options and consume_options fit the queue, or set declare: passive"
            )
    return ProducerError(f"RabbitMQ closed the channel for {queue} while it was set up: {said}")


def of_loss(
    error: BaseException | None, options: RabbitMQOptions, where: str | None = None, *, silent: bool = False
) -> ProducerError:
    """Why a connection that worked is gone; *silent* when nothing was heard for three heartbeats."""
    where = where or options.where
    match error:
        case ConnectionClosed():
            return ProducerError(f"RabbitMQ at {where} closed the connection: {_said(error)}")
        case ChannelClosed():
            return ProducerError(f"RabbitMQ at {where} closed the channel: {_said(error)}")
    if silent:
        return ProducerError(f"no sign of life from {where} for {3 * (options.heartbeat_seconds + 1)} s")
    return ProducerError(f"the connection to {where} was cut")


def _said(error: AMQPError) -> str:
    """The broker's own words."""
    words = [str(part) for part in error.args if isinstance(part, str)]
    return words[-1] if words else "no reason given"


def _answers_connection_open(error: BaseException) -> bool:
    """Whether it answers Connection.Open: the library takes the broker's refusal for a broken frame there."""
    return "Connection.OpenOk" in str(error) or (isinstance(error, ConnectionClosed) and 530 in error.args)


def _os_reason(error: BaseException) -> str | None:
    """What the operating system said, if the trouble came from there."""
    # The library wraps it with the same arguments; the innermost one still has its class.
    innermost = error
    while innermost.__cause__ is not None:
        innermost = innermost.__cause__
    match innermost:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {innermost.verify_message}"
        case ssl.SSLError():
            return "it does not speak TLS as we do"
        case socket.gaierror():
            return "the host name is not known"
        case OSError() if innermost.errno:
            return os.strerror(innermost.errno).lower()
        case OSError() if str(innermost).startswith("Multiple exceptions"):
            return "none of its addresses takes the connection"
    return None
