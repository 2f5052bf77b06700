"""Sentences for what a broker on this machine does not do on demand; the others are tested on a real one."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from aiormq.exceptions import (
    AMQPConnectionError,
    AuthenticationError,
    ChannelClosed,
    ConnectionClosed,
    ConnectionResourceError,
)

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.producers.rabbitmq.connection.errors import (
    of_cancelled_consumer,
    of_first_words,
    of_loss,
    of_open,
    translated,
)
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions

OPTIONS = RabbitMQOptions(queue="work", url="amqps://user:canary@mq/shop")
WHERE = "amqps://***@mq:5671/shop"


def caused(cause: Exception) -> AMQPConnectionError:
    """As the library wraps what the operating system raised."""
    error = AMQPConnectionError(*cause.args)
    error.__cause__ = cause
    return error


def certificate_error(code: int, said: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    error.verify_code = code
    error.verify_message = said
    return error


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            caused(certificate_error(18, "self-signed certificate")),
            (
                f"no trusted authority has signed the certificate of {WHERE}: self-signed certificate; "
                "name its authority in tls.ca_file, or add it to those of the system"
            ),
        ),
        *(
            (
                caused(certificate_error(code, said)),
                (
                    f"the certificate of {WHERE} or that of its authority breaks a rule of RFC 5280, which Python "
                    f"3.13 and newer enforce: {said}; issue both again with the extensions of RFC 5280 "
                    "(Basic Constraints, Key Usage, Subject and Authority Key Identifier)"
                ),
            )
            # The first and the last that only a strict look finds, and those that old private authorities have.
            for code, said in (
                (80, "Path length invalid for non-CA cert"),
                (85, "Missing Authority Key Identifier"),
                (86, "Missing Subject Key Identifier"),
                (89, "Basic Constraints of CA cert not marked critical"),
                (92, "CA cert does not include key usage extension"),
                (93, "Using cert extension requires at least X509v3"),
            )
        ),
        (
            caused(certificate_error(9, "certificate is not yet valid")),
            f"the certificate of {WHERE} is not valid yet; check the clocks of both machines",
        ),
        (
            caused(certificate_error(10, "certificate has expired")),
            f"the certificate of {WHERE} has expired; renew it at the broker",
        ),
        (
            caused(certificate_error(62, "Hostname mismatch, certificate is not valid for 'mq'.")),
            (
                f"the certificate of {WHERE} is for other names: Hostname mismatch, certificate is not valid for "
                "'mq'; connect by a name that it has"
            ),
        ),
        (
            caused(alert("TLSV13_ALERT_CERTIFICATE_REQUIRED")),
            f"{WHERE} requires a client certificate; set tls.cert_file and tls.key_file",
        ),
        (
            caused(alert("SSLV3_ALERT_CERTIFICATE_EXPIRED")),
            (
                f"{WHERE} does not accept the client certificate: certificate expired; "
                "use one from an authority that the broker trusts"
            ),
        ),
        (
            caused(alert("TLSV1_ALERT_UNKNOWN_CA")),
            (
                f"{WHERE} does not accept the client certificate: unknown ca; use one from an authority that the "
                "broker trusts"
            ),
        ),
        (
            caused(ConnectionResetError(104, "Connection reset by peer")),
            (
                f"{WHERE} closed the connection while TLS was set up; check that the port is the one for TLS, "
                "and whether the broker requires a client certificate"
            ),
        ),
        (
            caused(ssl.SSLError(1, "[SSL: NO_PROTOCOLS_AVAILABLE] no protocols available")),
            (
                f"cannot reach {WHERE}: its TLS does not work with that of this machine; check host and port, and "
                "whether the broker runs"
            ),
        ),
        (
            caused(OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed")),
            (
                f"cannot reach {WHERE}: none of its addresses accepts the connection; "
                "check host and port, and whether the broker runs"
            ),
        ),
        (
            ConnectionResourceError("RESOURCE_ERROR - too many"),
            f"RabbitMQ at {WHERE} ended the connection while it was set up: RESOURCE_ERROR - too many",
        ),
        (
            ChannelClosed(540, "NOT_IMPLEMENTED - no such thing"),
            (
                f"RabbitMQ closed the channel for queue 'work' on {WHERE} while it was set up: "
                "NOT_IMPLEMENTED - no such thing"
            ),
        ),
        (asyncio.CancelledError(), f"the connection to {WHERE} broke while it was set up (CancelledError)"),
        (Exception(), f"{WHERE} closed the connection while it was set up"),
    ],
)
def test_why_connecting_failed(error: BaseException, sentence: str) -> None:
    trouble = of_open(error, OPTIONS)
    assert type(trouble) is ProducerError
    assert str(trouble) == sentence


def test_a_broker_without_our_way_to_log_in_is_a_refusal() -> None:
    trouble = of_open(AuthenticationError("EXTERNAL", ["PLAIN"]), OPTIONS)
    assert type(trouble) is SourceRefused
    assert str(trouble) == f"RabbitMQ at {WHERE} offers no login method that the producer knows; check auth= in the url"


@pytest.mark.parametrize(
    ("error", "silent", "sentence"),
    [
        # The library ends its reader by a cancellation when its writer met the broken connection first.
        (asyncio.CancelledError(), False, f"the connection to {WHERE} was cut"),
        (asyncio.CancelledError(), True, f"{WHERE} has sent nothing, not even a heartbeat, for 48 s"),
        (None, False, f"the connection to {WHERE} was cut"),
        (ConnectionClosed(320, "FORCED - bye"), True, f"RabbitMQ at {WHERE} closed the connection: FORCED - bye"),
        (ChannelClosed(None, None), False, f"RabbitMQ at {WHERE} closed the channel: no reason given"),
    ],
)
def test_why_a_working_connection_went(error: BaseException | None, silent: bool, sentence: str) -> None:
    assert str(of_loss(error, OPTIONS, silent=silent)) == sentence


@pytest.mark.parametrize(
    "error", [ConnectionResetError(), ChannelClosed(None, None), StopAsyncIteration(), Exception()]
)
def test_what_the_library_raises_is_translated(error: Exception) -> None:
    with (
        pytest.raises(ProducerError, match=r"^it is away$") as translation,
        translated(lambda _: ProducerError("it is away")),
    ):
        raise error
    assert translation.value.__cause__ is error


@pytest.mark.parametrize("error", [TimeoutError(), KeyError("work"), ProducerError("the queue is full")])
def test_what_it_does_not_raise_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as passed, translated(lambda _: ProducerError("it is away")):
        raise error
    assert passed.value is error


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), asyncio.IncompleteReadError(b"", 1)])
def test_a_port_that_hangs_up_at_our_first_words_may_be_the_one_for_tls(error: Exception) -> None:
    plain, tls = "amqp://h:5671/", "amqps://h:5672/"
    assert str(of_first_words(caused(error), OPTIONS, plain)) == (
        f"{plain} closed the connection as soon as the login began; check the port, and whether the broker runs; "
        "if it is the port for TLS, use amqps:// (with host: tls)"
    )
    assert "the login began" not in str(of_first_words(caused(error), OPTIONS, tls))


def test_an_answer_in_plain_text_says_that_there_is_no_tls() -> None:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error.reason = "WRONG_VERSION_NUMBER"
    assert str(of_first_words(caused(error), OPTIONS, "amqps://h:5672/")) == (
        "amqps://h:5672/ does not use TLS; name the port that does, mostly 5671, or, if the network "
        "needs no protection, "
        "use amqp:// (with host: leave out tls)"
    )


@pytest.mark.parametrize(
    ("is_there", "unsettled", "why"),
    [
        (False, 3, "the queue was deleted"),
        (
            True,
            3,
            (
                "the queue exists; either a message was not settled within the consumer time-out (30 minutes, unless "
                "the broker or the queue has another one), or the queue was declared again, or it has moved; keep "
                "batch_timeout plus the longest handler well below that time-out, or raise consumer_timeout at the "
                "broker"
            ),
        ),
        (True, 0, "the queue exists, so it was declared again, or it has moved"),
    ],
)
def test_why_a_consumer_was_cancelled(*, is_there: bool, unsettled: int, why: str) -> None:
    trouble = of_cancelled_consumer("work", WHERE, is_there=is_there, unsettled=unsettled)
    assert str(trouble) == f"RabbitMQ at {WHERE} cancelled the consumer of queue 'work': {why}"
