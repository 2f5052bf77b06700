"""Makes a message from a delivery of the client library."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import did_you_mean
from broadway_py.message import NOOP, Acknowledgement, Message
from broadway_py.producers.rabbitmq.deliveries.returned import BY_DEFAULT, came_back
from broadway_py.producers.rabbitmq.settings.options import Disposition, RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.delivery_limits import count_in, times_returned
from broadway_py.producers.rabbitmq.wire.delivery_parser import Delivery

__all__ = [
    "ATTEMPT_HEADER",
    "EXCHANGE_HEADER",
    "ROUTING_KEY_HEADER",
    "PlainMessage",
    "RabbitMQReceipt",
    "Waiting",
    "attempt_of",
    "configured",
    "metadata_of",
    "tag_of",
    "to_message",
    "was_retried",
]


#: A delivery in the buffer, from either path: tag, redelivered, envelope (on the plain path: the whole delivery), body,
#: consumer tag.
Waiting = tuple[int, int, Any, bytes, str]

#: The headers of a message that we have published for another attempt: the number of the attempt, and the exchange and
#: routing key of the first delivery.
ATTEMPT_HEADER: Final = "x-broadway-attempt"
EXCHANGE_HEADER: Final = "x-broadway-exchange"
ROUTING_KEY_HEADER: Final = "x-broadway-routing-key"


class RabbitMQReceipt(NamedTuple):
    """What is needed to settle one delivery on its channel."""

    tag: int
    redelivered: bool
    on_success: Disposition
    on_failure: Disposition
    #: The queue that the message came from.
    queue: str = ""
    #: The exchange by which retries return to the queue; see ``returned.came_back``.
    back: str = BY_DEFAULT
    #: The delivery itself, to publish the message elsewhere as it came; see ``lazy_message.delivery_of``.
    delivery: DeliveredMessage | Delivery | None = None
    #: True: ``configure_ack`` of this message set ``on_failure``.
    is_configured: bool = False

    def __repr__(self) -> str:
        # The delivery is not shown, because it holds the payload.
        return f"<RabbitMQReceipt tag={self.tag} queue={self.queue!r} redelivered={self.redelivered}>"


class PlainMessage(Message[bytes]):
    """A message of the plain path. It keeps its delivery, which has all headers."""

    __slots__ = ("delivery",)

    delivery: DeliveredMessage


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
    """Returns the channel's number for this delivery."""
    return cast("int", delivery.delivery_tag)


def to_message(
    delivery: DeliveredMessage,
    acknowledger: Acknowledger,
    options: RabbitMQOptions,
    queue: str | None = None,
    back: str = BY_DEFAULT,
) -> Message[bytes]:
    """Makes the message for the pipeline. *acknowledger* settles it.

    *queue* is the queue that it came from, and *back* the exchange by which retries return there.
    """
    deliver = cast("Basic.Deliver", delivery.delivery)
    properties = delivery.header.properties
    queue = options.queues[0] if queue is None else queue
    redelivered = bool(deliver.redelivered)
    if options.consume_options.no_ack:
        acknowledgement = NOOP
    else:
        receipt = RabbitMQReceipt(
            tag_of(delivery),
            redelivered,
            options.on_success,
            options.on_failure,
            queue,
            back,
            delivery,
        )
        acknowledgement = Acknowledgement(acknowledger, None, receipt)
    retried = was_retried(deliver, properties, queue, back)
    metadata = metadata_of(deliver, properties, options.metadata, queue, retried=retried)
    message = PlainMessage(delivery.body, metadata, acknowledgement)
    message.delivery = delivery
    message.attempt = attempt_of(properties.headers or {}, redelivered=redelivered, retried=retried)
    return message


def was_retried(deliver: Basic.Deliver, properties: Basic.Properties, queue: str, back: str) -> bool:
    """Returns whether the message is a retry of ours, and came by the way of retries. Then its headers are ours."""
    headers = properties.headers or {}
    return ATTEMPT_HEADER in headers and came_back(
        deliver.exchange or "", deliver.routing_key or "", headers, queue, back
    )


def metadata_of(
    deliver: Basic.Deliver, properties: Basic.Properties, wanted: Sequence[str], queue: str, *, retried: bool
) -> dict[str, Any]:
    """Returns ``message.metadata``: the *wanted* properties that the message has.

    For a retry (see :func:`was_retried`), exchange and routing key are those of its first delivery.
    """
    headers = properties.headers or {}
    metadata: dict[str, Any] = {"redelivered": bool(deliver.redelivered)}
    for name in ("message_id", *wanted):
        value = queue if name == "queue" else _READERS[name](deliver, properties)
        # A property that the publisher did not set is left out. The library gives "" for an unset cluster_id.
        if value is not None and (value != "" or name == "exchange"):
            # A copy, so that a handler that changes its headers does not change the retry or dead letter.
            metadata[name] = _copy(value) if name == "headers" else value
    if retried:
        _restore_origin(metadata, headers)
    return metadata


def _copy(value: Any) -> Any:
    match value:
        case dict():
            return {name: _copy(each) for name, each in value.items()}
        case list():
            return [_copy(each) for each in value]
        case bytearray():
            return bytearray(value)
    return value


def _restore_origin(metadata: dict[str, Any], headers: Mapping[str, object]) -> None:
    """Restores exchange and routing key of the first delivery: a retry came through a queue of ours."""
    for name, header in (("exchange", EXCHANGE_HEADER), ("routing_key", ROUTING_KEY_HEADER)):
        origin = headers.get(header)
        if name in metadata and isinstance(origin, str):
            metadata[name] = origin


def attempt_of(headers: Mapping[str, object], *, redelivered: bool, retried: bool) -> int | None:
    """Returns which attempt a delivery with *headers* is; None: nobody has counted.

    If the message was *retried* (see :func:`was_retried`), our own header counts how often we have published it again.
    The broker counts how often this copy came back. Quorum queues do so; others only tell whether it came back.
    """
    first = (count_in(headers.get(ATTEMPT_HEADER)) or None) if retried else None
    returned = times_returned(headers, redelivered=redelivered)
    if returned is not None:
        return (first or 1) + returned
    if first is not None:
        return first
    return None if redelivered else 1


_DISPOSITIONS: Final[Sequence[Disposition]] = ("ack", "reject", "reject_and_requeue", "reject_and_requeue_once")


def configured(receipt: RabbitMQReceipt, options: Mapping[str, Any]) -> RabbitMQReceipt:
    """Returns *receipt* with the options of ``message.configure_ack(...)``.

    Raises:
        ValueError: an unknown option, or an unknown value of one.
    """
    known = ("on_success", "on_failure")
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"configure_ack: unknown option {name!r}; RabbitMQ takes {', '.join(known)}{did_you_mean(name, known)}"
            )
        if value not in _DISPOSITIONS:
            raise ValueError(f"configure_ack: {name} takes {', '.join(_DISPOSITIONS)}, got {value!r}")
    changed = receipt._replace(**options)
    return changed._replace(is_configured=True) if "on_failure" in options else changed
