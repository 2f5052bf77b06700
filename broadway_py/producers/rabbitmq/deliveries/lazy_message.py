"""Messages that decode their properties only on access: most handlers never need them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import MalformedMessage
from broadway_py.message import NOOP, OPEN, Acknowledgement, Message
from broadway_py.producer import Deliveries
from broadway_py.producers.rabbitmq.deliveries.message import (
    ATTEMPT_HEADER,
    RabbitMQReceipt,
    Waiting,
    attempt_of,
    metadata_of,
    was_retried,
)
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.delivery_limits import COUNTER, times_returned
from broadway_py.producers.rabbitmq.wire.delivery_parser import Delivery
from broadway_py.producers.rabbitmq.wire.envelope import decode, message_id_in, what_decodes

__all__ = ["LazyMessage", "delivery_of", "is_retry", "messages_of", "times_back"]

_ATTEMPT: Final = ATTEMPT_HEADER.encode()


class _Origin(NamedTuple):
    """What the messages of one consumer share."""

    queue: str
    #: The exchange by which retries return to the queue.
    back: str
    wanted: Sequence[str]


class LazyMessage(Message[bytes]):
    """A message whose :attr:`metadata` and :attr:`attempt` are decoded on first access.

    They are ordinary slots of :class:`Message`: a value that is set stays. If the properties of a message do not
    decode, access to its metadata raises ``MalformedMessage``, which fails that message with cause ``invalid``.
    """

    __slots__ = ("_decoded", "_delivery", "_origin")

    #: Method and properties, from which both attributes are read.
    _decoded: tuple[Basic.Deliver, Basic.Properties]

    def __init__(self, delivery: Delivery, origin: _Origin, acknowledgement: Acknowledgement) -> None:
        # Sets everything that Message sets, except the lazy slots. This runs per message, and super() would cost half
        # as much again.
        self.data = self.raw = body = delivery[3]
        self._size = len(body)
        self.batcher = "default"
        self.batch_key = "default"
        self._batch_mode = "bulk"
        self._status = None
        self._acknowledgement = acknowledgement
        self._settlement = OPEN
        self._ledger_entry = None
        self._children = None
        self._delivery = delivery
        self._origin = origin

    _read_when_asked = frozenset({"attempt", "metadata"})

    def __getattr__(self, name: str) -> Any:
        # Python calls this for a slot that was never set.
        read = _READERS.get(name)
        if read is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = read(self)
        setattr(self, name, value)
        return value

    def _read_decoded(self) -> tuple[Basic.Deliver, Basic.Properties]:
        return _decode(self._delivery)

    def _read_metadata(self) -> dict[str, Any]:
        deliver, properties = self._decoded
        queue, back, wanted = self._origin
        retried = was_retried(deliver, properties, queue, back)
        return metadata_of(deliver, properties, wanted, queue, retried=retried)

    def _read_attempt(self) -> int | None:
        # A message that does not decode fails when its metadata is read, but its attempt is counted all the same.
        try:
            deliver, properties = self._decoded
        except MalformedMessage:
            deliver, properties = _what_decodes(self._delivery)
        retried = was_retried(deliver, properties, self._origin.queue, self._origin.back)
        return attempt_of(properties.headers or {}, redelivered=bool(self._delivery[1]), retried=retried)

    def _named(self) -> object:
        # While nobody has read or set the metadata, only the message id is decoded. Asking super() does not call our
        # __getattr__, and takes half of the time of catching the error of an empty slot.
        if getattr(super(), "metadata", _UNREAD) is _UNREAD:
            return message_id_in(self._delivery[2])
        return super()._named()

    def detached(self) -> Message[bytes]:
        """Works like for any message. If the properties do not decode, the metadata holds only ``redelivered``."""
        try:
            _ = self.metadata
        except MalformedMessage:
            self.metadata = {"redelivered": bool(self._delivery[1])}
        return super().detached()


#: Stands for metadata that nobody has read or set.
_UNREAD: Final = object()

_READERS: Final[Mapping[str, Callable[[LazyMessage], object]]] = {
    "_decoded": LazyMessage._read_decoded,
    "attempt": LazyMessage._read_attempt,
    "metadata": LazyMessage._read_metadata,
}


def messages_of(
    taken: Sequence[Delivery],
    acknowledger: Acknowledger,
    options: RabbitMQOptions,
    queues: Mapping[str, str],
    ways_back: Mapping[str, str],
) -> Deliveries:
    """Returns the messages for the pipeline. *acknowledger* settles them.

    *queues* has the queue of each consumer, and *ways_back* the exchange by which retries return to each queue.
    """
    made = Deliveries()
    on_success, on_failure, wanted = options.on_success, options.on_failure, options.metadata
    settled = not options.consume_options.no_ack
    # The constructors of named tuples take twice as long.
    new, none_of_ours = tuple.__new__, NOOP
    consumer_tag: str | None = None
    origin = _Origin("", "", ())
    queue = back = ""
    for delivery in taken:
        tag, redelivered, _, _, its_consumer = delivery
        if its_consumer is not consumer_tag:
            consumer_tag, queue = its_consumer, queues[its_consumer]
            back = ways_back[queue]
            origin = _Origin(queue, back, wanted)
        if redelivered:
            made.redelivered += 1
        if settled:
            receipt = new(
                RabbitMQReceipt, (tag, redelivered == 1, on_success, on_failure, queue, back, delivery, False)
            )
            made.append(LazyMessage(delivery, origin, new(Acknowledgement, (acknowledger, None, receipt))))
        else:
            made.append(LazyMessage(delivery, origin, none_of_ours))
    return made


def delivery_of(receipt: RabbitMQReceipt) -> DeliveredMessage:
    """Returns the delivery in the client library's form, from either path, without properties that do not decode."""
    delivery = receipt.delivery
    if not isinstance(delivery, tuple):
        return cast("DeliveredMessage", delivery)
    deliver, properties = _what_decodes(delivery)
    body = delivery[3]
    return DeliveredMessage(deliver, ContentHeader(0, len(body), properties), body, cast("AbstractChannel", None))


def is_retry(receipt: RabbitMQReceipt) -> bool:
    """Returns whether the message may be one that we have published again. It decodes nothing.

    A publisher can forge the header, and the answer is then True, too.
    """
    delivery = receipt.delivery
    if isinstance(delivery, tuple):
        return _ATTEMPT in delivery[2]
    return delivery is not None and ATTEMPT_HEADER in (delivery.header.properties.headers or {})


def times_back(delivery: Waiting) -> int | None:
    """Works like :func:`times_returned`, for a delivery from either path."""
    came = delivery[2]
    if isinstance(came, bytes) and COUNTER not in came:
        return None  # most have no counter, and decoding takes time
    properties = _what_decodes(delivery)[1] if isinstance(came, bytes) else came.header.properties
    return times_returned(properties.headers or {}, redelivered=bool(delivery[1]))


def _decode(delivery: Delivery) -> tuple[Basic.Deliver, Basic.Properties]:
    tag, redelivered, envelope, _, consumer_tag = delivery
    return decode(consumer_tag, tag, envelope, redelivered=redelivered == 1)


def _what_decodes(delivery: Delivery) -> tuple[Basic.Deliver, Basic.Properties]:
    """Works like :func:`_decode`, but leaves out properties that do not decode."""
    try:
        return _decode(delivery)
    except MalformedMessage:
        tag, redelivered, envelope, _, consumer_tag = delivery
        return what_decodes(consumer_tag, tag, envelope, redelivered=redelivered == 1)
