"""Connects to each address of the settings, and says what answers there."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Awaitable
from typing import Final, TypeVar, cast

from aiormq import Channel
from aiormq.exceptions import ChannelClosed

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.examination import Finding
from broadway_py.producers.hosts import host_in
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.connection.connection import Connection, connect_to
from broadway_py.producers.rabbitmq.connection.log_filter import hush
from broadway_py.producers.rabbitmq.settings.address import Target
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions

__all__ = ["Brokers"]

T = TypeVar("T")

_NAME: Final = "broadway check"
#: The first bytes that AMQP 0-9-1 sends, and the end of a request of HTTP, for servers that wait for it.
_GREETING: Final = b"AMQP\x00\x00\x09\x01 / HTTP/1.0\r\n\r\n"
#: The first bytes of an answer -> the protocol.
_PROTOCOLS: Final = {
    b"HTTP/": "HTTP",
    b"\x15\x03": "TLS",
    b"SSH-": "SSH",
    b"AMQP\x00\x01": "AMQP 1.0",
    b"AMQP\x03": "AMQP 1.0",
}
#: The first bytes of an answer in AMQP 0-9-1: a frame of channel 0, or its header, if it wants another version.
_OURS: Final = (b"\x01\x00\x00", b"AMQP\x00\x00")


class Brokers:
    """The addresses of *options*, of which each is tried once.

    Args:
        options: the settings. Their ``connect_timeout`` is the time for each step.
    """

    def __init__(self, options: BrokerOptions) -> None:
        self._options = options
        #: A connection to the first address that has accepted us. None: there is none.
        self.connection: Connection | None = None

    async def connect(self) -> AsyncGenerator[Finding, None]:
        """Yields what each address is like, and keeps the first connection. Call :meth:`close` in any case."""
        hush()
        try:
            targets = list(self._options.targets())
        except ProducerError as unreadable:
            yield Finding("wrong", str(unreadable))
            return
        for target in sorted(targets, key=lambda one: one.where):
            try:
                connection = await connect_to(target, self._options, _NAME)
            except ProducerError as failed:
                yield await self._failure(target, failed)
                continue
            if self.connection is None:
                self.connection = connection
            else:
                await connection.end()
            if target.is_tls and not target.tls.verify:
                yield Finding(
                    "note",
                    f"the certificate of {target.where} is not checked, so another machine could take its place; name "
                    "its authority in tls.ca_file, and leave tls.verify out",
                    ("tls", "verify"),
                )
            yield Finding(
                "right",
                f"{connection.product} at {target.where} accepts the login; its clock is not known, because AMQP does "
                "not tell the time",
            )

    async def channel(self) -> Channel:
        """Opens a channel."""
        channel = await cast("Connection", self.connection).channel(publisher_confirms=False)
        return cast("Channel", await channel.get_underlay_channel())

    async def ask(self, request: Awaitable[T]) -> T:
        """Returns the answer of the broker to *request*.

        Raises:
            ChannelClosed: the broker refused.
            ProducerError: it did not answer in time, or the connection was lost.
        """
        connection = cast("Connection", self.connection)

        def said(error: BaseException) -> ProducerError:
            if isinstance(error, ChannelClosed):
                raise error
            return errors.of_loss(error, self._options, connection.where)

        try:
            async with asyncio.timeout(self._options.connect_timeout):
                with errors.translated(said):
                    return await request
        except TimeoutError as error:
            await self._refuse_alarm()
            raise errors.of_connect(error, self._options, connection.where) from None

    async def look_for_alarm(self) -> None:
        """Finds out whether the broker accepts messages. Call it after something was published.

        A broker that does not accept any tells that then, and reads nothing more from the connection.

        Raises:
            ProducerError: it does not, or does not answer.
        """
        await self._refuse_alarm()
        await self.ask(self.channel())

    async def _refuse_alarm(self) -> None:
        connection = cast("Connection", self.connection)
        if await connection.is_blocked():
            raise ProducerError(errors.of_alarm(connection.where)) from None

    @property
    def where(self) -> str:
        """Returns the address of the connection."""
        return cast("Connection", self.connection).where

    @property
    def version(self) -> tuple[int, ...]:
        """Returns the version of the broker, such as (4, 3)."""
        return cast("Connection", self.connection).version

    async def close(self) -> None:
        """Closes the connection."""
        if self.connection is not None:
            await self.connection.end()

    async def _failure(self, target: Target, failed: ProducerError) -> Finding:
        setting = "url" if self._options.host is None else "host"
        if isinstance(failed, SourceRefused):
            return Finding("wrong", str(failed), (setting,))
        if isinstance(errors.innermost(failed), ssl.SSLError):
            return Finding("wrong", str(failed), ("tls",) if self._options.tls is not None else (setting,))
        protocol = None if target.is_tls else await self._other_protocol(target)
        if protocol is not None:
            return Finding("wrong", errors.of_other_protocol(protocol, target.where), (setting,))
        return Finding("away", str(failed), (setting,))

    async def _other_protocol(self, target: Target) -> str | None:
        """Returns the protocol that is spoken at *target*; None: it is AMQP, or nothing answers."""
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                reader, writer = await asyncio.open_connection(host_in(target.url), target.url.port)
                writer.write(_GREETING)
                answer = await reader.read(8)
        except OSError:  # TimeoutError is included
            return None
        finally:
            if writer is not None:
                writer.transport.abort()
        if not answer or answer.startswith(_OURS):
            return None
        return next((name for start, name in _PROTOCOLS.items() if answer.startswith(start)), "another protocol")
