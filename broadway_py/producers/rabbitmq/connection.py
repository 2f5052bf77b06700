"""A connection that can also be dropped at once."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, cast

import aio_pika
import aiormq
from aiormq.connection import TCPTransportFactory, TLSTransportFactory
from yarl import URL

from broadway_py.log import logger
from broadway_py.producers.rabbitmq.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.troubles import LIBRARY_ERRORS

__all__ = ["Connection"]

log = logger("broadway_py.producers.rabbitmq")

#: Seconds for a farewell; on a dead network the library would wait for three heartbeats.
_CLOSE_TIMEOUT: Final = 3.0


class _Transport(aiormq.TransportFactory):
    """Opens the socket as the library does, and keeps hold of it."""

    def __init__(self, heartbeat: int) -> None:
        self._heartbeat = heartbeat
        self.writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        library: aiormq.TransportFactory = TLSTransportFactory() if url.scheme == "amqps" else TCPTransportFactory()
        reader, self.writer = await library.create(url, **kwargs)
        sock: socket.socket | None = self.writer.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # What we sent was not even received: no need to wait for three missing heartbeats.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 2000 * self._heartbeat)
        return reader, self.writer


class Connection(aio_pika.Connection):
    """aio-pika's plain connection (it does not reconnect: the pipeline does), plus a bounded :meth:`end`."""

    def __init__(self, options: RabbitMQOptions, name: str) -> None:
        heartbeat = options.heartbeat_seconds
        super().__init__(
            URL(options.url).update_query({"heartbeat": str(heartbeat)}), client_properties={"connection_name": name}
        )
        self._factory = _Transport(heartbeat)
        self.kwargs["transport_factory"] = self._factory

    @property
    def is_silent(self) -> bool:
        """Whether nothing was heard from the broker for three heartbeats."""
        return (
            self.transport is not None and cast("aiormq.Connection", self.transport.connection).is_connection_was_stuck
        )

    async def end(self) -> None:
        """Say goodbye, or drop the connection if that takes too long. Never raises for what the broker does."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.close()
        except (TimeoutError, *LIBRARY_ERRORS) as error:
            log.debug("connection dropped without a farewell", error=type(error).__name__)
        finally:
            if self._factory.writer is not None:
                self._factory.writer.transport.abort()
