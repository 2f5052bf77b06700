"""AMQP as a broker puts it on the wire, for tests of what reads it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from pamqp import commands, frame, header

__all__ = ["HEARTBEAT", "OPENED", "TUNED", "body_frame", "content", "delivery", "method", "with_properties"]

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def method(command: Any, channel: int = 1) -> bytes:
    """A method frame."""
    return frame.marshal(command, channel)


def body_frame(part: bytes, channel: int = 1) -> bytes:
    """A body frame."""
    return struct.pack(">BHI", 3, channel, len(part)) + part + b"\xce"


def content(channel: int, parts: Sequence[bytes], **properties: Any) -> list[bytes]:
    """A header frame, and a body frame for each of *parts*."""
    head = header.ContentHeader(0, sum(map(len, parts)), commands.Basic.Properties(**properties))
    return [frame.marshal(head, channel), *(body_frame(part, channel) for part in parts)]


def with_properties(flags: int, properties: bytes, body_size: int = 7, channel: int = 1) -> bytes:
    """A header frame whose properties are put there as they are, also such that do not decode."""
    payload = struct.pack(">HHQH", 60, 0, body_size, flags) + properties
    return struct.pack(">BHI", 2, channel, len(payload)) + payload + b"\xce"


def delivery(
    tag: int,
    parts: Iterable[bytes] = (b"payload",),
    *,
    channel: int = 1,
    consumer_tag: str = "ours",
    redelivered: bool = False,
    exchange: str = "",
    routing_key: str = "work",
    **properties: Any,
) -> list[bytes]:
    """The frames of one delivery, its body in *parts*."""
    command = commands.Basic.Deliver(consumer_tag, tag, redelivered, exchange, routing_key)
    return [method(command, channel), *content(channel, list(parts), **properties)]


#: The two methods of the handshake that matter here.
TUNED = method(commands.Connection.Tune(channel_max=2047, frame_max=4096, heartbeat=60), 0)
OPENED = method(commands.Connection.OpenOk(), 0)
