"""The least AMQP 0-9-1 that a measurement needs, on a blocking socket. pamqp makes and reads the slow frames."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame, header

__all__ = ["BODY", "CONFIRM", "FRAME_OVERHEAD", "METHOD", "Wire", "content", "frame_size"]

METHOD: Final = 1
BODY: Final = 3
#: Type, channel, size and end mark of a frame.
FRAME_OVERHEAD: Final = 8
#: Class and method of basic.ack, as they stand in a frame.
CONFIRM: Final = (60 << 16) | 80

_SIZE = struct.Struct(">I")
_RECEIVE: Final = 1 << 18
_CHANNEL: Final = 1

M = TypeVar("M")


def frame_size(buffer: bytearray, at: int) -> int:
    """Bytes of the frame that begins at *at*; its first 7 bytes must be there."""
    return int(_SIZE.unpack_from(buffer, at + 3)[0]) + FRAME_OVERHEAD


def content(queue: str, body: bytes, properties: commands.Basic.Properties) -> bytes:
    """The frames of one publish to *queue* through the default exchange."""
    return b"".join(
        (
            frame.marshal(commands.Basic.Publish(exchange="", routing_key=queue), _CHANNEL),
            frame.marshal(header.ContentHeader(0, len(body), properties), _CHANNEL),
            struct.pack(">BHI", BODY, _CHANNEL, len(body)) + body + b"\xce",
        )
    )


class Wire:
    """One connection with one open channel. Use it in a ``with`` block, which closes both in good order.

    Leaving the block after an error only closes the socket.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._user, self._password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        path = parts.path.removeprefix("/")
        self._vhost = unquote(path) if path else "/"
        self.socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        #: Bytes that have come and were not taken yet.
        self.buffer = bytearray()

    def __enter__(self) -> Self:
        self.socket.sendall(frame.marshal(header.ProtocolHeader(0, 9, 1), 0))
        self.expect(commands.Connection.Start)
        answer = commands.Connection.StartOk(response=f"\0{self._user}\0{self._password}")
        self.socket.sendall(frame.marshal(answer, 0))
        tune = self.expect(commands.Connection.Tune)
        self.socket.sendall(frame.marshal(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0))
        self.call(commands.Connection.Open(self._vhost), commands.Connection.OpenOk, channel=0)
        self.call(commands.Channel.Open(), commands.Channel.OpenOk)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.call(commands.Channel.Close(200, "done", 0, 0), commands.Channel.CloseOk)
                self.call(commands.Connection.Close(200, "done", 0, 0), commands.Connection.CloseOk, channel=0)
        finally:
            self.socket.close()

    def receive(self) -> None:
        """Add what has come to :attr:`buffer`; waits for something, at most 60 s."""
        came = self.socket.recv(_RECEIVE)
        if not came:
            raise ConnectionError("the broker closed the connection")
        self.buffer += came

    def call(self, method: Any, answer: type[M], *, channel: int = _CHANNEL) -> M:
        """Send *method* and wait for its *answer*; frames before it are dropped."""
        self.socket.sendall(frame.marshal(method, channel))
        return self.expect(answer)

    def expect(self, answer: type[M]) -> M:
        """Wait for a method of this type; other frames before it are dropped.

        Raises:
            ConnectionError: the broker closed the channel or the connection instead.
        """
        while True:
            while len(self.buffer) < 7 or len(self.buffer) < frame_size(self.buffer, 0):
                self.receive()
            size, _, found = frame.unmarshal(bytes(self.buffer[: frame_size(self.buffer, 0)]))
            del self.buffer[:size]
            if isinstance(found, answer):
                return found
            if isinstance(found, commands.Channel.Close | commands.Connection.Close):
                raise ConnectionError(f"the broker refused: {found.reply_code} {found.reply_text}")
