"""Connections of places that can only call each other: a stream of bytes goes over in numbered calls.

A call takes long, however little it carries. So while calls are open, what is to be sent is gathered for the next one.
Ray begins the calls of one caller in any order. Their numbers say which comes first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from broadway_py.process.frames import Frame, FrameReader, frame

__all__ = ["MOST_OPEN", "Arriving", "AskedConnection", "CallingConnection", "Chunk", "Leaving"]

#: The most calls that are open at once, from one place to another one. Others wait for them at their receiver.
MOST_OPEN: Final = 4
#: The most bytes of a call.
_CHUNK_BYTES: Final = 1 << 20

#: The number of a call, from 0, and what it carries.
Chunk = tuple[int, bytes]


class Leaving:
    """The bytes that are to be sent, cut into chunks. Those who send frames bound it: they wait for credit."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._next_number = 0

    def __bool__(self) -> bool:
        return bool(self._bytes)

    def add(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Adds a frame."""
        self._bytes += frame(kind, body, job=job, position=position)

    def take(self) -> Chunk:
        """Returns the next chunk."""
        chunk = bytes(self._bytes[:_CHUNK_BYTES])
        del self._bytes[:_CHUNK_BYTES]
        number, self._next_number = self._next_number, self._next_number + 1
        return number, chunk

    def clear(self) -> None:
        """Drops what was not sent."""
        self._bytes.clear()


class Arriving:
    """Puts chunks in order, and divides them into frames. It holds as many as calls are open at most."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._early: dict[int, bytes] = {}
        self._next_number = 0

    def feed(self, number: int, data: bytes) -> Iterator[Frame]:
        """Yields the frames that the chunk *number* completes, with those behind it that were early."""
        self._early[number] = data
        while (following := self._early.pop(self._next_number, None)) is not None:
            self._next_number += 1
            yield from self._reader.feed(following)


class _Half:
    """What both kinds of connections have in common: what comes in."""

    def __init__(self, take: Callable[[Frame], object]) -> None:
        self._take = take
        self._arriving = Arriving()
        self._leaving = Leaving()
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._is_closed = False
        # What came before it was opened.
        self._held: deque[Chunk] = deque()
        self._will_send = False

    def open(self) -> None:
        """Begins to take frames."""
        self._is_open = True
        while self._held:
            self.arrived(*self._held.popleft())

    def close(self) -> None:
        """Ends it. What was not sent yet is lost."""
        self._is_closed = True
        self._leaving.clear()

    def arrived(self, number: int, data: bytes) -> None:
        """Takes what the other place has sent."""
        if not self._is_open:
            self._held.append((number, data))
            return
        for each in self._arriving.feed(number, data):
            self._take(each)

    def send(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame, with all others for which the event loop has a reason now."""
        if self._is_closed:
            return
        self._leaving.add(kind, body, job=job, position=position)
        if not self._will_send:
            self._will_send = True
            self._loop.call_soon(self._send_now)

    #: Each frame is sent soon.
    send_soon = send

    def _send_now(self) -> None:
        self._will_send = False
        self._send()

    def _send(self) -> None:
        raise NotImplementedError


class CallingConnection(_Half):
    """A connection to a place that can be called.

    Args:
        take: called with each frame that has come.
        call: calls the other place with a chunk. The future is done when it has the chunk.
        lost: called with the error if a call fails, or cannot be made. Nothing is sent afterwards.
    """

    def __init__(
        self,
        take: Callable[[Frame], object],
        call: Callable[[int, bytes], asyncio.Future[None]],
        lost: Callable[[BaseException], object],
    ) -> None:
        super().__init__(take)
        self._call = call
        self._lost = lost
        self._calls: set[asyncio.Future[None]] = set()

    def _send(self) -> None:
        while self._leaving and len(self._calls) < MOST_OPEN:
            try:
                call = self._call(*self._leaving.take())
            except Exception as error:  # noqa: BLE001  # whatever it is, its chunk is lost, and nothing may follow it
                self.close()
                self._lost(error)
                return
            self._calls.add(call)
            call.add_done_callback(self._has_called)

    def _has_called(self, call: asyncio.Future[None]) -> None:
        self._calls.discard(call)
        if call.cancelled():
            return
        if (error := call.exception()) is None:
            self._send()
        elif not self._is_closed:
            self.close()
            self._lost(error)


class AskedConnection(_Half):
    """A connection to a place that cannot be called: it asks for what is to be sent.

    Args:
        take: called with each frame that has come.
    """

    def __init__(self, take: Callable[[Frame], object]) -> None:
        super().__init__(take)
        self._has_some = asyncio.Event()
        self._has_ended = False

    async def next(self) -> Chunk | None:
        """Waits for the next chunk, and returns it; None: it was the last one."""
        while not self._leaving:
            if self._has_ended:
                return None
            self._has_some.clear()
            await self._has_some.wait()
        return self._leaving.take()

    def finish(self) -> None:
        """Nothing more is sent. Who asks gets what is left."""
        self._has_ended = True
        self._has_some.set()

    def _send(self) -> None:
        self._has_some.set()
