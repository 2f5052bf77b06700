"""The settings of a RabbitMQ producer, and the whole sentence for each wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py.errors import OptionsError
from broadway_py.producers.rabbitmq import RabbitMQOptions, RabbitMQProducer
from broadway_py.testing.driving import copy_of
from tests.pipeline.support import events_logged
from tests.support.conformance import conforms

KNOWN_METADATA = (
    "app_id, cluster_id, consumer_tag, content_encoding, content_type, correlation_id, delivery_tag, exchange, "
    "expiration, headers, message_id, persistent, priority, queue, redelivered, reply_to, routing_key, timestamp, "
    "type, user_id"
)


def complaint(**settings: Any) -> str:
    with pytest.raises(OptionsError) as wrong:
        RabbitMQProducer(**settings)
    return str(wrong.value)


@conforms("R-001")
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


@conforms("R-008", "R-031")
def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    assert complaint(queue="q", prefetch_coutn=5) == (
        "prefetch_coutn: unknown setting; known here: after_connect, auth, backoff_max, backoff_min, backoff_type, "
        "bindings, concurrency, connect_timeout, connection_name, consume_options, dead_letter_arguments, "
        "dead_letter_declare, declare, declare_options, delivery_limit, delivery_path, heartbeat, host, merge_options, "
        "metadata, name, on_failure, on_success, partitions, password, password_file, port, prefetch_count, "
        "publish_timeout, queue, retry_arguments, tls, url, username, username_file, virtual_host; did you mean "
        "'prefetch_count'?"
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
    assert complaint(queue=7) == "queue: expected a text or a list of texts, got 7; put quotes around it"


@conforms("R-014")
def test_a_queue_that_the_broker_names_must_be_declared() -> None:
    assert complaint(queue="") == (
        "queue: '' is named by the broker when it is declared, but declare is 'passive': "
        "set declare: active, or name the queue"
    )
    RabbitMQProducer("", declare="active")


def test_declare_options_without_a_declaration_are_refused() -> None:
    assert complaint(queue="q", declare_options={"durable": False}) == (
        "declare_options: used by declare: active only, but declare is 'passive': set declare: active, or remove them"
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


@conforms("R-036")
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
    dispositions = "'ack', 'reject', 'reject_and_requeue' or 'reject_and_requeue_once'"
    assert complaint(queue="q", on_failure="requeue") == f"on_failure: expected {dispositions}, got 'requeue'"
    assert complaint(queue="q", declare="yes") == "declare: expected 'never', 'passive' or 'active', got 'yes'"


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ({}, 15),
        ({"heartbeat": "2s"}, 2),
        ({"heartbeat": 1.2}, 2),
        ({"url": "amqp://h/?heartbeat=30"}, 30),
        ({"url": "amqp://h/?heartbeat=3600"}, 3600),
        ({"url": "amqp://h/?heartbeat=30", "heartbeat": 5}, 5),
    ],
)
def test_the_heartbeat_is_never_off(settings: dict[str, Any], seconds: int) -> None:
    assert RabbitMQOptions(queue="q", **settings).heartbeat_seconds == seconds


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("0", "0"),
        ("3601", "3601"),
        ("100000", "100000"),
        ("5&heartbeat=0", "0"),
        ("x", "something else"),
        ("15s", "something else"),
        ("-1", "something else"),
        ("", "something else"),
    ],
)
def test_the_heartbeat_of_a_url_has_the_bounds_of_the_setting(asked: str, got: str) -> None:
    assert complaint(queue="q", url=["amqp://h/", f"amqp://u:canary@h/?heartbeat={asked}"]) == (
        f"url: expected heartbeat=1 to heartbeat=3600 in the query, whole seconds, got {got}"
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://user:canary@mq/vh?heartbeat=7", "amqp://***@mq:5672/vh"),
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


async def test_a_copy_that_is_not_open_gives_nothing() -> None:
    with pytest.raises(RuntimeError) as refused:
        await copy_of(RabbitMQProducer("q")).handle_demand(1)
    assert str(refused.value) == "<RabbitMQReader name=None> is not open; call open() first"


@conforms("R-033")
def test_failures_that_would_be_deleted_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    RabbitMQProducer("q", on_failure="reject").check_failure(None)
    assert events_logged(caplog) == []
    RabbitMQProducer("q").check_failure(None)
    (warning,) = events_logged(caplog)
    assert warning == (
        "failed messages are rejected, which deletes them unless the queue has a dead-letter exchange: "
        "set on_failure= to choose this, or use a failure policy"
    )


# --- several queues, consumers, copies, waits -----------------------------------------------------------------------


def test_several_queues_are_named_in_a_list() -> None:
    assert RabbitMQProducer(["a", "b"]).options.queues == ("a", "b")
    assert complaint(queue=[]) == "queue: expected the name of a queue or a list of them, got an empty list, got []"
    assert complaint(queue=["a", "b", "a"]) == "queue: queue 'a' is named twice, got ['a', 'b', 'a']"
    assert (
        complaint(queue=["a", 7])
        == "queue: expected a text or a list of texts, got ['a', 7]; put quotes around each item that is not text"
    )


def test_a_binding_of_a_queue_that_is_not_consumed_is_refused() -> None:
    assert complaint(queue=["orders", "bills"], bindings=[{"exchange": "e", "queue": "order"}]) == (
        "bindings.0.queue: 'order' is not consumed here, but orders, bills; did you mean 'orders'?"
    )


def test_a_name_that_leaves_no_room_for_the_names_of_our_own_queues_is_refused() -> None:
    assert complaint(queue="q" * 231) == (f"queue: expected a name of 230 bytes at most, got '{'q' * 76}...")


@pytest.mark.parametrize("wrong", [{"durable": False}, {"auto_delete": True}, {"exclusive": True}])
def test_a_quorum_queue_outlives_its_consumers(wrong: dict[str, bool]) -> None:
    (name,) = wrong
    options = {**wrong, "arguments": {"x-queue-type": "quorum"}}
    assert complaint(queue="q", declare="active", declare_options=options) == (
        f"declare_options.{name}: a quorum queue needs {name}: {str(not wrong[name]).lower()}"
    )


def test_the_priority_of_a_consumer_is_told_to_the_broker_once() -> None:
    options = RabbitMQOptions(queue="q", consume_options={"priority": 5, "arguments": {"x-a": 1}}).consume_options
    assert options.all_arguments() == {"x-a": 1, "x-priority": 5}
    assert complaint(queue="q", consume_options={"priority": 5, "arguments": {"x-priority": 1}}) == (
        "consume_options.priority: give priority, or x-priority among the arguments, not both"
    )


@conforms("R-010")
def test_an_unknown_consume_option_is_refused_with_its_path() -> None:
    assert complaint(queue="q", consume_options={"prioritty": 1}) == (
        "consume_options.prioritty: unknown setting; known here: arguments, consumer_tag, exclusive, no_ack, priority; "
        "did you mean 'priority'?"
    )


def _no_index() -> dict[str, Any]:
    return {}


def _two_arguments(index: int, other: int) -> dict[str, Any]:
    return {"queue": f"{index}{other}"}


@conforms("R-020")
@pytest.mark.parametrize("function", [_no_index, _two_arguments, 7])
def test_merge_options_takes_the_index_and_nothing_else(function: object) -> None:
    assert complaint(queue="q", merge_options=function).startswith(
        "merge_options: expected a function of one argument, the index of the copy, that returns settings, got "
    )


@conforms("R-021", "R-022")
@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ("queue", "merge_options: expected a dict of settings for copy 0, got str"),
        ({"queu": "x"}, "merge_options.queu: unknown setting; known here: "),
        ({"prefetch_count": 0}, "merge_options.prefetch_count: expected 'auto' or a whole number from 1 to 65535"),
        ({"concurrency": 2}, "merge_options: concurrency is the same for all copies and cannot change here"),
    ],
)
def test_what_merge_options_returns_is_checked_at_once(returned: object, sentence: str) -> None:
    assert complaint(queue="q", merge_options=lambda _: returned).startswith(sentence)


@conforms("R-019")
def test_merging_replaces_whole_settings() -> None:
    producer = RabbitMQProducer(
        "q",
        declare="active",
        declare_options={"durable": False, "auto_delete": True},
        merge_options=lambda index: {"queue": f"q{index}", "declare_options": {"exclusive": True}},
    )
    merged = producer._merged(3)
    assert merged.queue == "q3"
    assert (merged.declare_options.durable, merged.declare_options.auto_delete) == (True, False)


@conforms("R-072", "R-073", "R-074")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (1.0, 30.0)),
        ({"backoff_max": 5}, (1.0, 5.0)),
        ({"backoff_max": "500ms"}, (0.5, 0.5)),
        ({"backoff_min": 2}, (2.0, 30.0)),
        ({"backoff_min": 60}, (60.0, 60.0)),
        ({"backoff_min": 3, "backoff_max": 7}, (3.0, 7.0)),
    ],
)
def test_one_end_of_the_back_off_gives_the_other(settings: dict[str, Any], expected: tuple[float, float]) -> None:
    assert RabbitMQOptions(queue="q", **settings).backoff == expected


@conforms("R-075", "R-076")
@pytest.mark.parametrize("name", ["backoff_min", "backoff_max"])
def test_a_back_off_that_is_no_duration_is_refused(name: str) -> None:
    assert complaint(queue="q", **{name: -1}) == f"{name}: expected greater than or equal to 0, got -1"
    assert complaint(queue="q", **{name: "soon"}) == (
        f"{name}: expected a duration in seconds, or text such as '500ms', '2s', '1m', got 'soon'"
    )


@conforms("R-077")
def test_a_back_off_cannot_begin_above_its_end() -> None:
    assert complaint(queue="q", backoff_min=5, backoff_max=2) == (
        "backoff_min: expected no more than backoff_max (2), got 5"
    )


@conforms("R-032", "R-078")
def test_an_unknown_kind_of_back_off_is_refused() -> None:
    assert complaint(queue="q", backoff_type="linear") == (
        "backoff_type: expected 'jitter', 'rand_exp', 'exp', 'rand' or 'stop', got 'linear'"
    )


def test_merge_options_that_raises_says_so() -> None:
    def wrong(index: int) -> dict[str, Any]:
        raise KeyError(f"canary {index}")

    assert complaint(queue="q", merge_options=wrong) == "merge_options: raised KeyError for copy 0"
