"""What a failed message looks like when it is put away, and for how long it waits."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from typing import Any, Final, cast

import pytest
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.errors import ProducerError
from broadway_py.message import Failed
from broadway_py.producers.rabbitmq.deliveries.message import attempt_of
from broadway_py.producers.rabbitmq.retries.letters import (
    FailurePlace,
    Letter,
    as_new,
    dead_letter,
    fitted,
    moved,
    retry,
)
from broadway_py.producers.rabbitmq.topology.delay_queues import delay_queue, former_delay_queues, rung_ms, way_back

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()


def delivery(headers: dict[str, Any] | None = None, **properties: Any) -> DeliveredMessage:
    return DeliveredMessage(
        Basic.Deliver("tag", 7, False, "events", "orders.new"),
        ContentHeader(properties=Basic.Properties(headers=headers, **properties)),
        b"payload",
        cast("Channel", None),
    )


def died(
    came: DeliveredMessage, status: Failed | None = None, pipeline: str = "orders", *, retried: bool = True
) -> Letter:
    failed_in = FailurePlace(pipeline, "host:1")
    return dead_letter(
        came, "q.dead", queue="q", retried=retried, attempts=5, status=status, failed_in=failed_in, now_s=NOW
    )


# --- delays -----------------------------------------------------------------------------------------------------------


@given(st.floats(0.0, 1_000_000.0))
def test_a_delay_is_never_shorter_than_asked_and_at_most_half_as_long_again(seconds: float) -> None:
    rung = rung_ms(seconds) / 1000.0
    assert seconds <= rung <= max(0.25, 1.5 * seconds)


def test_there_are_few_queues_however_many_delays() -> None:
    assert len({rung_ms(number / 10) for number in range(36_000)}) <= 32
    assert rung_ms(1e12) == rung_ms(2_000_000.0) == 1_048_576_000


def test_a_queue_outlives_its_messages_and_returns_them_to_one_queue() -> None:
    waiting = delay_queue("orders", 5.0, {}, is_passing=True)
    assert waiting.name == "orders.retry.6000.c2"
    assert waiting.arguments == {
        "x-message-ttl": 6000,
        "x-dead-letter-exchange": "orders.retry.back",
        "x-dead-letter-routing-key": "orders",
        "x-expires": 306_000,
        "x-queue-type": "classic",
    }
    # Whoever puts a message in so long after the last declaration still has it back before the queue goes.
    assert waiting.safe_s < (306_000 - 6000) / 1000


def test_a_queue_that_the_broker_would_delete_although_it_is_used_stays() -> None:
    """To be declared again does not renew the lease of a quorum queue."""
    waiting = delay_queue("orders", 5.0, {})
    assert waiting.name == "orders.retry.6000.q2"
    assert waiting.arguments == {
        "x-message-ttl": 6000,
        "x-dead-letter-exchange": "orders.retry.back",
        "x-dead-letter-routing-key": "orders",
        "x-queue-type": "quorum",
        # All three together: without the others the first is not heeded.
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert waiting.safe_s == math.inf
    assert delay_queue("orders", 5.0, {"x-queue-type": "quorum", "x-overflow": "reject-publish"}) == waiting


def test_queues_with_other_arguments_have_other_names() -> None:
    """No queue can be declared with arguments other than those it has."""
    wanted: list[dict[str, Any]] = [
        {},
        {"x-queue-type": "classic"},
        {"x-queue-type": "classic", "x-queue-mode": "lazy"},
        {"x-quorum-initial-group-size": 3},
        {"x-quorum-initial-group-size": 5},
    ]
    names = [delay_queue("orders", 5.0, arguments).name for arguments in wanted]
    names.append(delay_queue("orders", 5.0, {}, back="").name)
    assert len(set(names)) == len(names)
    assert names[0] == "orders.retry.6000.q2"
    assert not set(names) & {name for name, _ in former_delay_queues("orders")}
    assert all(len(delay_queue("o" * 230, 1e12, arguments).name) <= 255 for arguments in wanted)


def test_the_exchange_by_which_messages_return_has_a_name_that_the_library_takes() -> None:
    assert way_back("orders") == "orders.retry.back"
    assert way_back("amq.gen-x") == "gen-x.retry.back"
    long = [way_back("o" * 229 + last) for last in "ab"]
    assert [len(name) <= 127 for name in long] == [True, True]
    assert long[0] != long[1]


def test_names_that_are_the_brokers_are_not_used() -> None:
    assert delay_queue("amq.gen-x", 1.0, {}, is_passing=True).name == "gen-x.retry.1000.c2"


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
    letter = retry(came, "q.retry.1000", 2, NOW, retried=False)
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
    first = retry(delivery(), "q", 2, NOW, retried=False)
    second = retry(delivery(dict(first.properties.headers or {})), "q", 3, NOW + 60, retried=True)
    assert second.properties.headers == {**(first.properties.headers or {}), "x-broadway-attempt": 3}


#: What a publisher can write who knows our names.
FORGED: Final = {
    "x-broadway-attempt": 2**31 - 1,
    "x-broadway-attempts": 9,
    "x-broadway-exchange": "internal",
    "x-broadway-first-failed-at": "1999-01-01T00:00:00Z",
    "x-broadway-id": "000000000000",
    "x-broadway-left-out": "trace",
    "x-broadway-queue": "payroll",
    "x-broadway-routing-key": "tenant.admin.delete",
}


def test_what_a_publisher_says_in_our_words_is_in_no_copy() -> None:
    came = delivery({"mine": 1, **FORGED})
    assert retry(came, "q.retry.1000", 2, NOW, retried=False).properties.headers == {
        "mine": 1,
        "x-broadway-attempt": 2,
        "x-broadway-exchange": "events",
        "x-broadway-first-failed-at": "2026-11-01T12:00:00Z",
        "x-broadway-routing-key": "orders.new",
    }
    headers = dict(died(came, retried=False).properties.headers or {})
    assert headers.pop("x-broadway-id") != "000000000000"
    assert not set(map(str, headers.values())) & set(map(str, FORGED.values()))
    assert as_new(came, "q").properties.headers == {"mine": 1}


def test_one_that_goes_on_waiting_elsewhere_is_as_it_was() -> None:
    waiting = retry(delivery({"mine": 1}, message_id="m"), "q.retry.1000", 2, NOW, retried=False).properties
    came = DeliveredMessage(Basic.GetOk(7), ContentHeader(properties=waiting), b"payload", cast("Channel", None))
    letter = moved(came, "q.retry.1000.q2")
    assert (letter.queue, letter.body, letter.properties.message_id) == ("q.retry.1000.q2", b"payload", "m")
    assert letter.properties.headers == waiting.headers


def test_a_dead_letter_says_why_and_shows_neither_payload_nor_reason() -> None:
    status = Failed("raised", "the canary payload is wrong", ValueError("canary"))
    headers = died(delivery({"x-broadway-attempt": 5, "mine": 1}), status, pipeline="p" * 500).properties.headers
    assert headers is not None
    assert headers["x-broadway-cause"] == "raised"
    assert headers["x-broadway-exception"] == "ValueError"
    assert headers["x-broadway-attempts"] == 5
    assert "x-broadway-attempt" not in headers
    assert len(str(headers["x-broadway-pipeline"])) == 200
    assert "canary" not in str(headers)


def test_a_replayed_one_is_as_if_it_had_never_failed() -> None:
    dead = died(delivery({"mine": 1, "CC": ["elsewhere"]}, message_id="m", priority=3)).properties
    dead.headers = {**(dead.headers or {}), "x-death": [{"queue": "q"}], "x-first-death-queue": "q"}
    came = DeliveredMessage(Basic.GetOk(7), ContentHeader(properties=dead), b"payload", cast("Channel", None))
    letter = as_new(came, "q")
    assert (letter.queue, letter.body) == ("q", b"payload")
    again = letter.properties
    assert (again.headers, again.message_id, again.priority, again.delivery_mode) == ({"mine": 1}, "m", 3, 2)


def test_a_replayed_one_can_be_sent_whatever_its_headers_came_as() -> None:
    came = delivery({"latin": b"\xff\xfe", "far": 1e300, "mine": 1})
    letter = as_new(came, "q")
    assert letter.properties.headers == {"latin": b"\xff\xfe", "far": 1e300, "mine": 1}
    letter.properties.marshal()


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
        # 4.3: what was given back counts in the one, and is no attempt.
        ({"x-delivery-count": 1, "x-acquired-count": 4}, True, 2),
        ({"x-acquired-count": 4}, True, 1),
        ({"x-broadway-attempt": 3, "x-acquired-count": 4}, True, 3),
        # Written by a publisher: the broker has counted deliveries, but none that failed, or this is the first.
        ({"x-delivery-count": 50, "x-acquired-count": 4}, True, 1),
        ({"x-delivery-count": 50}, False, 1),
        ({"x-acquired-count": 50}, False, 1),
        ({"x-broadway-attempt": "junk", "x-delivery-count": True}, True, None),
        ({"x-broadway-attempt": -5}, False, 1),
    ],
)
def test_attempts_are_counted_by_us_and_by_the_broker(
    headers: dict[str, Any], redelivered: bool, attempt: int | None
) -> None:
    assert attempt_of(headers, redelivered=redelivered, retried=True) == attempt


@pytest.mark.parametrize("headers", [{"x-broadway-attempt": 7}, {"x-delivery-count": 7}, {"x-acquired-count": 7}])
def test_an_attempt_that_a_publisher_has_written_is_none(headers: dict[str, int]) -> None:
    assert attempt_of(headers, redelivered=False, retried=False) == 1


@pytest.mark.parametrize(
    "written",
    [
        b"\x01aS\0\0\0\x04caf\xe9",
        b"\x01ad" + struct.pack(">d", 1e300),
        b"\x01ad" + struct.pack(">d", 0.1),
        b"\x01aT" + struct.pack(">Q", 1_700_000_000),
        # AMQP has seconds; many send these.
        b"\x01aT" + struct.pack(">Q", 1_700_000_000_123),
        b"\xff" + b"n" * 255 + b"t\x01",
        b"\x01aF\0\0\0\x0b\x01bA\0\0\0\x04b\x01t\0",
        b"\x01ax\0\0\0\x02\xff\xfe" + b"\x01bV",
    ],
)
def test_a_header_is_written_as_it_came(written: bytes) -> None:
    written = struct.pack(">I", len(written)) + written
    came = decode.field_table(written)[1]
    for letter in (retry(delivery(dict(came)), "q", 2, NOW, retried=False), died(delivery(dict(came)))):
        assert written[4:] in letter.properties.marshal()


def test_a_time_stamp_in_milliseconds_stays_one() -> None:
    stamp = struct.pack(">Q", 1_700_000_000_123)
    again = retry(delivery(timestamp=decode.timestamp(stamp)[1]), "q", 2, NOW, retried=False)
    assert again.properties.marshal().endswith(stamp)


def test_a_header_that_cannot_be_written_is_left_out_and_named() -> None:
    deep: dict[str, Any] = {}
    for _ in range(3000):
        deep = {"in": deep}
    headers = retry(delivery({"a": 1, "deep": deep}), "q", 2, NOW, retried=False).properties.headers or {}
    assert (headers["a"], headers["x-broadway-left-out"]) == (1, "deep")
    assert "deep" not in headers


def test_a_header_that_just_can_be_written_is_written_from_further_down_the_stack_too() -> None:
    def deeper(levels: int, letter: Letter) -> None:
        if levels:
            deeper(levels - 1, letter)
        else:
            letter.properties.marshal()

    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"in": deep}
        deeper(20, retry(delivery({"deep": deep}), "q", 2, NOW, retried=False))


def test_an_attempt_that_no_header_can_hold_is_put_away_all_the_same() -> None:
    came = delivery({"x-broadway-attempt": 2**63 - 1, "x-delivery-count": 2**63 - 1})
    attempt = attempt_of(came.header.properties.headers or {}, redelivered=True, retried=True)
    assert attempt == 2 * (2**31 - 1)
    retry(came, "q", attempt + 1, NOW, retried=True).properties.marshal()


# --- what does not fit ------------------------------------------------------------------------------------------------

#: Bytes that one frame carries, as RabbitMQ has it by default.
ROOM = 131_072 - 8


def size_of(letter: Letter) -> int:
    return len(ContentHeader(0, 0, letter.properties).marshal())


def test_the_largest_headers_of_others_are_left_out_until_the_frame_is_not_too_large() -> None:
    came = {"trace": "x" * 70_000, "baggage": "y" * 60_000, "tenant": "z", "x-broadway-attempt": 3}
    for letter in (retry(delivery(dict(came)), "q", 4, NOW, retried=True), died(delivery(dict(came)))):
        before = dict(letter.properties.headers or {})
        there = fitted(letter, ROOM)
        # The broker adds some, too.
        assert size_of(there) < ROOM - 1500
        assert there.properties.headers == {
            **{name: value for name, value in before.items() if name != "trace"},
            "x-broadway-left-out": "trace",
        }
        assert letter.properties.headers == before


def test_ours_are_the_last_to_go_unless_they_are_somebody_elses() -> None:
    came = {"x-broadway-exchange": "x" * 3000, "mine": "y" * 100}
    letter = fitted(retry(delivery(came, message_id="m"), "q", 2, NOW, retried=True), 4096 - 8)
    assert size_of(letter) < 4096 - 8 - 1000
    assert letter.properties.headers == {
        "mine": "y" * 100,
        "x-broadway-attempt": 2,
        "x-broadway-first-failed-at": "2026-11-01T12:00:00Z",
        "x-broadway-left-out": "x-broadway-exchange",
        "x-broadway-routing-key": "orders.new",
    }


def test_one_that_does_not_fit_without_any_headers_says_so() -> None:
    full = dict.fromkeys(("correlation_id", "reply_to", "message_id", "app_id", "content_type"), "x" * 255)
    letter = retry(delivery({}, **full), "q", 2, NOW, retried=False)
    with pytest.raises(ProducerError) as refused:
        fitted(letter, 1024)
    assert str(refused.value) == "a message for queue 'q' has properties that do not fit into 1024 bytes"


headers = st.dictionaries(
    st.text(max_size=60),
    st.one_of(
        st.text(max_size=2000),
        st.binary(max_size=2000),
        st.floats(),
        st.lists(st.dictionaries(st.text(max_size=9), st.integers(-9, 2**63 - 1))),
    ),
    max_size=9,
)


@given(headers, st.integers(3000, 20_000))
def test_what_fits_has_all_and_what_does_not_is_made_to_fit(came: dict[str, Any], room: int) -> None:
    letter = died(delivery(came))
    there = fitted(letter, room)
    assert size_of(there) <= room - 33
    if size_of(letter) <= room - 33 - 2048:
        assert there is letter


def test_a_frame_without_a_limit_takes_anything() -> None:
    letter = retry(delivery({"trace": "x" * 500_000}), "q", 2, NOW, retried=False)
    assert fitted(letter, -8) is letter
