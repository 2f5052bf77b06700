"""The connection that only publishes. The broker confirms every message, or an error says that it has not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

from aiormq import Channel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)

from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.log import logger
from broadway_py.producers.rabbitmq.connection import errors, publish_errors
from broadway_py.producers.rabbitmq.connection.connection import Connection, connect
from broadway_py.producers.rabbitmq.retries.confirms import Answer, Confirms, Portion
from broadway_py.producers.rabbitmq.retries.letters import Letter, Unfit, fitted
from broadway_py.producers.rabbitmq.retries.outcomes import Away, Outcomes, Told
from broadway_py.producers.rabbitmq.settings.broker import BrokerOptions
from broadway_py.producers.rabbitmq.topology.delay_queues import DECLARED_AGAIN_S
from broadway_py.producers.rabbitmq.topology.delivery_limits import declare_lifted

__all__ = ["Away", "NoQueue", "NotTaken", "Publisher"]

log = logger("broadway_py.producers.rabbitmq")

#: How many portions of one call are on their way at the same time. They bound what waits in memory to be sent.
_PORTIONS: Final = 4


class NoQueue(ProducerError):
    """The broker has returned a message: the queue does not exist, or the exchange leads to no queue."""


class NotTaken(ProducerError):
    """The broker has refused a message: its queue is full, or broken. Other queues may take theirs."""


class _OpenChannel(NamedTuple):
    """What one connect has opened."""

    connection: Connection
    channel: Channel
    #: Queue -> when it was declared, in the clock's monotonic time.
    declared: dict[str, float]
    confirms: Confirms
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
        """Publishes *letters* in their order. Returns for each why it may not have arrived, or None: it is confirmed.

        What a connection that is lost has not confirmed is published once more, on a new one. While the broker accepts
        nothing (its memory is full) this waits, until :meth:`close`.

        Args:
            letters: the messages.
            told: called with the position of each letter and its outcome, as soon as that is known. A caller that may
                be cancelled learns in this way what is confirmed.
        """
        outcomes = Outcomes(letters, told)
        try:
            for is_last in (False, True):
                if outcomes.open:
                    await self._attempt(outcomes, is_last=is_last)
        finally:
            outcomes.end()
        return outcomes.reasons

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

    async def _attempt(self, outcomes: Outcomes, *, is_last: bool) -> None:
        """Tries to publish what is open. Unless it *is_last*, what a lost connection has not confirmed stays open."""
        try:
            opened = await self._connected()
            await self._send(opened, outcomes)
        except Away as away:
            outcomes.miss(away)
        except ProducerError as refused:
            outcomes.fail(refused)
        except Exception as error:  # noqa: BLE001  # an error of one letter must not hide the results of the others
            for position, letter in list(outcomes.open.items()):
                outcomes.note(position, _unfit(letter, error))
        if not outcomes.open:
            return
        if is_last:
            outcomes.give_up()
        elif not self._is_closed:
            reason = next(iter(outcomes.missed.values()))
            log.warning("publishing again on a new connection", messages=len(outcomes.open), reason=str(reason))

    async def _send(self, opened: _OpenChannel, outcomes: Outcomes) -> None:
        """Writes what is open, in portions, and returns when each letter has an outcome or is missed."""
        outcomes.missed.clear()
        confirms, noted = opened.confirms, partial(self._note, opened, outcomes)
        written: deque[Portion] = deque()
        portion = Portion(noted)
        try:
            for position, letter in list(outcomes.open.items()):
                if outcomes.largest is not None and len(letter.body) > outcomes.largest:
                    outcomes.note(position, _too_large(letter, outcomes.largest, opened.connection.where))
                    continue
                try:
                    fitting = fitted(letter, opened.room)
                    frames = confirms.frames(fitting)
                except Exception as error:  # noqa: BLE001  # as above
                    outcomes.note(position, error if isinstance(error, Unfit) else _unfit(letter, error))
                    continue
                name = cast("str", fitting.properties.message_id)
                if portion.is_full or name in portion.names:
                    await self._write(opened, portion, written)
                    portion = Portion(noted)
                portion.add(name, position, frames)
            if portion.names:
                await self._write(opened, portion, written)
            while written:
                await self._answered(opened, written[0])
                written.popleft()
        finally:
            for one in written:
                one.tell_early()
        if self._opened is opened and (outcomes.missed or opened.channel.is_closed):
            # What closes the channel ends the connection, too: a new channel would fail in the same way for now.
            await self._drop(opened)

    async def _write(self, opened: _OpenChannel, portion: Portion, written: deque[Portion]) -> None:
        """Writes *portion* when there is room for it, and none of its ids is on its way."""
        while len(written) >= _PORTIONS:
            await self._answered(opened, written[0])
            written.popleft()
        while (other := opened.confirms.in_the_way_of(portion)) is not None:
            await self._answered(opened, other)
        written.append(portion)
        opened.confirms.write(portion)
        # Others may run between two portions of a long list.
        await asyncio.sleep(0)

    async def _answered(self, opened: _OpenChannel, portion: Portion) -> None:
        """Returns when all of *portion* is answered. Drops the connection if that takes too long."""
        loop = asyncio.get_running_loop()
        while not portion.answered.done():
            left = portion.written_at + self._options.publish_timeout - loop.time()
            if left > 0.0:
                await asyncio.wait({portion.answered}, timeout=left)
            # After a connection has died, nobody reports any more that the broker accepts messages again.
            elif opened.channel.is_closed or not await opened.connection.is_blocked():
                portion.is_overdue = True
                await self._drop(opened)
                await asyncio.wait({portion.answered})
            else:
                portion.written_at = loop.time()

    def _note(self, opened: _OpenChannel, outcomes: Outcomes, portion: Portion, position: int, answer: Answer) -> None:
        letter = outcomes.open.get(position)
        if letter is None:
            return
        if not answer.cancelled() and (largest := publish_errors.largest_taken(answer.exception())) is not None:
            outcomes.largest = largest
        outcome = self._outcome(opened.connection.where, letter, answer, is_overdue=portion.is_overdue)
        if isinstance(outcome, Away):
            outcomes.missed[position] = outcome
        else:
            outcomes.note(position, outcome)

    def _outcome(self, where: str, letter: Letter, answer: Answer, *, is_overdue: bool) -> ProducerError | None:
        # The library cancels what waits on a connection that dies.
        error = asyncio.CancelledError() if answer.cancelled() else answer.exception()
        match error:
            case None:
                return None
            case PublishError():
                return NoQueue(publish_errors.of_returned(letter.place, letter.exchange, where))
            case DeliveryError():
                return NotTaken(
                    f"RabbitMQ at {where} refused a message for {letter.place}: the queue is full, or broken"
                )
            case ChannelAccessRefused():
                return publish_errors.of_refused_write(error, letter.place, letter.exchange, where)
            case ChannelNotFoundEntity():
                return publish_errors.of_sink(error, letter.place, where)
            case ChannelPreconditionFailed():
                # It closes the channel for all messages, and is the fault of those alone that are too large.
                largest = publish_errors.largest_taken(error)
                if largest is not None and len(letter.body) > largest:
                    return _too_large(letter, largest, where)
        if is_overdue:
            timeout = self._options.publish_timeout
            return Away(f"RabbitMQ at {where} did not confirm a message for {letter.place} in {timeout:g} s")
        return Away(f"a message for {letter.place} may not have arrived: {self._loss(error, where)}")

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
        confirms = Confirms(underlay, cast("asyncio.StreamWriter", connection.writer))
        return _OpenChannel(connection, underlay, {}, confirms, underlay.max_content_size)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise ProducerError(f"the connection to {self._options.where} was closed")

    async def _drop(self, opened: _OpenChannel) -> None:
        """Closes *opened*. What is still being sent on it ends with an error."""
        if self._opened is opened:
            self._opened = None
        opened.confirms.give_up()
        await opened.connection.end()

    async def close(self) -> None:
        """Closes the connection, and gives up what is being sent. Takes a few seconds at most, and raises nothing."""
        self._is_closed = True
        opened, self._opened = self._opened, None
        if opened is None:
            return
        if opened.confirms.is_waiting:
            # The connection is blocked or lost, so a proper close would only wait.
            opened.connection.abort()
        opened.confirms.give_up()
        await opened.connection.end()


def _unfit(letter: Letter, error: Exception) -> Unfit:
    return Unfit(f"a message for {letter.place} cannot be sent ({type(error).__name__})")


def _too_large(letter: Letter, largest: int, where: str) -> Unfit:
    return Unfit(publish_errors.of_too_large(len(letter.body), largest, letter.place, where))
