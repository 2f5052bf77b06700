"""Says to traces from which queue a message came, and with which headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from broadway_py.message import Message
from broadway_py.producers.rabbitmq.deliveries.lazy_message import LazyMessage
from broadway_py.producers.rabbitmq.deliveries.message import PlainMessage, RabbitMQReceipt
from broadway_py.trace_place import TracePlace, TraceSource

__all__ = ["RabbitMQTraceSource"]

_SYSTEM: Final = "rabbitmq"
#: The broker invents names that begin so, and others at each connect.
_INVENTED: Final = "amq."


class RabbitMQTraceSource(TraceSource):
    """Reads queue and headers from the delivery, whatever ``metadata`` the settings ask for.

    Args:
        default: the queue of messages that do not tell theirs.
    """

    def __init__(self, default: str) -> None:
        super().__init__(_SYSTEM, _stable(default))
        self._places: dict[str, TracePlace] = {}
        # The names of headers that tell a trace, as they are in a delivery that is not decoded.
        self._marks: Sequence[bytes] = ()
        self._fields: frozenset[str] | None = None

    def place_of(self, message: Message[Any]) -> TracePlace:
        """Returns the queue that *message* came from."""
        data = message.acknowledgement.data
        if isinstance(message, LazyMessage):
            queue = message._origin.queue
        elif isinstance(data, RabbitMQReceipt):
            queue = data.queue
        else:
            return super().place_of(message)
        place = self._places.get(queue)
        if place is None:
            place = self._places[queue] = TracePlace(_SYSTEM, _stable(queue))
        return place

    def headers_of(self, message: Message[Any], fields: frozenset[str]) -> Mapping[str, Any]:
        """Returns the headers of the delivery. It is decoded only if it has one of *fields*.

        Raises:
            MalformedMessage: they do not decode.
        """
        if isinstance(message, LazyMessage):
            if fields != self._fields:
                self._fields, self._marks = fields, [name.encode() for name in fields]
            envelope: bytes = message._delivery[2]
            if not any(mark in envelope for mark in self._marks):
                return {}
            return message._decoded[1].headers or {}
        if isinstance(message, PlainMessage):
            return message.delivery.header.properties.headers or {}
        return super().headers_of(message, fields)


def _stable(queue: str) -> str | None:
    return None if not queue or queue.startswith(_INVENTED) else queue
