"""Names and arguments that no broker would take are named at construction, not by a crash at the first connect."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from broadway_py.errors import OptionsError
from broadway_py.producers.rabbitmq import RabbitMQOptions, RabbitMQProducer
from broadway_py.producers.rabbitmq.topology.delay_queues import delay_queue

CARRIED = (
    "expected something that AMQP can carry: true or false, whole numbers of 64 bits, floating point numbers of "
    "32 bits, texts, times, bytearrays, and lists and dicts of them"
)
IN_CIRCLES: list[Any] = []
IN_CIRCLES.append(IN_CIRCLES)


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQProducer("q", **settings)
    return str(wrong.value)


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"declare": "active", "declare_options": {"arguments": {"x-a": 10**30}}}, "declare_options.arguments.x-a"),
        ({"dead_letter_arguments": {"x-a": 10**30}}, "dead_letter_arguments.x-a"),
        ({"retry_arguments": {"x-a": 10**30}}, "retry_arguments.x-a"),
        ({"consume_options": {"arguments": {"x-a": 10**30}}}, "consume_options.arguments.x-a"),
        ({"bindings": [{"exchange": "e", "arguments": {"x-a": 10**30}}]}, "bindings.0.arguments.x-a"),
    ],
)
def test_an_argument_that_amqp_cannot_carry_is_refused_with_its_path(settings: dict[str, Any], path: str) -> None:
    assert complaint(**settings) == f"{path}: {CARRIED}, got {10**30}"


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        1e300,
        b"bytes",
        (1, 2),
        {1, 2},
        {7: "no text"},
        [{"deep": {"down": object}}],
        Decimal("NaN"),
        Decimal(10**20),
        "\ud800",
        IN_CIRCLES,
        {"k" * 129: 1},
    ],
)
def test_whatever_the_client_library_would_choke_on_is_refused(value: object) -> None:
    assert complaint(dead_letter_arguments={"x-a": value}).startswith(f"dead_letter_arguments.x-a: {CARRIED}, got ")


@pytest.mark.parametrize(
    "value", [True, -(2**63), 2**63 - 1, 1.5, "text", "", None, [1, ["a"]], {"a": {"b": 1}}, bytearray(b"x")]
)
def test_what_amqp_carries_is_taken_as_it_is(value: object) -> None:
    assert RabbitMQOptions(queue="q", dead_letter_arguments={"x-a": value}).dead_letter_arguments == {"x-a": value}


def test_the_name_of_an_argument_has_room_for_128_bytes() -> None:
    RabbitMQProducer("q", consume_options={"arguments": {"k" * 128: 1}})
    assert complaint(consume_options={"arguments": {"k" * 129: 1}}) == (
        f"consume_options.arguments.{'k' * 129}: expected a name of 128 bytes of UTF-8 at most, but this one has 129, "
        f"got '{'k' * 76}..."
    )


@pytest.mark.parametrize("priority", [2**63, -(2**63) - 1])
def test_the_priority_of_a_consumer_has_64_bits(priority: int) -> None:
    bound = "less than 9223372036854775808" if priority > 0 else "greater than or equal to -9223372036854775808"
    assert complaint(consume_options={"priority": priority}) == (
        f"consume_options.priority: expected {bound}, got {priority}"
    )


def test_a_name_has_room_for_255_bytes() -> None:
    too_long = "expected 255 bytes of UTF-8 at most, but these are 256"
    name = "ü" * 128
    got = f"got '{'ü' * 76}..."
    assert complaint(consume_options={"consumer_tag": name}) == f"consume_options.consumer_tag: {too_long}, {got}"
    # Not shown, as its name might be that of a secret.
    assert complaint(bindings=[{"exchange": "e", "routing_key": name}]) == f"bindings.0.routing_key: {too_long}"
    RabbitMQProducer("q", bindings=[{"exchange": "e" * 127, "routing_key": "k" * 255}])
    assert complaint(bindings=[{"exchange": "e" * 128}]) == (
        f"bindings.0.exchange: expected 127 characters at most, but these are 128, got '{'e' * 76}..."
    )


@pytest.mark.parametrize("name", ["orders|eu", "größe", "a=b", "q[1]", "tenant$orders", "a\n"])
def test_a_name_that_the_client_library_refuses_is_refused_before(name: str) -> None:
    """It would do so at each connect, with a ValueError that says nothing of the setting."""
    odd = next(one for one in name if not one.isascii() or one in "|=[$\n")
    sentence = (
        "expected a name of letters a to z, digits, spaces and -_.:@#,/+ alone; the AMQP library takes no "
        f"{odd!r}, got {name!r}"
    )
    assert complaint(bindings=[{"exchange": name}]) == f"bindings.0.exchange: {sentence}"
    with pytest.raises(OptionsError) as refused:
        RabbitMQProducer(name)
    assert str(refused.value) == f"queue: {sentence}"


def test_streams_are_refused() -> None:
    because = "streams are not supported, because they do not deliver again what a pause gives back"
    assert complaint(declare="active", declare_options={"arguments": {"x-queue-type": "stream"}}) == (
        f"declare_options.arguments.x-queue-type: {because}; declare a queue"
    )
    assert complaint(consume_options={"arguments": {"x-stream-offset": "first"}}) == (
        f"consume_options.arguments: {because}; consume a queue, got {{'x-stream-offset': 'first'}}"
    )


def test_a_name_is_text_that_can_be_written() -> None:
    assert complaint(consume_options={"consumer_tag": "\udcff"}) == (
        "consume_options.consumer_tag: expected text that UTF-8 can write, got '\\udcff'"
    )


def test_the_nameless_exchange_cannot_be_bound() -> None:
    assert complaint(bindings=[{"exchange": "", "routing_key": "k"}]) == (
        "bindings.0.exchange: expected the name of an exchange; the nameless one cannot be bound, it leads to every "
        "queue by its name, got ''"
    )


def test_the_longest_queue_leaves_room_for_the_names_of_our_own() -> None:
    longest = delay_queue("q" * 230, 1e12, {"x-quorum-initial-group-size": 3})
    assert len(longest.name) <= 255


# --- the queues in which retries wait -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-message-ttl", 330_000),
        ("x-expires", 200),
        ("x-dead-letter-exchange", "elsewhere"),
        ("x-dead-letter-routing-key", "elsewhere"),
    ],
)
def test_what_brings_a_retry_back_cannot_be_replaced(name: str, value: object) -> None:
    assert complaint(retry_arguments={name: value}) == (
        f"retry_arguments: {name} is set for each delay, to send waiting messages back to their queue in time; leave "
        f"it out, got {{{name!r}: {value!r}}}"
    )


@pytest.mark.parametrize("name", ["x-max-length", "x-max-length-bytes"])
@pytest.mark.parametrize("overflow", [{}, {"x-overflow": "drop-head"}, {"x-overflow": "reject-publish-dlx"}])
def test_a_full_queue_for_retries_may_not_lose_any(name: str, overflow: dict[str, str]) -> None:
    classic = {"x-queue-type": "classic"}
    assert complaint(retry_arguments={**classic, name: 5, **overflow}).startswith(
        f"retry_arguments: with {name} a full queue deletes messages, or sends them back too early, unless x-overflow "
        "is reject-publish: set that, or leave it out, got {'x-queue-type': 'classic'"
    )
    RabbitMQProducer("q", retry_arguments={**classic, name: 5, "x-overflow": "reject-publish"})
    RabbitMQProducer("q", retry_arguments={name: 5})


@pytest.mark.parametrize(
    ("name", "safe", "value"),
    [
        ("x-dead-letter-strategy", "at-least-once", "at-most-once"),
        ("x-dead-letter-strategy", "at-least-once", True),
        ("x-overflow", "reject-publish", "drop-head"),
    ],
)
def test_a_queue_for_retries_may_not_let_go_without_asking(name: str, safe: str, value: object) -> None:
    for kind in ({}, {"x-queue-type": "quorum"}):
        assert complaint(retry_arguments={name: value, **kind}).startswith(
            f"retry_arguments: {name} is {safe} for quorum queues in which retries wait: with {value!r} the broker "
            "loses messages when it restarts; leave it out, got {"
        )
    RabbitMQProducer("q", retry_arguments={name: safe})


def test_what_only_one_kind_of_queue_takes_is_refused_for_the_other() -> None:
    assert complaint(retry_arguments={"x-queue-mode": "lazy"}) == (
        "retry_arguments: x-queue-mode is for classic queues, but retries wait in quorum queues, which lose none when "
        "the broker restarts: leave it out, or set x-queue-type: classic, got {'x-queue-mode': 'lazy'}"
    )
    assert complaint(retry_arguments={"x-queue-type": "classic", "x-dead-letter-strategy": "at-least-once"}).startswith(
        "retry_arguments: x-dead-letter-strategy is for quorum queues: leave it out, or leave out x-queue-type: "
        "classic, got {"
    )
    RabbitMQProducer("q", retry_arguments={"x-queue-type": "classic", "x-queue-mode": "lazy"})


def test_retries_wait_in_queues_that_can_let_them_go() -> None:
    assert complaint(retry_arguments={"x-queue-type": "stream"}) == (
        "retry_arguments: retries wait in queues of x-queue-type classic or quorum, not 'stream', "
        "got {'x-queue-type': 'stream'}"
    )
    quorum = {"x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    waiting = delay_queue("q", 1.0, RabbitMQOptions(queue="q", retry_arguments=quorum).retry_arguments)
    assert waiting.arguments == {
        "x-message-ttl": 1000,
        "x-dead-letter-exchange": "q.retry.back",
        "x-dead-letter-routing-key": "q",
        **quorum,
    }
