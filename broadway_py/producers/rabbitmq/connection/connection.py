"""A connection that can also be dropped at once."""

from __future__ import annotations

import asyncio
import re
import ssl
from typing import Any, Final, cast

import aio_pika
import aiormq
from aio_pika.abc import UnderlayConnection
from aiormq.auth import AuthMechanism
from yarl import URL

from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.connection.transport import CuttingReader, Transport
from broadway_py.producers.rabbitmq.settings.address import Login, Target
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions

__all__ = ["Connection", "connect", "connect_to"]

log = logger("broadway_py.producers.rabbitmq")

#: Seconds for a proper close. On a dead network the library would wait for three heartbeats.
_CLOSE_TIMEOUT: Final = 3.0


class _Octets(str):
    """Text that is written as the bytes that it was read from, even if they are not UTF-8."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "surrogateescape") -> bytes:
        return super().encode(encoding, "surrogateescape")


class _Plain:
    """The login with user and password, in the form that the library needs."""

    name: Final = AuthMechanism.PLAIN.name

    def __init__(self, login: Login) -> None:
        self._login = login

    def value(self, _: object) -> _Plain:
        return self

    def marshal(self) -> str:
        return _Octets(f"\0{self._login.username}\0{self._login.password}")


class _Amqp(aiormq.Connection):
    """The library's connection, but with the user, password and virtual host of *login*.

    The library would read them from a URL, and change some of them.
    """

    def __init__(self, url: URL, *, login: Login, **settings: Any) -> None:
        super().__init__(url, **settings)
        self.vhost = login.virtual_host
        self._login = login

    def _credentials_class(self, start_frame: Any) -> Any:
        found = super()._credentials_class(start_frame)
        return _Plain(self._login) if found is AuthMechanism.PLAIN else found


class _Underlay(UnderlayConnection):
    @classmethod
    async def make_connection(cls, url: URL, timeout: float | None = None, **settings: Any) -> aiormq.Connection:
        connection = _Amqp(url, **settings)
        async with asyncio.timeout(timeout):
            await connection.connect()
        return connection


class Connection(aio_pika.Connection):
    """aio-pika's plain connection (it does not reconnect: the pipeline does), plus a bounded :meth:`end`."""

    def __init__(
        self,
        target: Target,
        context: ssl.SSLContext | None,
        heartbeat: int,
        name: str,
        *,
        cutting: bool = False,
        publishing: bool = False,
    ) -> None:
        super().__init__(target.url, ssl_context=context, client_properties={"connection_name": name})
        self.kwargs["login"] = target.login
        #: The broker's address as it may be shown.
        self.where = target.where
        self._factory = Transport(heartbeat, cutting=cutting, publishing=publishing)
        self.kwargs["transport_factory"] = self._factory
        if context is not None and target.tls.server_name is not None:
            self.kwargs["server_hostname"] = target.tls.server_name

    async def connect(self, timeout: float | None = None) -> None:
        """Connects as the library does, but with the login and transport of the settings.

        Raises:
            AMQPError, OSError: it did not work.
        """
        self.transport = await _Underlay.connect(self.url, self._on_connection_close, timeout, **self.kwargs)
        await self._on_connected()

    def __str__(self) -> str:
        """Returns the address as it may be shown: the library logs its connections, and its own text shows the user."""
        return self.where

    @property
    def is_silent(self) -> bool:
        """Returns whether nothing was received from the broker for three heartbeats."""
        return (
            self.transport is not None and cast("aiormq.Connection", self.transport.connection).is_connection_was_stuck
        )

    @property
    def product(self) -> str:
        """Returns what the broker calls itself, such as ``RabbitMQ 4.3.6``."""
        told = (self._told("product"), self._told("version"))
        return " ".join(one for one in told if isinstance(one, str)) or "a broker"

    def _told(self, name: str) -> object:
        return None if self.transport is None else self.transport.connection.server_properties.get(name)

    @property
    def version(self) -> tuple[int, ...]:
        """Returns the broker's version, such as (4, 3); empty if it does not tell."""
        found = self._told("version")
        numbers = re.match(r"(\d+)\.(\d+)", found) if isinstance(found, str) else None
        return () if numbers is None else tuple(map(int, numbers.groups()))

    @property
    def reader(self) -> CuttingReader | None:
        """Returns the reader that takes deliveries out, if it was asked for. Set after the connect."""
        return self._factory.reader

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """Returns the writer that bypasses the library. Set after the connect."""
        return self._factory.writer

    async def is_blocked(self) -> bool:
        """Returns whether the broker has said that it accepts no messages for now: its memory or disk is full."""
        if self.transport is None:
            return False
        try:
            async with asyncio.timeout(0):
                await self.transport.connection.ready()
        except TimeoutError:
            return True
        return False

    async def end(self) -> None:
        """Closes the connection, or drops it if that takes too long or is cancelled.

        Never raises for errors of the broker.
        """
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self.close()
        except Exception as error:
            if not errors.is_of_library(error):
                raise
            log.debug("the connection ended without a close from the broker", error=type(error).__name__)
        finally:
            self.abort()
            self._factory.let_go()
            if not self._closed.done():
                # Otherwise the library's finalizer would close it again later, in a task that nobody owns.
                self._closed.set_result(True)

    def abort(self) -> None:
        """Drops the connection without closing it properly. :meth:`end` must still be called."""
        if self._factory.writer is not None:
            self._factory.writer.transport.abort()


async def connect(options: BrokerOptions, name: str, *, cutting: bool = False, publishing: bool = False) -> Connection:
    """Connects as *name* to the first address that accepts us, in random order.

    With *cutting*, its :attr:`~Connection.reader` can take deliveries past the client library. With *publishing*, it
    survives an alarm of the broker.

    Raises:
        SourceRefused: one address refused the login or the virtual host. The others are not tried: they would refuse,
            too, and count the failed tries.
        ProducerError: none of them is available; for several addresses, it has the error of each.
    """
    absences: list[ProducerError] = []
    for target in options.targets():
        try:
            return await connect_to(target, options, name, cutting=cutting, publishing=publishing)
        except SourceRefused:
            raise
        except ProducerError as away:
            absences.append(away)
    if len(absences) == 1:
        raise absences[0]
    raise ProducerError("; ".join(map(str, absences))) from absences[-1]


async def connect_to(
    target: Target, options: BrokerOptions, name: str, *, cutting: bool = False, publishing: bool = False
) -> Connection:
    """Connects as :func:`connect` does, but to *target* only.

    Raises:
        SourceRefused: it refused the login or the virtual host.
        ProducerError: it is not available.
    """
    context = await asyncio.to_thread(target.tls.context) if target.is_tls else None
    if context is not None and not target.tls.verify:
        log.warning("the broker's certificate is NOT checked: tls.verify is false", broker=target.where)
    connection = Connection(target, context, options.heartbeat_seconds, name, cutting=cutting, publishing=publishing)
    connected = False
    try:
        async with asyncio.timeout(options.connect_timeout):
            await connection.connect()
        connected = True
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # A connection that dies cancels what waits on it.
        raise errors.of_first_words(error, options, target.where) from None
    except Exception as error:
        if not errors.is_of_library(error):
            raise
        raise errors.of_first_words(error, options, target.where) from error
    finally:
        if not connected:
            # Without this, a dropped connection closes itself later, in a task that nobody owns.
            await connection.end()
    return connection
