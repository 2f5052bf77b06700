"""The other side of systemd's notify protocol: a socket that a daemon tells how it is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["Listener", "listening"]

_END: Final = b"end of the test"


class Listener:
    """What has been told to the socket of *address*, in order."""

    def __init__(self, address: str) -> None:
        #: The value of ``NOTIFY_SOCKET``.
        self.address = address
        self._bound = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._bound)
        self._lines: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while (datagram := self._socket.recv(65536)) != _END:
            with self._grown:
                self._lines += datagram.decode().split("\n")
                self._grown.notify_all()

    @property
    def lines(self) -> list[str]:
        """All lines so far."""
        with self._grown:
            return list(self._lines)

    @property
    def changes(self) -> list[str]:
        """The lines that tell a change, without the time."""
        return [line for line in self.lines if line in ("READY=1", "RELOADING=1", "STOPPING=1")]

    def until(self, line: str, *, count: int = 1, timeout: float = 30.0) -> None:
        """Wait until *line* has come *count* times."""
        with self._grown:
            came = self._grown.wait_for(lambda: self._lines.count(line) >= count, timeout)
        assert came, f"expected {count} x {line!r}, within {timeout} s; got {self._lines}"

    def close(self) -> None:
        """End."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(_END, self._bound)
        self._reader.join(5)
        self._socket.close()


@contextmanager
def listening(address: object) -> Iterator[Listener]:
    """A service manager at *address*: a path, or an abstract name that begins with ``@``."""
    listener = Listener(str(address))
    try:
        yield listener
    finally:
        listener.close()
