"""The transport to the broker: a stream whose deliveries bypass the client library, and its socket."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, SupportsIndex, cast

import aiormq
from aiohappyeyeballs import start_connection
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from broadway_py import forks
from broadway_py.producers.hosts import certificate_name, host_in
from broadway_py.producers.rabbitmq.wire.delivery_parser import CorruptFrameError, Cutter, Delivery, Ended, Sink
from broadway_py.producers.rabbitmq.wire.repair import mended

__all__ = ["CuttingReader", "DeliveryReceiver", "Transport"]

#: A heartbeat frame of AMQP.
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
#: Seconds between the heartbeats that we pass to the client library while nothing else comes for it.
_SIGN_OF_LIFE_S: Final = 1.0
#: Seconds until the host's next address is tried while earlier ones have not answered yet (RFC 8305).
_NEXT_ADDRESS_S: Final = 0.25


class DeliveryReceiver(Protocol):
    """Gets the results of a sink. It is called while the event loop reads, so it only records and never raises."""

    def came(self, deliveries: list[Delivery]) -> None:
        """Takes all deliveries of one read, in the order of their tags."""

    def ended(self, why: Ended) -> None:
        """Notes the end of one consumer, of the channel or of the connection."""

    def cut_off(self, problem: str | None) -> None:
        """Notes that the connection ended without a close. *problem* tells what was wrong with the bytes, if so."""


class CuttingReader(asyncio.StreamReader):
    """Hands deliveries to receivers, one list per read, and all other bytes to the reader of this stream.

    The client library uses incoming frames to check that the broker is alive. While only deliveries come, it gets
    heartbeats from us: at most one a second, and only when bytes have come, so that a dead network is still noticed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._time = loop.time
        self._cutter = Cutter()
        self._receivers: dict[Sink, DeliveryReceiver] = {}
        self._is_broken = False
        self._mends = False
        self._signed_at = 0.0

    def sink(self, channel: int, receiver: DeliveryReceiver) -> Sink:
        """Makes a sink for our consumers on *channel*. *receiver* gets its results."""
        sink = self._cutter.sink(channel)
        self._receivers[sink] = receiver
        return sink

    def mend(self) -> None:
        """Starts removing what does not decode in messages that the library fetches. For an open connection."""
        self._mends = True

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Takes new bytes; called by the transport. Raises nothing: wrong bytes end the stream."""
        if self._is_broken:
            return
        try:
            cut = self._cutter.feed(cast("bytes", data))
        except CorruptFrameError as error:
            self._is_broken = True
            self._cut_off(str(error))
            self.set_exception(ConnectionError(f"the broker sent something that is not AMQP: {error}"))
            return
        for sink, deliveries in cut.lists.items():
            self._receivers[sink].came(deliveries)
        if cut.forward:
            self._signed_at = self._time()
            super().feed_data(mended(cut.forward) if self._mends else cut.forward)
        elif self._cutter.is_open and self._time() - self._signed_at >= _SIGN_OF_LIFE_S:
            self._signed_at = self._time()
            super().feed_data(_HEARTBEAT)
        for sink, why in cut.ended:
            receiver = self._receivers[sink] if why.what == "consumer" else self._receivers.pop(sink)
            receiver.ended(why)

    def feed_eof(self) -> None:
        """Notes that the broker closed its side."""
        super().feed_eof()
        self._cut_off(None)

    def set_exception(self, exc: Exception) -> None:
        """Notes that the connection broke."""
        super().set_exception(exc)
        self._cut_off(None)

    def _cut_off(self, problem: str | None) -> None:
        receivers, self._receivers = self._receivers, {}
        for receiver in receivers.values():
            receiver.cut_off(problem)


class Transport(aiormq.TransportFactory):
    """Opens the socket for the library, and keeps a reference to it.

    Args:
        heartbeat: seconds; sent data that is not received for two heartbeats ends the connection.
        cutting: use a :class:`CuttingReader`; else the stream that the library expects.
        publishing: wait without a limit. During an alarm the broker reads nothing that is published, which looks as if
            nobody received it. Heartbeats still show whether it is alive.
    """

    def __init__(self, heartbeat: int, *, cutting: bool, publishing: bool = False) -> None:
        self._heartbeat = heartbeat
        self._cutting = cutting
        self._publishing = publishing
        self.reader: CuttingReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self._forget: Callable[[], None] | None = None

    def let_go(self) -> None:
        """Releases the socket after the connection has ended."""
        if self._forget is not None:
            self._forget()
            self._forget = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects. Called by the library.

        Raises:
            AMQPConnectionError: it did not work; the reason is chained, as in the library's own factories.
            ValueError: the scheme is neither ``amqp`` nor ``amqps``.
        """
        loop = asyncio.get_running_loop()
        context = await _context(url, kwargs.pop("ssl_context_provider", None))
        if context is not None:
            kwargs.setdefault("server_hostname", certificate_name(host_in(url)))
        reader = asyncio.StreamReader(loop=loop)
        if self._cutting:
            reader = self.reader = CuttingReader(loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            sock = await _connected(url)
            if not self._publishing and hasattr(socket, "TCP_USER_TIMEOUT"):
                # If sent data was not even received, there is no need to wait for three missing heartbeats.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * self._heartbeat)
            self.let_go()
            # A process that a handler forks would otherwise keep the connection open after we end.
            self._forget = forks.when_forked(lambda: forks.part_with([sock.fileno()]))
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock, ssl=context, **kwargs)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        if self._cutting:
            # The buffer counts as full when anything waits in it, so a drain returns only after the socket has taken
            # everything. The limit is one byte, because asyncio's TLS transport treats 0 as always full.
            transport.set_write_buffer_limits(high=1, low=0)
        self.writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self.writer


async def _context(url: URL, provider: Any) -> ssl.SSLContext | None:
    """Returns the TLS context for ``amqps``, else None. A custom transport factory must do this itself."""
    if url.scheme == "amqp":
        return None
    if url.scheme != "amqps":
        raise ValueError(f"expected amqp or amqps, got {url.scheme!r}")
    context = await provider.get_context()
    if not isinstance(context, ssl.SSLContext):
        # asyncio takes None as "no TLS".
        raise TypeError(f"expected an SSLContext for amqps, got {type(context).__name__}")
    return context


async def _connected(url: URL) -> socket.socket:
    """Returns a socket to the host's first address that answers. One that drops packets does not block the others.

    The next address is tried after a quarter of a second, while earlier ones are still tried (RFC 8305). uvloop cannot
    do that itself.
    """
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host_in(url), url.port, type=socket.SOCK_STREAM)
    try:
        return await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S)
    except RuntimeError as error:  # uvloop raises it for some addresses
        raise OSError(str(error)) from error
