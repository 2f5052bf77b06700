"""Decodes the envelope of a delivery: its method and properties."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from pamqp import decode as pamqp_decode
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from broadway_py.errors import MalformedMessage

__all__ = ["UNDECODABLE", "Property", "decodable", "decode", "message_id_in", "what_decodes"]

#: The size of the head of the header frame, which follows the method frame in an envelope.
_HEADER_FRAME_HEAD: Final = 7
#: The bytes of a header before the properties: class, weight, size of the body, and one word of flags.
_BEFORE_PROPERTIES: Final = 14

#: The errors of the decoder. Deeply nested tables exhaust the stack.
UNDECODABLE: Final = (ValueError, IndexError, struct.error, OverflowError, RecursionError)

#: The size of a property in bytes, by its type and its first bytes.
_SIZES: Final[Mapping[str, Callable[[bytes], int]]] = {
    "octet": lambda _: 1,
    "shortstr": lambda data: 1 + data[0],
    "table": lambda data: 4 + int.from_bytes(data[:4]),
    "timestamp": lambda _: 8,
}


def decode(
    consumer_tag: str, tag: int, envelope: bytes, *, redelivered: bool
) -> tuple[Basic.Deliver, Basic.Properties]:
    """Returns the method and the properties of a delivery, as the client library would.

    Raises:
        MalformedMessage: they do not decode.
    """
    try:
        exchange, at = _name(envelope, 0)
        routing_key, at = _name(envelope, at)
        # Skips the end mark of the method frame (one byte) and that of the header frame (the last byte).
        header = ContentHeader()
        header.unmarshal(envelope[at + 1 + _HEADER_FRAME_HEAD : -1])
    except UNDECODABLE as error:
        raise MalformedMessage(
            f"the properties of delivery {tag} cannot be decoded ({type(error).__name__}); correct its publisher"
        ) from None
    return _deliver(consumer_tag, tag, exchange, routing_key, redelivered=redelivered), header.properties


def what_decodes(
    consumer_tag: str, tag: int, envelope: bytes, *, redelivered: bool
) -> tuple[Basic.Deliver, Basic.Properties]:
    """Works like :func:`decode`, but decodes each property alone and leaves out those that do not decode."""
    names, properties, at = ["", ""], Basic.Properties(), 0
    with contextlib.suppress(IndexError):
        for position in range(len(names)):
            after = at + 1 + envelope[at]
            with contextlib.suppress(ValueError):
                names[position] = envelope[at + 1 : after].decode()
            at = after
        for each in decodable(envelope[at + 1 + _HEADER_FRAME_HEAD : -1]):
            setattr(properties, each.name, each.value)
    return _deliver(consumer_tag, tag, *names, redelivered=redelivered), properties


#: The flags of the properties before the message id, in wire order: two short texts, the headers (a table), two single
#: bytes, and three short texts.
_CONTENT_TYPE: Final = 1 << 15
_CONTENT_ENCODING: Final = 1 << 14
_HEADERS: Final = 1 << 13
_DELIVERY_MODE: Final = 1 << 12
_PRIORITY: Final = 1 << 11
#: Correlation id, reply-to, expiration.
_THREE_TEXTS: Final = (1 << 10, 1 << 9, 1 << 8)
_ANY_OF_THREE: Final = sum(_THREE_TEXTS)
_MESSAGE_ID: Final = 1 << 7
_BEFORE_FLAGS: Final = 2 + _HEADER_FRAME_HEAD + _BEFORE_PROPERTIES


def message_id_in(envelope: bytes) -> str | None:
    """Returns the message id; None: the publisher set none, or it does not decode.

    It skips the properties before the id. That takes a twentieth of the time of decoding everything.
    """
    # It runs for each message of an aggregator, so it is written without loops.
    try:
        at = 1 + envelope[0]
        at += envelope[at] + _BEFORE_FLAGS
        flags = envelope[at - 2] << 8 | envelope[at - 1]
        if not flags & _MESSAGE_ID:
            return None
        if flags & _CONTENT_TYPE:
            at += 1 + envelope[at]
        if flags & _CONTENT_ENCODING:
            at += 1 + envelope[at]
        if flags & _HEADERS:
            at += 4 + int.from_bytes(envelope[at : at + 4])
        if flags & _DELIVERY_MODE:
            at += 1
        if flags & _PRIORITY:
            at += 1
        if flags & _ANY_OF_THREE:
            for flag in _THREE_TEXTS:
                if flags & flag:
                    at += 1 + envelope[at]
        end = at + 1 + envelope[at]
        # The last byte is the end mark of the frame.
        return envelope[at + 1 : end].decode() or None if end < len(envelope) else None
    except (IndexError, UnicodeDecodeError):
        return None


class Property(NamedTuple):
    """A property of a header that decodes."""

    name: str
    #: Its bit in the word of flags.
    flag: int
    #: Its bytes in the header.
    data: bytes
    value: object


def decodable(header: bytes) -> Iterator[Property]:
    """Yields the properties in *header*, in their order, without those that do not decode."""
    flags, at = int.from_bytes(header[_BEFORE_PROPERTIES - 2 : _BEFORE_PROPERTIES]), _BEFORE_PROPERTIES
    for name, flag in Basic.Properties.flags.items():
        if flags & flag and at < len(header):
            kind = Basic.Properties.amqp_type(name)
            data = header[at : at + _SIZES[kind](header[at:])]
            at += len(data)
            try:
                value = pamqp_decode.by_type(data, kind)[1]
            except UNDECODABLE:
                continue
            yield Property(name, flag, data, value)


def _deliver(consumer_tag: str, tag: int, exchange: str, routing_key: str, *, redelivered: bool) -> Basic.Deliver:
    deliver = Basic.Deliver()
    # Set one by one, because the constructor refuses names that a broker may have.
    deliver.consumer_tag, deliver.delivery_tag, deliver.redelivered = consumer_tag, tag, redelivered
    deliver.exchange, deliver.routing_key = exchange, routing_key
    return deliver


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end >= len(data):
        raise ValueError("it reaches past the end")
    return data[at + 1 : end].decode(), end
