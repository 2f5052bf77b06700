"""A TCP proxy that breaks connections on demand, to stand between a client and its broker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Final, Self

from tests.support.eventually import PATIENCE
from tests.support.ports import free_port

__all__ = ["FaultProxy"]

#: Close with a reset instead of a farewell: linger on, for zero seconds.
_RESET: Final = struct.pack("ii", 1, 0)

#: How many bytes are kept of what clients said.
_HEARD: Final = 65_536


class _Link:
    """One connection through the proxy: two sockets, a pump each way."""

    def __init__(self, client: asyncio.StreamWriter, broker: asyncio.StreamWriter) -> None:
        self.writers = (client, broker)
        #: The client's side is gone, and the broker does not know.
        self.is_stranded = False

    def end(self, *, reset: bool) -> None:
        for writer in self.writers:
            if writer.transport.is_closing():
                continue
            if reset:
                _reset(writer)
            else:
                writer.close()

    def strand(self) -> None:
        self.is_stranded = True
        _reset(self.writers[0])


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class FaultProxy:
    """``async with FaultProxy("127.0.0.1", 5672) as proxy:`` listens on ``proxy.port`` and forwards, until told else.

    It owns every task and socket it makes; leaving the block ends them all.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Condition()
        #: Where it listens.
        self.port = 0
        #: When each connection was taken, on the loop's clock.
        self.accepted_at: list[float] = []
        #: The first bytes that came from clients, connection after connection; what an eavesdropper would have.
        self.heard = bytearray()

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.refuse()
        self.reset()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- faults ---------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Close every connection, politely (FIN)."""
        for link in list(self._links):
            link.end(reset=False)

    def reset(self) -> None:
        """Reset every connection (RST)."""
        for link in list(self._links):
            link.end(reset=True)

    def black_hole(self) -> None:
        """Forward nothing any more, either way; every connection stays open, and new ones hear nothing."""
        self._flowing.clear()

    def strand(self) -> None:
        """Reset the client's side of every connection. The broker's side stays open and hears nothing more.

        So the client knows at once, and the broker only when it misses heartbeats. New connections work.
        """
        for link in list(self._links):
            link.strand()
            # Its task holds the broker's side open until the end of the proxy.
            self._links.discard(link)

    def delay(self, seconds: float) -> None:
        """Hold back every piece that passes by *seconds*."""
        self._delay = seconds

    def heal(self) -> None:
        """Forward again, without delay."""
        self._delay = 0.0
        self._flowing.set()

    async def refuse(self) -> None:
        """Take no new connections: the port is shut. The old ones live on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        if self._server is None:
            # The system gives this port to nobody while it is shut.
            self.port = self.port or free_port()
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)

    async def flap(self, *, up: float, down: float, times: int) -> None:
        """Reset everything and shut the port for *down* seconds, then work for *up* seconds; *times* over."""
        for _ in range(times):
            await self.refuse()
            self.reset()
            await asyncio.sleep(down)
            await self.accept()
            await asyncio.sleep(up)

    def inject(self, piece: bytes) -> None:
        """Send *piece* to the broker on every connection, as if the client had said it; do so while it is quiet."""
        for link in self._links:
            link.writers[1].write(piece)

    # --- watching -------------------------------------------------------------------------------------------------

    async def until_connections(self, count: int, *, timeout: float = PATIENCE) -> None:
        """Wait until exactly *count* connections go through."""
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: len(self._links) == count)

    # --- the work -------------------------------------------------------------------------------------------------

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        self.accepted_at.append(loop.time())
        task = loop.create_task(self._forward(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forward(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        try:
            broker_in, broker_out = await asyncio.open_connection(*self._upstream)
        except OSError:
            client_out.close()
            return
        link = _Link(client_out, broker_out)
        self._links.add(link)
        await self._tell()
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(link, client_in, broker_out, listening=True))
                pumps.create_task(self._pump(link, broker_in, client_out))
        finally:
            link.end(reset=False)
            self._links.discard(link)
            await self._tell()

    async def _pump(
        self, link: _Link, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, listening: bool = False
    ) -> None:
        # A connection that ends under the pump is what this proxy is for.
        with contextlib.suppress(ConnectionError):
            while piece := await source.read(65_536):
                if listening and len(self.heard) < _HEARD:
                    self.heard += piece
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if link.is_stranded:
                    break
                target.write(piece)
                await target.drain()
        await self._flowing.wait()
        if link.is_stranded:
            await asyncio.Event().wait()  # until the proxy ends
        target.close()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
