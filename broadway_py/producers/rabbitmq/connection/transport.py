"""The way to the broker: a stream whose deliveries go past the client library, and the socket below it."""

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

__all__ = ["CuttingReader", "Receiver", "Transport"]

#: As AMQP writes it.
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
#: Seconds between the signs of life that the client library gets while nothing else comes for it.
_SIGN_OF_LIFE_S: Final = 1.0
#: Seconds until the next address of a host is tried beside those that have not answered yet (RFC 8305).
_NEXT_ADDRESS_S: Final = 0.25


class Receiver(Protocol):
    """Who gets what a sink gets. Called from inside the event loop's reading: take note, and raise nothing."""

    def came(self, deliveries: list[Delivery]) -> None:
        """All of one read, in the order of their tags."""

    def ended(self, why: Ended) -> None:
        """From this byte on no more comes, of one consumer or of all."""

    def cut_off(self, problem: str | None) -> None:
        """The connection ended without a word; *problem* says what was wrong with the bytes, if it was that."""


class CuttingReader(asyncio.StreamReader):
    """Hands deliveries to receivers, as one list per read, and everything else to whoever reads this stream.

    The client library judges by its frames whether the broker lives. While deliveries alone come it gets heartbeats of
    ours, at most one a second and only when bytes have come: a dead network must look dead.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._time = loop.time
        self._cutter = Cutter()
        self._receivers: dict[Sink, Receiver] = {}
        self._is_broken = False
        self._mends = False
        self._signed_at = 0.0

    def sink(self, channel: int, receiver: Receiver) -> Sink:
        """A sink for our consumers on *channel*, and *receiver* for what it gets."""
        sink = self._cutter.sink(channel)
        self._receivers[sink] = receiver
        return sink

    def mend(self) -> None:
        """From now on leave out what does not decode of messages that the library fetches. On an open connection."""
        self._mends = True

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Bytes have come. Called by the transport; raises nothing: what does not fit ends the stream."""
        if self._is_broken:
            return
        try:
            cut = self._cutter.feed(cast("bytes", data))
        except CorruptFrameError as error:
            self._is_broken = True
            self._cut_off(str(error))
            self.set_exception(ConnectionError(f"the broker sent what is no AMQP: {error}"))
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
        """The broker's end is closed."""
        super().feed_eof()
        self._cut_off(None)

    def set_exception(self, exc: Exception) -> None:
        """The connection broke."""
        super().set_exception(exc)
        self._cut_off(None)

    def _cut_off(self, problem: str | None) -> None:
        receivers, self._receivers = self._receivers, {}
        for receiver in receivers.values():
            receiver.cut_off(problem)


class Transport(aiormq.TransportFactory):
    """Opens the socket for the library, and keeps hold of it.

    Args:
        heartbeat: seconds; what we sent and nobody received for two of them ends the connection.
        cutting: with a :class:`CuttingReader`, or else with the stream that the library expects.
        publishing: wait for as long as the broker likes: during an alarm it reads nothing of what is published, and
            that looks as if nobody received it. Heartbeats still tell whether it lives.
    """

    def __init__(self, heartbeat: int, *, cutting: bool, publishing: bool = False) -> None:
        self._heartbeat = heartbeat
        self._cutting = cutting
        self._publishing = publishing
        self.reader: CuttingReader | None = None
        self.writer: asyncio.StreamWriter | None = None
        self._forget: Callable[[], None] | None = None

    def let_go(self) -> None:
        """The connection has ended."""
        if self._forget is not None:
            self._forget()
            self._forget = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect; called by the library.

        Raises:
            AMQPConnectionError: it did not work; the reason is chained, as the library's own factories do it.
            ValueError: neither ``amqp`` nor ``amqps``.
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
                # What we sent was not even received: no need to wait for three missing heartbeats.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * self._heartbeat)
            self.let_go()
            # A child that a handler forks off would hold the connection open when we are gone.
            self._forget = forks.when_forked(lambda: forks.part_with([sock.fileno()]))
            transport, _ = await loop.create_connection(lambda: protocol, sock=sock, ssl=context, **kwargs)
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        if self._cutting:
            # Full as soon as anything waits: so who drains it knows that the socket has taken everything. One byte,
            # because a TLS transport of asyncio would take 0 for always full.
            transport.set_write_buffer_limits(high=1, low=0)
        self.writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        return reader, self.writer


async def _context(url: URL, provider: Any) -> ssl.SSLContext | None:
    """For ``amqps``, and only then: a factory of one's own has to see to that itself."""
    if url.scheme == "amqp":
        return None
    if url.scheme != "amqps":
        raise ValueError(f"expected amqp or amqps, got {url.scheme!r}")
    context = await provider.get_context()
    if not isinstance(context, ssl.SSLContext):
        # asyncio takes None for a wish to go without.
        raise TypeError(f"expected an SSLContext for amqps, got {type(context).__name__}")
    return context


async def _connected(url: URL) -> socket.socket:
    """A socket to the first address of the host that answers: one that swallows packets does not hide the others.

    The next is tried after a quarter of a second, the first ones beside it (RFC 8305); uvloop cannot do that itself.
    """
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host_in(url), url.port, type=socket.SOCK_STREAM)
    try:
        return await start_connection(addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S)
    except RuntimeError as error:  # uvloop's, for some addresses
        raise OSError(str(error)) from error
