"""From a delivery to a message, and what configure_ack takes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.acknowledger import Acknowledger
from broadway_py.message import Message
from broadway_py.producers.rabbitmq.deliveries.lazy_message import delivery_of
from broadway_py.producers.rabbitmq.deliveries.message import RabbitMQReceipt, configured, to_message
from broadway_py.producers.rabbitmq.retries.letters import retry
from broadway_py.producers.rabbitmq.settings.options import MetadataName, RabbitMQOptions
from tests.support.conformance import conforms


class Nobody(Acknowledger):
    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        raise AssertionError("nothing is settled in these tests")


def message_of(*metadata: MetadataName, redelivered: bool = False, **properties: Any) -> Message[bytes]:
    delivery = DeliveredMessage(
        Basic.Deliver("tag", 7, redelivered, "events", "orders.new"),
        ContentHeader(properties=Basic.Properties(**properties)),
        b"payload",
        cast("Channel", None),
    )
    return to_message(delivery, Nobody(), RabbitMQOptions(queue="q", metadata=metadata))


@conforms("R-037")
def test_only_what_was_asked_for_and_set_is_in_the_metadata() -> None:
    message = message_of("headers", "routing_key", "priority", headers={"a": 1}, app_id="not asked for")
    assert message.metadata == {"redelivered": False, "headers": {"a": 1}, "routing_key": "orders.new"}


def test_every_property_can_be_asked_for() -> None:
    when = datetime(2026, 11, 1, tzinfo=UTC)
    set_by_publisher: dict[str, Any] = {
        "app_id": "a",
        "content_encoding": "gzip",
        "content_type": "text/plain",
        "correlation_id": "c",
        "expiration": "1000",
        "headers": {"h": "v"},
        "message_id": "m",
        "priority": 3,
        "reply_to": "r",
        "timestamp": when,
        "user_id": "u",
    }
    wanted: tuple[MetadataName, ...] = (
        "app_id",
        "cluster_id",
        "consumer_tag",
        "content_encoding",
        "content_type",
        "correlation_id",
        "delivery_tag",
        "exchange",
        "expiration",
        "headers",
        "message_id",
        "persistent",
        "priority",
        "redelivered",
        "reply_to",
        "routing_key",
        "timestamp",
        "type",
        "user_id",
    )
    message = message_of(*wanted, **set_by_publisher, delivery_mode=2, message_type="order")
    assert message.metadata == {
        **set_by_publisher,
        "consumer_tag": "tag",
        "delivery_tag": 7,
        "exchange": "events",
        "persistent": True,
        "redelivered": False,
        "routing_key": "orders.new",
        "type": "order",
    }
    assert message.id == "m"


@pytest.mark.parametrize(
    ("redelivered", "headers", "attempt"),
    [
        (False, None, 1),
        (True, None, None),
        (True, {"x-delivery-count": 1}, 2),
        # A first delivery that says so was published with it.
        (False, {"x-delivery-count": 4}, 1),
        (True, {"x-delivery-count": "odd"}, None),
    ],
)
def test_the_attempt_comes_from_the_brokers_count_and_never_from_the_flag_alone(
    *, redelivered: bool, headers: dict[str, Any] | None, attempt: int | None
) -> None:
    assert message_of(redelivered=redelivered, headers=headers).attempt == attempt


def test_what_a_handler_does_to_headers_does_not_change_the_copy_that_is_put_away() -> None:
    message = message_of("headers", headers={"a": 1, "b": [{"c": 1}]})
    found = message.metadata["headers"]
    del found["a"]
    found["b"][0]["c"] = found["token"] = "of the handler"
    receipt = cast("RabbitMQReceipt", message.acknowledgement.data)
    headers = retry(delivery_of(receipt), "q", 2, 0.0, retried=False).properties.headers or {}
    assert {name: headers.get(name) for name in ("a", "b", "token")} == {"a": 1, "b": [{"c": 1}], "token": None}


def test_configure_ack_changes_one_message() -> None:
    receipt = RabbitMQReceipt(7, redelivered=False, on_success="ack", on_failure="reject")
    assert configured(receipt, {"on_failure": "reject_and_requeue_once"}) == receipt._replace(
        on_failure="reject_and_requeue_once", is_configured=True
    )


def test_an_unknown_option_or_value_of_configure_ack_is_refused() -> None:
    receipt = RabbitMQReceipt(7, redelivered=False, on_success="ack", on_failure="reject")
    with pytest.raises(ValueError, match="configure_ack") as unknown:
        configured(receipt, {"on_fail": "ack"})
    assert str(unknown.value) == (
        "configure_ack: unknown option 'on_fail'; RabbitMQ takes on_success, on_failure; did you mean 'on_failure'?"
    )
    with pytest.raises(ValueError, match="configure_ack") as wrong:
        configured(receipt, {"on_failure": "requeue"})
    assert str(wrong.value) == (
        "configure_ack: on_failure takes ack, reject, reject_and_requeue, reject_and_requeue_once, got 'requeue'"
    )
