"""Publishes the messages of one call, and tries again what failed for a reason that passes by itself."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Self

from broadway_py._core.backoff import Backoff
from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import ProducerError, PublishError, SourceRefused
from broadway_py.log import logger
from broadway_py.publisher import Outgoing, Publisher, Sink

__all__ = ["ConnectingPublisher", "ConnectingSink", "SinkConnection", "Unconfirmed"]

log = logger("broadway_py.publisher")

#: The first and the largest ceiling of the wait before another try, in seconds.
_FIRST_WAIT_S: Final = 0.1
_MOST_WAIT_S: Final = 5.0


class Unconfirmed:
    """The messages of one call of ``publish`` that are not confirmed yet.

    Args:
        messages: all messages of the call.
    """

    def __init__(self, messages: Sequence[Outgoing]) -> None:
        self._messages = messages
        #: The messages to send, by their position in the call.
        self.waiting: dict[int, Outgoing] = dict(enumerate(messages))
        self._refused: dict[int, str] = {}
        #: Why the last try did not confirm all that waits. None: there was no such try.
        self.reason: str | None = None
        self._is_lasting = False

    @property
    def is_over(self) -> bool:
        """Returns whether another try is of no use: nothing waits, or somebody must first mend something."""
        return not self.waiting or self._is_lasting

    def confirm(self, position: int) -> None:
        """Notes that the place has confirmed a message."""
        self.waiting.pop(position, None)

    def refuse(self, position: int, reason: str) -> None:
        """Notes that the place will not take a message as it is, however often it is sent."""
        if self.waiting.pop(position, None) is not None:
            self._refused[position] = reason

    def fail(self, reason: str, *, lasting: bool = False) -> None:
        """Notes why messages wait after a try. *lasting*: until somebody has mended something."""
        if lasting or not self._is_lasting:
            self.reason = reason
        self._is_lasting = self._is_lasting or lasting

    def error(self, otherwise: str) -> PublishError | None:
        """Returns the error of the whole call; None: all messages are confirmed.

        Args:
            otherwise: the reason, if no try has told one.
        """
        if not self.waiting and not self._refused:
            return None
        reason = (self.reason or otherwise) if self.waiting else next(iter(self._refused.values()))
        positions = sorted([*self.waiting, *self._refused])
        return PublishError(
            f"{len(positions)} of {len(self._messages)} messages were not confirmed: {reason}",
            unpublished=[self._messages[position] for position in positions],
            refused=[self._messages[position] for position in sorted(self._refused)],
        )


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
        if not messages:
            return
        unconfirmed = Unconfirmed(messages)
        limit = self._clock.timeout(timeout)
        try:
            async with limit:
                await self._try_until_over(unconfirmed)
        except TimeoutError:
            if not limit.expired():
                raise
        otherwise = "the publisher is closed" if self._closed.is_set() else f"no confirmation within {timeout:g} s"
        error = unconfirmed.error(f"{self._sink.place}: {otherwise}")
        if error is not None:
            raise error

    async def _try_until_over(self, unconfirmed: Unconfirmed) -> None:
        backoff = Backoff(_FIRST_WAIT_S, _MOST_WAIT_S)
        logged: str | None = None
        while not self._closed.is_set():
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
            await self._wait(backoff.failed())

    async def _try(self, unconfirmed: Unconfirmed) -> None:
        connection = await self._current()
        try:
            await connection.send(unconfirmed)
        except SourceRefused as refused:
            unconfirmed.fail(str(refused), lasting=True)
        except ProducerError as away:
            unconfirmed.fail(str(away))
        finally:
            self._has_failed = bool(unconfirmed.waiting)

    async def _wait(self, seconds: float) -> None:
        """Waits for *seconds*, or until :meth:`close`."""
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
