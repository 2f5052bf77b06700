"""Counting from outside: what a publisher had confirmed against what handlers did, both in plain files.

Nothing here asks broadway_py. The publisher is a program of its own with a socket of its own::

    python -m tests.support.counter --url amqp://… --queue work --count 100000 --ids published.ids
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pamqp.frame
from pamqp import commands, header
from pamqp.base import Frame

__all__ = ["Counted", "HandledIds", "ids_in", "message_id", "number_in", "publish_confirmed"]

#: Digits of an id, at the start of each body.
_WIDTH: Final = 12
#: The end of each line in a file of ids.
_END: Final = ";"
#: Messages on the way without a confirm.
_WINDOW: Final = 5000
#: Seconds between two looks at what is due, with a rate.
_TICK: Final = 0.01


def message_id(body: bytes) -> str:
    """The id of the message with this body."""
    return body[:_WIDTH].decode()


class HandledIds:
    """Where a handler says what it did: one write per call, appended, so that processes may share the file.

    A kill may cut a write off between two pages. So each write begins a new line, and only a line with a mark at its
    end counts: what was cut off spoils no line of another process.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def add(self, ids: Iterable[str]) -> None:
        """Note that these messages were handled; on disk's page cache when it returns, so a kill -9 keeps it."""
        os.write(self._file, "\n".join(["", *(f"{one}{_END}" for one in ids), ""]).encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def ids_in(path: Path) -> list[str]:
    """The ids in a file of :class:`HandledIds`; a line that a kill has cut off does not count."""
    if not path.exists():
        return []
    return [line.removesuffix(_END) for line in path.read_text().splitlines() if line.endswith(_END)]


def number_in(path: Path) -> int:
    """How many ids :func:`ids_in` returns; quicker."""
    return path.read_bytes().count(f"{_END}\n".encode()) if path.exists() else 0


@dataclass(frozen=True)
class Counted:
    """Published against handled."""

    published: frozenset[str]
    handled: Counter[str]

    @classmethod
    def of(cls, published: Path, *handled: Path) -> Counted:
        """From the publisher's file and those of the handlers."""
        done: Counter[str] = Counter()
        for path in handled:
            done.update(ids_in(path))
        return cls(frozenset(ids_in(published)), done)

    @property
    def missing(self) -> list[str]:
        """Confirmed by the broker, handled by nobody: lost."""
        return sorted(self.published - self.handled.keys())

    @property
    def duplicates(self) -> dict[str, int]:
        """Handled more than once, and how often."""
        return {one: times for one, times in sorted(self.handled.items()) if times > 1}

    @property
    def strangers(self) -> list[str]:
        """Handled, but never confirmed to the publisher."""
        return sorted(self.handled.keys() - self.published)


async def publish_confirmed(
    url: str, queue: str, count: int, ids: Path, *, size: int = 256, start: int = 0, rate: int | None = None
) -> None:
    """Run the publisher as a process of its own and wait for its end. *rate*: messages a second; None: all at once."""
    publisher = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.counter", "--url", url, "--queue", queue),
        *("--count", str(count), "--size", str(size), "--start", str(start), "--ids", str(ids)),
        *(() if rate is None else ("--rate", str(rate))),
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await publisher.communicate()
    assert publisher.returncode == 0, f"the publisher failed: {errors.decode()}"


class _Publisher:
    """The fewest lines of AMQP that publish with confirms, as fast as a socket takes them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 5672), timeout=30)
        self._bytes = bytearray()
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect("Connection.Start")
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
        self._send(commands.Connection.StartOk({}, "PLAIN", login, "en_US"), 0)
        tune = self._expect("Connection.Tune")
        assert isinstance(tune, commands.Connection.Tune)
        # Without heartbeats: the program ends with its work.
        self._send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), 0)
        self._call(commands.Connection.Open(unquote(parts.path[1:]) or "/"), 0)
        self._call(commands.Channel.Open(), 1)
        self._call(commands.Confirm.Select(), 1)

    def publish(self, queue: str, count: int, size: int, start: int, ids: HandledIds, *, rate: int | None) -> None:
        """Publish persistent messages to *queue*; an id goes to *ids* once the broker has confirmed it.

        With a *rate*, at most so many a second are sent.
        """
        method = pamqp.frame.marshal(commands.Basic.Publish(exchange="", routing_key=queue), 1)
        confirmed, sent = 0, 0
        waiting = set()
        began = time.monotonic()
        while confirmed < count:
            pieces: list[bytes] = []
            due = count if rate is None else min(count, 1 + int((time.monotonic() - began) * rate))
            while sent < due and sent - confirmed < _WINDOW and len(pieces) < 500:
                pieces.append(method + self._content(start + sent, size))
                sent += 1
                waiting.add(sent)
            if pieces:
                self._socket.sendall(b"".join(pieces))
            if not waiting:
                time.sleep(_TICK)  # the next ones are not due yet
                continue
            tags = self._confirmations(waiting)
            waiting.difference_update(tags)
            confirmed += len(tags)
            ids.add(f"{start + tag - 1:0{_WIDTH}d}" for tag in tags)
        self._call(commands.Connection.Close(200, "done", 0, 0), 0)
        self._socket.close()

    def _content(self, number: int, size: int) -> bytes:
        name = f"{number:0{_WIDTH}d}"
        body = name.encode().ljust(size, b".")
        properties = commands.Basic.Properties(delivery_mode=2, message_id=name)
        head = pamqp.frame.marshal(header.ContentHeader(body_size=len(body), properties=properties), 1)
        return head + struct.pack(">BHI", 3, 1, len(body)) + body + b"\xce"

    def _confirmations(self, waiting: set[int]) -> list[int]:
        """Wait for a confirm, and return what it and those right behind it confirm."""
        found: list[int] = []
        for frame in self._frames():
            assert isinstance(frame, commands.Basic.Ack), f"the broker answered {frame!r}"
            tag = frame.delivery_tag
            found.extend(sorted(one for one in waiting if one <= tag) if frame.multiple else [tag])
            waiting.difference_update(found)
        return found

    def _frames(self) -> Iterator[object]:
        """At least one frame, and all further ones that have come with it."""
        none_yet = True
        while none_yet:
            piece = self._socket.recv(1 << 16)
            assert piece, "the broker closed the connection"
            self._bytes += piece
            while True:
                used, _, frame = self._unmarshal()
                if not used:
                    break
                del self._bytes[:used]
                none_yet = False
                yield frame

    def _unmarshal(self) -> tuple[int, int, object]:
        if len(self._bytes) < 7 or len(self._bytes) < 8 + struct.unpack_from(">I", self._bytes, 3)[0]:
            return 0, 0, None
        return pamqp.frame.unmarshal(bytes(self._bytes[: 8 + struct.unpack_from(">I", self._bytes, 3)[0]]))

    def _send(self, frame: Frame, channel: int) -> None:
        self._socket.sendall(pamqp.frame.marshal(frame, channel))

    def _call(self, frame: Frame, channel: int) -> None:
        self._send(frame, channel)
        self._expect(f"{frame.name}Ok")

    def _expect(self, name: str) -> object:
        (frame,) = self._frames()
        assert getattr(frame, "name", "") == name, f"expected {name}, the broker sent {frame!r}"
        return frame


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.counter")
    parser.add_argument("--url", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--ids", type=Path, required=True)
    wanted = parser.parse_args()
    ids = HandledIds(wanted.ids)
    _Publisher(wanted.url).publish(wanted.queue, wanted.count, wanted.size, wanted.start, ids, rate=wanted.rate)
    ids.close()


if __name__ == "__main__":
    main()
