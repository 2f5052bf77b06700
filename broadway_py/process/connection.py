"""The end of a socket that is used in an event loop: it sends frames, and hands over those that come."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final

from broadway_py.process.frames import Frame, FrameReader, frame

__all__ = ["FrameConnection"]

_READ_BYTES: Final = 1 << 18


class FrameConnection:
    """Exchanges frames over a connected socket. No method blocks. Make it in the event loop.

    Args:
        connection: the socket, which belongs to this object from now on.
        take: called with each frame that has come, in order. It must not raise.
        lost: called when the other end is closed. The socket stays open until :meth:`close`.
    """

    def __init__(self, connection: socket.socket, take: Callable[[Frame], object], lost: Callable[[], object]) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._take = take
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        # Those who send bound it: they wait for an answer, or for credit, before they send more.
        self._unsent = bytearray()
        self._will_write = False
        # True while the socket takes no more.
        self._is_full = False

    @property
    def is_open(self) -> bool:
        """True until :meth:`close`."""
        return self._socket.fileno() >= 0

    def open(self) -> None:
        """Begins to read.

        Raises:
            OSError: the event loop cannot watch the socket now.
        """
        self._loop.add_reader(self._socket.fileno(), self.read)

    def send(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame. It does nothing once the connection is closed."""
        if self.is_open:
            self._unsent += frame(kind, body, job=job, position=position)
            self._write()

    def send_soon(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame together with the next one, or else when the event loop has done what it has to do now.

        Each call of the system takes longer than a short frame is worth.
        """
        if self.is_open:
            self._unsent += frame(kind, body, job=job, position=position)
            if not self._will_write:
                self._will_write = True
                self._loop.call_soon(self._write_now)

    def read(self) -> None:
        """Hands over all frames that have arrived, without waiting for the event loop."""
        while self.is_open:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(self._socket.fileno())
                self._lost()
                return
            for each in self._reader.feed(data):
                self._take(each)

    def close(self) -> None:
        """Closes the socket. What was not sent yet is lost."""
        if self.is_open:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._unsent.clear()

    def _write_now(self) -> None:
        self._will_write = False
        if self.is_open and self._unsent:
            self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            if not self._is_full:
                self._is_full = True
                self._loop.add_writer(self._socket.fileno(), self._write)
            return
        except OSError:
            self._unsent.clear()  # the other end is gone, which the reader notices too
        if self._is_full:
            self._is_full = False
            self._loop.remove_writer(self._socket.fileno())
