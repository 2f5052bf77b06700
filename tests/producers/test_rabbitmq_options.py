"""The settings of a RabbitMQ producer, and the whole sentence for each wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py.errors import OptionsError
from broadway_py.producers.rabbitmq import RabbitMQOptions, RabbitMQProducer
from tests.support.conformance import conforms

KNOWN_METADATA = (
    "app_id, cluster_id, consumer_tag, content_encoding, content_type, correlation_id, delivery_tag, exchange, "
    "expiration, headers, message_id, persistent, priority, redelivered, reply_to, routing_key, timestamp, type, "
    "user_id"
)


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQProducer(**settings)
    return str(wrong.value)


def test_the_defaults_are_those_of_the_documentation() -> None:
    options = RabbitMQProducer("orders").options
    assert options.url == "amqp://guest:guest@127.0.0.1/"
    assert options.prefetch_count == "auto"
    assert (options.on_success, options.on_failure) == ("ack", "reject")
    assert (options.declare, options.bindings, options.metadata) == ("passive", (), ())
    assert options.after_connect is None
    assert (options.heartbeat, options.connect_timeout, options.concurrency) == (15.0, 15.0, 1)


@conforms("R-002", "R-004")
def test_url_and_connection_name_are_taken() -> None:
    options = RabbitMQProducer("q", "amqps://u:p@mq.example:5671/vh", connection_name="billing").options
    assert options.url == "amqps://u:p@mq.example:5671/vh"
    assert options.connection_name == "billing"


@conforms("R-005")
@pytest.mark.parametrize(
    "url", ["http://user:canary-password@h/", "user:canary-password@h", "amqp://", "amqp://h:canary-password/", ""]
)
def test_a_url_that_is_not_amqp_is_refused_without_showing_it(url: str) -> None:
    assert complaint(queue="q", url=url) == (
        "url: expected amqp://user:password@host:port/vhost, or the same with amqps://"
    )


@conforms("R-008")
def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    assert complaint(queue="q", prefetch_coutn=5) == (
        "prefetch_coutn: unknown setting; known here: after_connect, bindings, concurrency, connect_timeout, "
        "connection_name, consume_options, declare, declare_options, heartbeat, metadata, name, on_failure, "
        "on_success, prefetch_count, queue, url; did you mean 'prefetch_count'?"
    )


@conforms("R-011", "R-017")
def test_unknown_settings_further_in_are_refused_with_their_path() -> None:
    assert complaint(queue="q", declare="active", declare_options={"durabel": True}) == (
        "declare_options.durabel: unknown setting; known here: arguments, auto_delete, durable, exclusive; "
        "did you mean 'durable'?"
    )
    assert complaint(queue="q", bindings=[{"exchange": "e"}, {"exchange": "e", "routing": "k"}]).startswith(
        "bindings.1.routing: unknown setting"
    )


@conforms("R-012", "R-013")
def test_the_queue_is_required_and_a_string() -> None:
    assert complaint() == "queue: required, but missing"
    assert complaint(queue=7) == "queue: expected a valid string, got 7"


@conforms("R-014")
def test_a_queue_that_the_broker_names_must_be_declared() -> None:
    assert complaint(queue="") == (
        "queue '' is named by the broker when it is declared, but declare is 'passive': "
        "set declare: active, or name the queue"
    )
    RabbitMQProducer("", declare="active")


def test_declare_options_without_a_declaration_are_refused() -> None:
    assert complaint(queue="q", declare_options={"durable": False}) == (
        "declare_options are used by declare: active only, but declare is 'passive': "
        "set declare: active, or remove them"
    )


@conforms("R-015")
def test_an_unknown_property_is_refused_with_its_position() -> None:
    assert complaint(queue="q", metadata=["headers", "header"]) == (
        f"metadata.1: no such property of a delivery; known here: {KNOWN_METADATA}; did you mean 'headers'?, "
        "got 'header'"
    )


@conforms("R-016")
def test_a_binding_without_an_exchange_is_refused_with_its_position() -> None:
    assert complaint(queue="q", bindings=[{"exchange": "e"}, {"routing_key": "k"}]) == (
        "bindings.1.exchange: required, but missing"
    )


@pytest.mark.parametrize("count", [0, -1, "lots", True, 2.5, 65_536])
def test_a_prefetch_without_a_limit_is_refused(count: object) -> None:
    assert complaint(queue="q", prefetch_count=count) == (
        f"prefetch_count: expected 'auto' or a whole number from 1 to 65535, got {count!r}"
    )


@pytest.mark.parametrize(
    ("setting", "capacity", "expected"), [("auto", 0, 20), ("auto", 300, 300), ("auto", 9999, 2000), (7, 300, 7)]
)
def test_the_prefetch_follows_what_the_pipeline_can_hold(setting: Any, capacity: int, expected: int) -> None:
    assert RabbitMQOptions(queue="q", prefetch_count=setting).prefetch(capacity) == expected


def test_unknown_verdicts_and_declarations_are_refused() -> None:
    verdicts = "'ack', 'reject', 'reject_and_requeue' or 'reject_and_requeue_once'"
    assert complaint(queue="q", on_failure="requeue") == f"on_failure: expected {verdicts}, got 'requeue'"
    assert complaint(queue="q", declare="yes") == "declare: expected 'never', 'passive' or 'active', got 'yes'"


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 15),
        ({"heartbeat": "2s"}, 2),
        ({"heartbeat": 1.2}, 2),
        ({"url": "amqp://h/?heartbeat=30"}, 30),
        ({"url": "amqp://h/?heartbeat=0"}, 15),
        ({"url": "amqp://h/?heartbeat=30", "heartbeat": 5}, 5),
    ],
)
def test_the_heartbeat_is_never_off(settings: dict[str, Any], seconds: int) -> None:
    assert RabbitMQOptions(queue="q", **settings).heartbeat_seconds == seconds


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:canary@mq/vh?x=canary", "amqp://***@mq:5672/vh"),
        ("amqps://user:canary@mq/", "amqps://***@mq:5671/"),
        ("amqp://[::1]:99/", "amqp://[::1]:99/"),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(url: str, shown: str) -> None:
    assert RabbitMQOptions(queue="q", url=url).where == shown


def test_no_repr_shows_the_url() -> None:
    producer = RabbitMQProducer("q", "amqp://user:canary@mq/")
    assert "canary" not in repr(producer)
    assert "canary" not in repr(producer.options)


async def test_a_description_cannot_be_run() -> None:
    with pytest.raises(RuntimeError, match="is a description: the pipeline opens a copy of it"):
        await RabbitMQProducer("q").handle_demand(1)
