"""Turns errors of the client library into one sentence that says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterator
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
from broadway_py.producers.certificates import broken_rule
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions

__all__ = [
    "innermost",
    "is_of_library",
    "of_after_connect",
    "of_alarm",
    "of_cancelled_consumer",
    "of_connect",
    "of_first_words",
    "of_loss",
    "of_missing_queue",
    "of_no_awaitable",
    "of_open",
    "of_other_protocol",
    "translated",
    "words_of",
]

#: The error classes that aio-pika and aiormq raise for problems at the broker or on the network.
_LIBRARY_ERRORS: Final = CONNECTION_EXCEPTIONS
#: OpenSSL's names for an answer that is not TLS. They differ from version to version.
_IN_PLAIN_TEXT: Final = frozenset(
    {"HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "WRONG_VERSION_NUMBER"}
)


def is_of_library(error: BaseException) -> bool:
    """Returns whether the client library raises *error* for a problem at the broker or on the network.

    This includes a plain ``Exception``. If the broker's last bytes and the end of the stream come together, aiormq's
    reader ends without an error, and tasks that wait on the connection get a plain ``Exception``.
    """
    return isinstance(error, _LIBRARY_ERRORS) or type(error) is Exception


def of_open(
    error: BaseException, options: RabbitMQOptions, where: str | None = None, *, act: str | None = None
) -> ProducerError:
    """Returns why a producer could not connect, or not set up its channel. See :func:`of_connect`.

    *act* is what this user was to be allowed to do, such as "to read it", if that is known.
    """
    if isinstance(error, ChannelClosed):
        return _of_channel(error, options, where or options.where, act)
    return of_connect(error, options, where)


def of_connect(error: BaseException, options: BrokerOptions, where: str | None = None) -> ProducerError:
    """Returns why connecting failed. *where* is the address that was tried, if there are several."""
    where = where or options.where
    if isinstance(error, TimeoutError):
        return ProducerError(
            f"no answer from {where} within {options.connect_timeout:g} s; check host and port, and the network"
        )
    if (refusal := _refusal(error)) is not None:
        return SourceRefused(f"RabbitMQ at {where} {refusal}")
    if (distrust := _tls_trouble(innermost(error), where)) is not None:
        return ProducerError(distrust)
    if (reason := _os_reason(innermost(error))) is not None:
        return ProducerError(f"cannot reach {where}: {reason}; check host and port, and whether the broker runs")
    if isinstance(error, ConnectionClosed):
        return ProducerError(f"RabbitMQ at {where} ended the connection while it was set up: {words_of(error)}")
    if type(error) is Exception:
        return ProducerError(f"{where} closed the connection while it was set up")
    return ProducerError(f"the connection to {where} broke while it was set up ({type(error).__name__})")


def of_first_words(error: BaseException, options: BrokerOptions, where: str) -> ProducerError:
    """Works like :func:`of_connect`, for a connection that failed during the login."""
    if where.startswith("amqp:") and isinstance(innermost(error), ConnectionResetError | asyncio.IncompleteReadError):
        # A TLS port hangs up in this way when it gets AMQP. So does a proxy without a broker behind it.
        return ProducerError(
            f"{where} closed the connection as soon as the login began; check the port, and whether the broker runs; "
            "if it is the port for TLS, use amqps:// (with host: tls)"
        )
    return of_connect(error, options, where)


def of_alarm(where: str) -> str:
    """Returns what to do while the broker accepts no messages."""
    return (
        f"RabbitMQ at {where} accepts no messages for now, because it is out of memory or of disk space; free some "
        "there, or raise its limit"
    )


def of_missing_queue(queue: str, where: str) -> str:
    """Returns what to do if the *queue* to read does not exist."""
    return f"queue {queue!r} does not exist on {where}; create it or set declare: active"


def of_other_protocol(protocol: str, where: str) -> str:
    """Returns what to do if *protocol* is spoken at *where* instead of AMQP 0-9-1."""
    return (
        f"what answers at {where} speaks {protocol}, and not AMQP 0-9-1; name the port of AMQP, mostly 5672, or "
        "5671 with amqps:// (with host: tls); 15672 is the port of RabbitMQ's management page"
    )


def of_after_connect(error: Exception, where: str) -> ProducerError:
    """Returns why the user's ``after_connect`` failed."""
    # The text of a user's own error may hold secrets, so it is not shown. The error is chained.
    said = f": {words_of(error)}" if isinstance(error, ChannelClosed | ConnectionClosed) else ""
    return ProducerError(f"after_connect on {where} raised {type(error).__name__}{said}")


def of_no_awaitable(returned: object, where: str) -> ProducerError:
    """Returns the error for an ``after_connect`` that is a plain function: its calls were never awaited."""
    kind = type(returned).__name__
    return ProducerError(
        f"after_connect on {where} returned {kind}, which cannot be awaited; make it an async function"
    )


def _refusal(error: BaseException) -> str | None:
    match error:
        case ProbableAuthenticationError():
            return "refused the login; check user and password in the url"
        case AuthenticationError():
            return "offers no login method that the producer knows; check auth= in the url"
        case InvalidFrameError() | ConnectionClosed() if _answers_connection_open(error):
            return "refused the virtual host; check that it exists and that the user may enter it"
    return None


def _of_channel(error: ChannelClosed, options: RabbitMQOptions, where: str, act: str | None) -> ProducerError:
    said = words_of(error)
    # With several queues, the broker's words name the queue that failed.
    named = next((one for one in options.all_queues if f"queue '{one}'" in said), options.queues[0])
    queue = f"queue {named!r} on {where}"
    match error:
        case ChannelAccessRefused() if "in exclusive use" in said:
            return ProducerError(f"{queue} has an exclusive consumer; waiting until it has gone")
        case ChannelAccessRefused():
            wanted = "" if act is None else f" {act}"
            return SourceRefused(
                f"this user has no permission for {queue}: {said}; give the user the permission{wanted}, or change the "
                "url"
            )
        case ChannelNotFoundEntity() if "no exchange" in said:
            return ProducerError(f"a binding of {queue} cannot be made: {said}; create the exchange")
        case ChannelNotFoundEntity():
            return ProducerError(of_missing_queue(named, where))
        case ChannelLockedResource():
            return ProducerError(f"{queue} belongs to another connection: {said}")
        case ChannelPreconditionFailed():
            return ProducerError(
                f"{queue} cannot be used as asked: {said}; "
                "make declare_options and consume_options fit the queue, or set declare: passive"
            )
    return ProducerError(f"RabbitMQ closed the channel for {queue} while it was set up: {said}")


@contextlib.contextmanager
def translated(sentence: Callable[[BaseException], ProducerError]) -> Iterator[None]:
    """Raises errors of the library as the error that *sentence* makes of them. A TimeoutError passes unchanged.

    A connection that dies cancels what waits on it. So a CancelledError that nobody asked for counts as such an error.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise sentence(error) from None
    except TimeoutError:
        raise
    except Exception as error:
        if not is_of_library(error):
            raise
        raise sentence(error) from error


def of_loss(
    error: BaseException | None, options: BrokerOptions, where: str | None = None, *, silent: bool = False
) -> ProducerError:
    """Returns why a working connection was lost. *silent*: nothing was received for three heartbeats."""
    where = where or options.where
    match error:
        case ConnectionClosed():
            return ProducerError(f"RabbitMQ at {where} closed the connection: {words_of(error)}")
        case ChannelClosed():
            return ProducerError(f"RabbitMQ at {where} closed the channel: {words_of(error)}")
    if silent:
        return ProducerError(
            f"{where} has sent nothing, not even a heartbeat, for {3 * (options.heartbeat_seconds + 1)} s"
        )
    return ProducerError(f"the connection to {where} was cut")


def of_cancelled_consumer(queue: str, where: str, *, is_there: bool, unsettled: int) -> ProducerError:
    """Returns why the broker cancelled the consumer of *queue*. The broker does not tell the reason.

    Args:
        queue: its name at the broker.
        where: the broker's address.
        is_there: the queue still exists.
        unsettled: how many unsettled messages of it we held.
    """
    if not is_there:
        why = "the queue was deleted"
    elif unsettled:
        why = (
            "the queue exists; either a message was not settled within the consumer time-out (30 minutes, unless the "
            "broker or the queue has another one), or the queue was declared again, or it has moved; keep "
            "batch_timeout plus the longest handler well below that time-out, or raise consumer_timeout at the broker"
        )
    else:
        why = "the queue exists, so it was declared again, or it has moved"
    return ProducerError(f"RabbitMQ at {where} cancelled the consumer of queue {queue!r}: {why}")


def words_of(error: AMQPError) -> str:
    """Returns the broker's own words."""
    words = [str(part) for part in error.args if isinstance(part, str)]
    return words[-1] if words else "no reason given"


def _answers_connection_open(error: BaseException) -> bool:
    """Returns whether *error* answers Connection.Open. The library takes the broker's refusal for a broken frame."""
    return "Connection.OpenOk" in str(error) or (isinstance(error, ConnectionClosed) and 530 in error.args)


def innermost(error: BaseException) -> BaseException:
    """Returns the error of the operating system or of TLS that caused *error*, or else the first cause.

    The library wraps it with the same arguments, but loses its class.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _tls_trouble(error: BaseException, where: str) -> str | None:
    """Returns the whole sentence if a certificate, theirs or ours, is the problem; None: it is not."""
    match error:
        case ssl.SSLCertVerificationError():
            # Error numbers of OpenSSL, for which ssl has no names.
            match error.verify_code:
                case 9:
                    return f"the certificate of {where} is not valid yet; check the clocks of both machines"
                case 10:
                    return f"the certificate of {where} has expired; renew it at the broker"
                case 62 | 64:
                    said = error.verify_message.rstrip(".")
                    return f"the certificate of {where} is for other names: {said}; connect by a name that it has"
            rule = broken_rule(error)
            return (
                f"the certificate of {where} {rule}"
                if rule is not None
                else (
                    f"no trusted authority has signed the certificate of {where}: {error.verify_message}; "
                    "name its authority in tls.ca_file, or add it to those of the system"
                )
            )
        case ssl.SSLError() if getattr(error, "reason", None) in _IN_PLAIN_TEXT:
            return (
                f"{where} does not use TLS; name the port that does, mostly 5671, or, if the network needs no "
                "protection, use amqp:// (with host: leave out tls)"
            )
        case ssl.SSLError():
            return _alert(getattr(error, "reason", None) or "", where)
        case ConnectionResetError() if where.startswith("amqps:"):
            # A reset connection loses what the broker had sent before.
            return (
                f"{where} closed the connection while TLS was set up; check that the port is the one for TLS, "
                "and whether the broker requires a client certificate"
            )
    return None


def _alert(reason: str, where: str) -> str | None:
    """Returns why the broker refuses our certificate, from OpenSSL's name for it; None: it has another reason."""
    if "CERTIFICATE_REQUIRED" in reason:
        return f"{where} requires a client certificate; set tls.cert_file and tls.key_file"
    _, alert, said = reason.partition("ALERT_")
    if alert and ("CERTIFICATE" in said or said == "UNKNOWN_CA"):
        said = said.replace("_", " ").lower()
        return (
            f"{where} does not accept the client certificate: {said}; use one from an authority that the broker trusts"
        )
    return None


def _os_reason(innermost: BaseException) -> str | None:
    """Returns the message of the operating system, if the error came from there."""
    match innermost:
        case ssl.SSLError():
            return "its TLS does not work with that of this machine"
        case socket.gaierror():
            return "the host name is not known"
        case OSError() if innermost.errno:
            return os.strerror(innermost.errno).lower()
        case OSError() if str(innermost).startswith("Multiple exceptions"):
            return "none of its addresses accepts the connection"
    return None
