"""Publishes the messages of one call, and tries again what failed for a reason that passes by itself."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Self

from broadway_py._core.backoff import Backoff
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import ProducerError, SourceRefused
from broadway_py.log import logger
from broadway_py.publisher import Outgoing, Publisher, Sink, Unconfirmed

__all__ = ["ConnectingPublisher", "ConnectingSink", "SinkConnection", "Unconfirmed"]

log = logger("broadway_py.publisher")

#: The first and the largest ceiling of the wait before another try, in seconds.
_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 5.0


class SinkConnection(abc.ABC):
    """What a :class:`ConnectingPublisher` sends by. It connects by itself, and again after a loss."""

    @abc.abstractmethod
    async def open(self) -> None:
        """Connects, and checks that the place exists.

        Raises:
            ProducerError: the place is not available, or refuses us.
        """

    @abc.abstractmethod
    async def send(self, unconfirmed: Unconfirmed) -> None:
        """Tries once to send all that waits, and notes in *unconfirmed* what became of each message at once.

        The notes must be right at any time, because the call is cancelled when its time is over.

        Raises:
            ProducerError: the place is not available, or refuses us. What is still waiting is not confirmed.
        """

    @abc.abstractmethod
    async def close(self) -> None:
        """Ends the connection. What is still being sent ends with an error."""


class ConnectingSink(Sink):
    """A sink whose settings may come from files, which are read again after a failure."""

    _renew: Callable[[], ConnectingSink | None] | None = None

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """Returns where messages go, for texts. It holds no credentials."""

    @abc.abstractmethod
    def connection(self, name: str, clock: Clock) -> SinkConnection:
        """Returns a new connection, not opened yet, under this *name* at the place."""

    def create(self, name: str, clock: Clock = SYSTEM_CLOCK) -> Publisher:
        """Returns a publisher, not connected yet."""
        return ConnectingPublisher(self, name, clock)

    def renew_by(self, renew: Callable[[], Self | None]) -> None:
        """Sets what reads again the settings that are given by file.

        Args:
            renew: returns a new sink, or None while the files hold what they held for this one.
        """
        self._renew = renew

    def renewed(self) -> ConnectingSink:
        """Returns the sink to use from now on: this one, unless the content of a file with a setting has changed."""
        made = None if self._renew is None else self._renew()
        return self if made is None else made

    def __repr__(self) -> str:
        # The constructor's arguments are not shown, because a URL may hold a password.
        return f"<{type(self).__name__} {self.place}>"


class ConnectingPublisher(Publisher):
    """Publishes to the place of a :class:`ConnectingSink`.

    Lists are sent side by side. While the place is not available, they share one back-off, and one of them tries.

    Args:
        sink: describes the place.
        name: who publishes.
        clock: measures time-outs and back-off.
    """

    def __init__(self, sink: ConnectingSink, name: str, clock: Clock) -> None:
        self._sink = sink
        self._name = name
        self._clock = clock
        self._connection = sink.connection(name, clock)
        self._has_failed = False
        self._closed = asyncio.Event()
        # While the place is away: when the next try is due, how the waits grow, and who tries.
        self._is_away = False
        self._next_try = 0.0
        self._backoff = _backoff()
        self._trying = asyncio.Lock()

    async def open(self) -> None:
        """Connects, and checks that the place exists.

        Raises:
            ProducerError: the place is not available, or refuses us; or the publisher is closed.
        """
        if self._closed.is_set():
            raise ProducerError(f"{self._sink.place}: the publisher is closed")
        connection = await self._current()
        try:
            await connection.open()
        except ProducerError:
            self._has_failed = True
            raise

    async def publish(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Publishes *messages*, and tries again until all are confirmed or *timeout* seconds are over.

        Raises:
            PublishError: some messages are not confirmed; it says which.
        """
        unconfirmed = Unconfirmed(messages)
        await self.deliver(unconfirmed, timeout=timeout)
        otherwise = f"{self._sink.place}: the publisher is closed" if self._closed.is_set() else self.trouble
        error = unconfirmed.error(otherwise or f"{self._sink.place}: no confirmation within {timeout:g} s")
        if error is not None:
            raise error

    async def deliver(self, unconfirmed: Unconfirmed, *, timeout: float) -> None:
        """Publishes what waits in *unconfirmed*, and tries again until all is over or *timeout* seconds have passed."""
        if not unconfirmed.waiting:
            return
        limit = self._clock.timeout(timeout)
        try:
            async with limit:
                await self._try_until_over(unconfirmed)
        except TimeoutError:
            if not limit.expired():
                raise
            # While the place is away, a list may have waited for its turn, and have no reason of its own.
            self.trouble = (
                unconfirmed.reason or self.trouble or f"{self._sink.place}: no confirmation within {timeout:g} s"
            )

    async def _try_until_over(self, unconfirmed: Unconfirmed) -> None:
        backoff = _backoff()
        logged: str | None = None
        while not self._closed.is_set():
            if self._is_away:
                async with self._trying:
                    await self._wait(self._next_try - self._clock.monotonic())
                    if self._closed.is_set():
                        return
                    await self._try(unconfirmed)
            else:
                await self._try(unconfirmed)
            if unconfirmed.is_over:
                return
            if unconfirmed.reason != logged:
                logged = unconfirmed.reason
                log.warning(
                    "publishing again what was not confirmed",
                    publisher=self._name,
                    messages=len(unconfirmed.waiting),
                    reason=logged,
                )
            if not self._is_away:
                await self._wait(backoff.failed())

    async def _try(self, unconfirmed: Unconfirmed) -> None:
        connection = await self._current()
        try:
            await connection.send(unconfirmed)
        except SourceRefused as refused:
            # The list is over, and the next one tries at once: somebody may have mended it.
            self.trouble = str(refused)
            unconfirmed.fail(self.trouble, lasting=True)
        except ProducerError as away:
            self.trouble = str(away)
            unconfirmed.fail(self.trouble)
            self._is_away = True
            self._next_try = self._clock.monotonic() + self._backoff.failed()
        else:
            if self._is_away:
                self._is_away = False
                self._backoff = _backoff()
            self.trouble = unconfirmed.reason if unconfirmed.waiting else None
        finally:
            self._has_failed = bool(unconfirmed.waiting)

    async def _wait(self, seconds: float) -> None:
        """Waits for *seconds*, or until :meth:`close`."""
        if seconds <= 0:
            return
        limit = self._clock.timeout(seconds)
        try:
            async with limit:
                await self._closed.wait()
        except TimeoutError:
            if not limit.expired():
                raise

    async def _current(self) -> SinkConnection:
        """Returns the connection; after a failure a new one, if a file with a setting has changed."""
        if self._has_failed and not self._closed.is_set():
            sink = self._sink.renewed()
            if sink is not self._sink:
                former, self._connection = self._connection, sink.connection(self._name, self._clock)
                self._sink = sink
                await former.close()
        return self._connection

    async def close(self) -> None:
        """Gives up what is still being published, and ends the connection."""
        self._closed.set()
        await self._connection.close()


def _backoff() -> Backoff:
    return Backoff(_FIRST_WAIT_S, _MOST_WAIT_S)
