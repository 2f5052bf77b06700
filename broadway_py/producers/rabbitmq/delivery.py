"""From a delivery of the client library to a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import did_you_mean
from broadway_py.message import Acknowledgement, Message
from broadway_py.producers.rabbitmq.options import RabbitMQOptions, Verdict

__all__ = ["Receipt", "configured", "tag_of", "to_message"]


class Receipt(NamedTuple):
    """What is needed to settle one delivery on its channel."""

    tag: int
    redelivered: bool
    on_success: Verdict
    on_failure: Verdict


def _property(name: str) -> Callable[[Basic.Deliver, Basic.Properties], object]:
    return lambda _, properties: getattr(properties, name)


def _field(name: str) -> Callable[[Basic.Deliver, Basic.Properties], object]:
    return lambda deliver, _: getattr(deliver, name)


def _persistent(_: Basic.Deliver, properties: Basic.Properties) -> bool | None:
    return None if properties.delivery_mode is None else properties.delivery_mode == 2


_READERS: Final[Mapping[str, Callable[[Basic.Deliver, Basic.Properties], object]]] = {
    **{name: _field(name) for name in ("consumer_tag", "delivery_tag", "exchange", "redelivered", "routing_key")},
    **{
        name: _property(name)
        for name in (
            "app_id",
            "cluster_id",
            "content_encoding",
            "content_type",
            "correlation_id",
            "expiration",
            "headers",
            "message_id",
            "priority",
            "reply_to",
            "timestamp",
            "user_id",
        )
    },
    "persistent": _persistent,
    "type": _property("message_type"),
}


def tag_of(delivery: DeliveredMessage) -> int:
    """The channel's number for this delivery."""
    return cast("int", delivery.delivery_tag)


def to_message(delivery: DeliveredMessage, session: Acknowledger, options: RabbitMQOptions) -> Message[bytes]:
    """The message that goes into the pipeline, to be settled by *session*."""
    deliver = cast("Basic.Deliver", delivery.delivery)
    properties = delivery.header.properties
    redelivered = bool(deliver.redelivered)
    metadata: dict[str, Any] = {"redelivered": redelivered}
    for name in ("message_id", *options.metadata):
        value = _READERS[name](deliver, properties)
        # What the publisher did not set is absent; the library gives "" for an unset cluster_id.
        if value is not None and (value != "" or name == "exchange"):
            metadata[name] = value
    receipt = Receipt(tag_of(delivery), redelivered, options.on_success, options.on_failure)
    message = Message(delivery.body, metadata, Acknowledgement(session, None, receipt))
    message.attempt = _attempt(properties.headers, redelivered=redelivered)
    return message


def _attempt(headers: Mapping[str, object] | None, *, redelivered: bool) -> int | None:
    # Quorum queues count earlier deliveries; other queues only say that there was one.
    earlier = (headers or {}).get("x-delivery-count")
    if isinstance(earlier, int):
        return earlier + 1
    return None if redelivered else 1


_VERDICTS: Final[Sequence[Verdict]] = ("ack", "reject", "reject_and_requeue", "reject_and_requeue_once")


def configured(receipt: Receipt, options: Mapping[str, Any]) -> Receipt:
    """*receipt* with the options of ``message.configure_ack(...)``.

    Raises:
        ValueError: an unknown option, or an unknown value of one.
    """
    known = ("on_success", "on_failure")
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"configure_ack: unknown option {name!r}; RabbitMQ takes {', '.join(known)}{did_you_mean(name, known)}"
            )
        if value not in _VERDICTS:
            raise ValueError(f"configure_ack: {name} takes {', '.join(_VERDICTS)}, got {value!r}")
    return receipt._replace(**options)
