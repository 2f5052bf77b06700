"""What a failed message looks like when it is put away, and for how long it waits."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.message import Failed
from broadway_py.producers.rabbitmq.delays import delay_queue, rung_ms
from broadway_py.producers.rabbitmq.delivery import attempt_of
from broadway_py.producers.rabbitmq.letters import Letter, Origin, bury, retry, without_our_headers

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()


def delivery(headers: dict[str, Any] | None = None, **properties: Any) -> DeliveredMessage:
    return DeliveredMessage(
        Basic.Deliver("tag", 7, False, "events", "orders.new"),
        ContentHeader(properties=Basic.Properties(headers=headers, **properties)),
        b"payload",
        cast("Channel", None),
    )


def buried(came: DeliveredMessage, status: Failed | None = None, pipeline: str = "orders") -> Letter:
    return bury(came, "q.dead", queue="q", attempts=5, status=status, origin=Origin(pipeline, "host:1"), now_s=NOW)


# --- delays -----------------------------------------------------------------------------------------------------------


@given(st.floats(0.0, 1_000_000.0))
def test_a_delay_is_never_shorter_than_asked_and_at_most_half_as_long_again(seconds: float) -> None:
    rung = rung_ms(seconds) / 1000.0
    assert seconds <= rung <= max(0.25, 1.5 * seconds)


def test_there_are_few_queues_however_many_delays() -> None:
    assert len({rung_ms(number / 10) for number in range(36_000)}) <= 32
    assert rung_ms(1e12) == rung_ms(2_000_000.0) == 1_048_576_000


def test_a_queue_outlives_its_messages_and_returns_them_to_one_queue() -> None:
    waiting = delay_queue("orders", 5.0, {})
    assert waiting.name == "orders.retry.6000"
    assert waiting.arguments == {
        "x-message-ttl": 6000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "orders",
        "x-expires": 306_000,
        "x-queue-type": "classic",
    }
    # Whoever puts a message in so long after the last declaration still has it back before the queue goes.
    assert waiting.safe_s < (306_000 - 6000) / 1000


def test_a_queue_that_the_broker_would_delete_although_it_is_used_stays() -> None:
    """To be declared again does not renew the lease of a quorum queue."""
    arguments = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}
    waiting = delay_queue("orders", 5.0, arguments)
    assert waiting.name == "orders.retry.6000.quorum"
    assert waiting.arguments == {
        "x-message-ttl": 6000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "orders",
        **arguments,
    }
    assert waiting.safe_s == math.inf


def test_names_that_are_the_brokers_are_not_used() -> None:
    assert delay_queue("amq.gen-x", 1.0, {}).name == "gen-x.retry.1000"


# --- headers ----------------------------------------------------------------------------------------------------------


def test_a_retry_is_the_message_as_it_came_but_for_what_would_lead_it_astray() -> None:
    headers: dict[str, Any] = {
        "mine": 1,
        "CC": ["elsewhere"],
        "BCC": ["elsewhere"],
        "x-delivery-count": 3,
        "x-acquired-count": 3,
        "x-death": [{"queue": "q"}],
        "x-first-death-queue": "q",
    }
    came = delivery(
        headers,
        message_id="m",
        content_type="text/plain",
        content_encoding="gzip",
        correlation_id="c",
        reply_to="r",
        priority=4,
        message_type="order",
        app_id="a",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        expiration="1000",
        user_id="bob",
        delivery_mode=1,
    )
    letter = retry(came, "q.retry.1000", 2, NOW)
    again = letter.properties
    assert (letter.queue, letter.body) == ("q.retry.1000", b"payload")
    assert again.headers == {
        "mine": 1,
        "x-broadway-attempt": 2,
        "x-broadway-exchange": "events",
        "x-broadway-first-failed-at": "2026-11-01T12:00:00Z",
        "x-broadway-routing-key": "orders.new",
    }
    came_with = came.header.properties
    for name in (
        *("message_id", "content_type", "content_encoding", "correlation_id", "reply_to", "priority"),
        *("message_type", "app_id", "timestamp"),
    ):
        assert getattr(again, name) == getattr(came_with, name), name
    assert (again.delivery_mode, again.expiration, again.user_id) == (2, None, None)
    # The delivery itself is left as it is: its handler may still hold it.
    assert came_with.headers == headers


def test_origin_and_first_failure_stay_from_one_attempt_to_the_next() -> None:
    first = retry(delivery(), "q", 2, NOW)
    second = retry(delivery(dict(first.properties.headers or {})), "q", 3, NOW + 60)
    assert second.properties.headers == {**(first.properties.headers or {}), "x-broadway-attempt": 3}


def test_a_dead_letter_says_why_and_shows_neither_payload_nor_reason() -> None:
    status = Failed("raised", "the canary payload is wrong", ValueError("canary"))
    headers = buried(delivery({"x-broadway-attempt": 5, "mine": 1}), status, pipeline="p" * 500).properties.headers
    assert headers is not None
    assert headers["x-broadway-cause"] == "raised"
    assert headers["x-broadway-exception"] == "ValueError"
    assert headers["x-broadway-attempts"] == 5
    assert "x-broadway-attempt" not in headers
    assert len(str(headers["x-broadway-pipeline"])) == 200
    assert "canary" not in str(headers)


def test_a_replayed_one_is_as_if_it_had_never_failed() -> None:
    headers = buried(delivery({"mine": 1, "x-death": []})).properties.headers
    assert without_our_headers(headers or {}) == {"mine": 1}


# --- attempts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "redelivered", "attempt"),
    [
        ({}, False, 1),
        ({}, True, None),
        ({"x-delivery-count": 2}, True, 3),
        ({"x-broadway-attempt": 3}, False, 3),
        ({"x-broadway-attempt": 3}, True, 3),
        ({"x-broadway-attempt": 3, "x-delivery-count": 2}, True, 5),
        # 4.x: what was given back counts in the one, and is no attempt.
        ({"x-delivery-count": 1, "x-acquired-count": 4}, True, 2),
        ({"x-acquired-count": 4}, True, 5),
        ({"x-broadway-attempt": "junk", "x-delivery-count": True}, True, None),
        ({"x-broadway-attempt": -5}, False, 1),
    ],
)
def test_attempts_are_counted_by_us_and_by_the_broker(
    headers: dict[str, Any], redelivered: bool, attempt: int | None
) -> None:
    assert attempt_of(headers, redelivered=redelivered) == attempt


@pytest.mark.parametrize(
    ("came", "sent"),
    [
        # Text that is no UTF-8, as the library decodes it: it has no way back for bytes.
        ({"a": b"caf\xe9"}, {"a": bytearray(b"caf\xe9")}),
        ({"a": [b"\xff", {"b": b"\xff"}]}, {"a": [bytearray(b"\xff"), {"b": bytearray(b"\xff")}]}),
        # It sends every number with a fraction in 32 bits.
        ({"a": 1e300, "b": 1}, {"b": 1}),
    ],
)
def test_headers_that_the_library_decodes_but_does_not_encode_hold_nothing_up(
    came: dict[str, Any], sent: dict[str, Any]
) -> None:
    for letter in (retry(delivery(dict(came)), "q", 2, NOW), buried(delivery(dict(came)))):
        letter.properties.marshal()
        assert without_our_headers(letter.properties.headers or {}) == sent
