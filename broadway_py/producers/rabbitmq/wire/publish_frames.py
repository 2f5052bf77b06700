"""Writes the frames of messages that are published. Pure."""

from __future__ import annotations

import struct
from typing import Final

from pamqp import frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

__all__ = ["PublishFrames"]

_BODY: Final = 3
_END: Final = b"\xce"
_head = struct.Struct(">BHI")  # type, channel, size of the payload


class PublishFrames:
    """Writes the frames of messages for one channel. Each message is mandatory.

    Args:
        channel: the number of the channel.
        room: the bytes that one frame can carry; 0 or less: any number.
    """

    def __init__(self, channel: int, room: int) -> None:
        self._channel = channel
        self._room = room
        # Consecutive messages mostly have the same destination.
        self._destination: tuple[str, str] | None = None
        self._method = b""

    def of(self, exchange: str, routing_key: str, properties: Basic.Properties, body: bytes) -> list[bytes]:
        """Returns the bytes of a message, in parts.

        Raises:
            TypeError, ValueError, OverflowError, RecursionError, struct.error: something in it cannot be written.
        """
        destination = (exchange, routing_key)
        if destination != self._destination:
            publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
            self._method = frame.marshal(publish, self._channel)
            self._destination = destination
        header = frame.marshal(ContentHeader(body_size=len(body), properties=properties), self._channel)
        return [self._method, header, *self._bodies(body)]

    def _bodies(self, body: bytes) -> list[bytes]:
        size, room = len(body), self._room
        if not size:
            return []
        if size <= room or room <= 0:
            return [_head.pack(_BODY, self._channel, size), body, _END]
        return [part for at in range(0, size, room) for part in self._bodies(body[at : at + room])]
