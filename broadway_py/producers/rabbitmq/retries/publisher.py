"""The connection that only publishes. The broker confirms every message, or an error says that it has not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from aiormq import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    DeliveryError,
    PublishError,
)

from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection import errors, publish_errors
from broadway_py.producers.rabbitmq.connection.connection import Connection, connect
from broadway_py.producers.rabbitmq.retries.letters import Letter, Unfit, fitted
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions
from broadway_py.producers.rabbitmq.topology.delay_queues import DECLARED_AGAIN_S
from broadway_py.producers.rabbitmq.topology.delivery_limits import declare_lifted

__all__ = ["Away", "NoQueue", "Publisher"]

log = logger("broadway_py.producers.rabbitmq")


class Away(ProducerError):
    """The publishing connection is gone. A new one may work."""


class NoQueue(ProducerError):
    """The broker has returned a message: the queue does not exist, or the exchange leads to no queue."""


#: ``told(position, outcome)``
Told = Callable[[int, ProducerError | None], object]


class _OpenChannel(NamedTuple):
    """What one connect has opened."""

    connection: Connection
    channel: Channel
    #: Queue -> when it was declared, in the clock's monotonic time.
    declared: dict[str, float]
    #: Message id -> the task that publishes it. The library tells returned messages apart by their ids alone.
    flying: dict[str, asyncio.Task[None]]
    #: The bytes that one frame can carry.
    room: int


class Publisher:
    """Publishes to queues and exchanges. Connects at the first use, and again when needed.

    It has its own connection, because the broker stops reading from publishing connections while its memory or disk is
    full, and the acks of the consuming connection must still get through.

    Args:
        options: where the broker is.
        name: the connection's name at the broker.
        clock: tells when a queue was declared.
    """

    def __init__(self, options: BrokerOptions, name: str, clock: Clock) -> None:
        self._options = options
        self._name = name
        self._clock = clock
        self._opened: _OpenChannel | None = None
        self._connecting = asyncio.Lock()
        #: The error of the last connect that failed, and how many have failed. A caller that waited for a connect gets
        #: its error.
        self._failure: ProducerError | None = None
        self._failures = 0
        self._is_closed = False

    async def publish(self, letters: Sequence[Letter], told: Told | None = None) -> list[ProducerError | None]:
        """Publishes *letters* at the same time. Returns for each why it may not have arrived, or None: it is confirmed.

        While the broker accepts nothing (its memory is full) this waits, until :meth:`close`.

        Args:
            letters: the messages.
            told: called with the position of each letter and its outcome, as soon as that is known. A caller that may
                be cancelled learns in this way what is confirmed.
        """
        if not letters:
            return []
        tasks = [asyncio.ensure_future(self._attempt(letter)) for letter in letters]
        if told is not None:
            for position, task in enumerate(tasks):
                task.add_done_callback(partial(_tell, told, position))
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        return [task.result() for task in tasks]

    async def declare(self, queue: str, arguments: Mapping[str, Any]) -> float:
        """Declares *queue*, unless that was done shortly before. Returns when it was done (monotonic).

        While the broker accepts nothing this waits, until :meth:`close`.

        Raises:
            ProducerError: the broker refused, with its words; or it is not available.
        """
        opened = await self._connected()
        declared_at = opened.declared.get(queue)
        now = self._clock.monotonic()
        if declared_at is not None and now - declared_at < DECLARED_AGAIN_S:
            return declared_at
        where = opened.connection.where
        declaring = asyncio.ensure_future(self._declare_on(opened, queue, arguments, where))
        try:
            while not declaring.done():
                # Updated at each turn: while the broker accepts nothing, the queue is not declared.
                now = self._clock.monotonic()
                if await self._overdue(opened, declaring, self._options.connect_timeout):
                    raise TimeoutError
            await declaring
        except TimeoutError:
            await self._drop(opened)
            raise Away(f"RabbitMQ at {where} did not answer when queue {queue!r} was declared") from None
        except Away:
            await self._drop(opened)
            raise
        finally:
            await self._leave(declaring)
        opened.declared[queue] = now
        return now

    async def _declare_on(self, opened: _OpenChannel, queue: str, arguments: Mapping[str, Any], where: str) -> None:
        with errors.translated(lambda error: Away(f"cannot declare queue {queue!r}: {self._loss(error, where)}")):

            async def declare(with_arguments: Mapping[str, Any]) -> None:
                # Its own channel: a refusal closes it, and publishing must go on.
                channel = await opened.connection.channel(publisher_confirms=False)
                await channel.declare_queue(queue, durable=True, arguments=dict(with_arguments))
                await channel.close()

            try:
                await declare_lifted(queue, arguments, opened.connection.version, declare)
            except ChannelClosed as refused:
                raise publish_errors.of_own_queue(refused, queue, where) from refused

    async def _overdue(self, opened: _OpenChannel, task: asyncio.Task[None], timeout: float) -> bool:
        """Waits for *task*. Returns whether it takes longer than *timeout* although the broker accepts messages."""
        await asyncio.wait({task}, timeout=timeout)
        # After a connection has died, nobody reports any more that the broker accepts messages again.
        return not task.done() and (opened.channel.is_closed or not await opened.connection.is_blocked())

    async def _leave(self, task: asyncio.Task[None]) -> None:
        """Makes sure that *task* has ended. The caller has already reported the error."""
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            # Reads the task's own error, so that asyncio does not log it.
            task.exception()

    def _loss(self, error: BaseException | None, where: str) -> ProducerError:
        return errors.of_loss(error, self._options, where)

    def forget(self, queue: str) -> None:
        """Forgets that *queue* was declared, because it is gone."""
        if self._opened is not None:
            self._opened.declared.pop(queue, None)

    async def _attempt(self, letter: Letter) -> ProducerError | None:
        for is_last in (False, True):
            try:
                opened = await self._connected()
                await self._publish(opened, letter)
            except Away as away:
                if is_last:
                    return away
                log.warning("publishing again on a new connection", reason=str(away))
            except ProducerError as refused:
                return refused
            except Exception as error:  # noqa: BLE001  # an error of one letter must not hide the results of the others
                return Unfit(f"a message for {letter.place} cannot be sent ({type(error).__name__})")
            else:
                return None
        return None  # pragma: no cover  # the loop has returned

    async def _publish(self, opened: _OpenChannel, letter: Letter) -> None:
        letter = fitted(letter, opened.room)
        own = letter.properties.message_id
        while own and (other := opened.flying.get(own)) is not None:
            await asyncio.wait({other})
        publishing = opened.channel.basic_publish(
            letter.body,
            exchange=letter.exchange,
            routing_key=letter.queue,
            properties=letter.properties,
            mandatory=True,
        )
        sending = cast("asyncio.Task[None]", asyncio.ensure_future(publishing))
        if own:
            opened.flying[own] = sending
            sending.add_done_callback(lambda _: opened.flying.pop(own, None))
        try:
            await self._confirmed(opened, letter, sending)
        finally:
            await self._leave(sending)

    async def _confirmed(self, opened: _OpenChannel, letter: Letter, sending: asyncio.Task[None]) -> None:
        where, timeout = opened.connection.where, self._options.publish_timeout
        while not sending.done():
            if await self._overdue(opened, sending, timeout):
                await self._drop(opened)
                raise Away(f"RabbitMQ at {where} did not confirm a message for {letter.place} in {timeout:g} s")
        if sending.cancelled():
            # The library cancels what waits on a connection that dies.
            raise Away(f"a message for {letter.place} may not have arrived: {self._loss(None, where)}")
        error = sending.exception()
        match error:
            case None:
                return
            case PublishError():
                raise NoQueue(publish_errors.of_returned(letter.place, letter.exchange, where))
            case DeliveryError():
                raise ProducerError(
                    f"RabbitMQ at {where} refused a message for {letter.place}: the queue is full, or broken"
                )
            case ChannelAccessRefused():
                # The error has closed the channel, and a new one would fail in the same way for now.
                await self._drop(opened)
                raise publish_errors.of_refused_write(error, letter.place, letter.exchange, where) from error
            case ChannelNotFoundEntity():
                await self._drop(opened)
                raise publish_errors.of_sink(error, letter.place, where) from error
            case TimeoutError() | ConnectionError():
                pass
            case _ if not errors.is_of_library(error):
                raise error
        await self._drop(opened)
        raise Away(f"a message for {letter.place} may not have arrived: {self._loss(error, where)}")

    async def _connected(self) -> _OpenChannel:
        failures = self._failures
        async with self._connecting:
            self._refuse_if_closed()
            if self._opened is not None and not self._opened.channel.is_closed:
                return self._opened
            if self._failure is not None and self._failures != failures:
                # Without this, a hundred letters would wait one after the other, or get the user locked out. The
                # traceback is removed because its frames keep the earlier letters in memory.
                raise self._failure.with_traceback(None)
            if self._opened is not None:
                await self._drop(self._opened)
            try:
                self._opened = await self._open()
            except ProducerError as failure:
                self._failure, self._failures = failure, self._failures + 1
                raise
            return self._opened

    async def _open(self) -> _OpenChannel:
        connection = await connect(self._options, self._name, publishing=True)
        where = connection.where
        opened = False
        try:
            with errors.translated(lambda error: Away(str(errors.of_connect(error, self._options, where)))):
                async with asyncio.timeout(self._options.connect_timeout):
                    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                    underlay = cast("Channel", await channel.get_underlay_channel())
            # If close() was called meanwhile, nobody would ever end this connection.
            self._refuse_if_closed()
            opened = True
        except TimeoutError as error:
            raise Away(str(errors.of_connect(error, self._options, where))) from None
        finally:
            if not opened:
                connection.abort()
                await connection.end()
        return _OpenChannel(connection, underlay, {}, {}, underlay.max_content_size)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ProducerError(f"the connection to {self._options.where} was closed")

    async def _drop(self, opened: _OpenChannel) -> None:
        """Closes *opened*. What is still being sent on it ends with an error."""
        if self._opened is opened:
            self._opened = None
        await opened.connection.end()

    async def close(self) -> None:
        """Closes the connection, and gives up what is being sent. Takes a few seconds at most, and raises nothing."""
        self._is_closed = True
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if opened.channel.confirmations:
            # The connection is blocked or lost, so a proper close would only wait.
            opened.connection.abort()
        await opened.connection.end()


def _tell(told: Told, position: int, task: asyncio.Task[ProducerError | None]) -> None:
    if not task.cancelled() and task.exception() is None:
        told(position, task.result())
