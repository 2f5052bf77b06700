"""What stands around a body that was cut out of the broker's bytes, decoded when somebody asks."""

from __future__ import annotations

import struct

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.errors import MalformedMessage

__all__ = ["decode"]

#: The head of the header frame that follows the method frame in an envelope.
_HEADER_FRAME_HEAD = 7


def decode(
    consumer_tag: str, tag: int, envelope: bytes, *, redelivered: bool
) -> tuple[Basic.Deliver, Basic.Properties]:
    """The method and the properties of a delivery, as the client library would have given them.

    Raises:
        MalformedMessage: they do not decode.
    """
    try:
        exchange, at = _name(envelope, 0)
        routing_key, at = _name(envelope, at)
        # One more byte is the end mark of the method frame; the last one that of the header frame.
        header = ContentHeader()
        header.unmarshal(envelope[at + 1 + _HEADER_FRAME_HEAD : -1])
    except (ValueError, IndexError, struct.error, OverflowError) as error:
        raise MalformedMessage(
            f"the properties of delivery {tag} do not decode ({type(error).__name__}); what published it is at fault"
        ) from None
    deliver = Basic.Deliver()
    # Set one by one: the constructor refuses names that a broker may well have.
    deliver.consumer_tag, deliver.delivery_tag, deliver.redelivered = consumer_tag, tag, redelivered
    deliver.exchange, deliver.routing_key = exchange, routing_key
    return deliver, header.properties


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end >= len(data):
        raise ValueError("it reaches past the end")
    return data[at + 1 : end].decode(), end
