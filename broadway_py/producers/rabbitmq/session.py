"""One generation of a consumer: its connection, its channel, and the settlement of what came through it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from aiormq import Channel
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp.commands import Basic

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import ProducerError, SettleError
from broadway_py.message import Message, Outcome
from broadway_py.producers.rabbitmq import troubles
from broadway_py.producers.rabbitmq.connection import Connection
from broadway_py.producers.rabbitmq.delivery import Receipt, configured, tag_of, to_message
from broadway_py.producers.rabbitmq.ledger import Settlement, TagLedger
from broadway_py.producers.rabbitmq.options import RabbitMQOptions, Verdict

__all__ = ["Session"]

#: Seconds for the last settlements to get onto a connection that may be dead.
_FLUSH_TIMEOUT: Final = 3.0

_FRAMES: Final[Mapping[str, Callable[[Settlement], Basic.Ack | Basic.Nack | Basic.Reject]]] = {
    "ack": lambda said: Basic.Ack(said.tag, said.multiple),
    "reject": lambda said: Basic.Reject(said.tag, said.requeue),
    "nack": lambda said: Basic.Nack(said.tag, requeue=said.requeue),
}


class Session(Acknowledger):
    """From one connect to its end. It is the acknowledger of every message it delivered, and settles nothing else.

    Two things can end, and the first may end alone: *delivering* (:attr:`trouble` is set, the consumer is gone) and
    *settling* (the channel is gone). The client library's tasks run none of our code beyond noting what happened.

    Args:
        options: the producer's settings.
        prefetch: how many unsettled messages the broker may hand out.
        lost: called once, when delivering ends and nobody asked for it.
    """

    def __init__(self, options: RabbitMQOptions, *, prefetch: int, lost: Callable[[ProducerError], None]) -> None:
        self._options = options
        self._prefetch = prefetch
        self._lost = lost
        #: Why no more messages come; None while they do.
        self.trouble: ProducerError | None = None
        #: Set whenever a look at the buffer may be worth it.
        self.changed = asyncio.Event()
        self._buffer: deque[DeliveredMessage] = deque()
        self._ledger = TagLedger()
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._queue = options.queue
        self._consumer_tag: str | None = None
        # Pausing and draining both cancel the consumer, and may come at once.
        self._consuming = asyncio.Lock()
        # A loss is reported only of a connection that had been there and was not closed by us.
        self._reporting = False
        self._unwritten = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    # --- connecting -----------------------------------------------------------------------------------------------

    async def open(self, name: str) -> None:
        """Connect as *name* and consume.

        Raises:
            ProducerError: as the port says; call :meth:`close` then, too.
        """
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                with self._translated(troubles.of_open):
                    await self._connect(name)
                    await self._prepare_queue()
                    await self._consume()
        except TimeoutError as error:
            raise troubles.of_open(error, self._options) from None
        if self.trouble is not None:
            raise self.trouble
        self._reporting = True

    async def _connect(self, name: str) -> None:
        self._connection = Connection(self._options, name)
        await self._connection.connect()
        channel = await self._connection.channel(publisher_confirms=False)
        self._channel = cast("Channel", await channel.get_underlay_channel())
        self._channel.on_consumer_cancel_callbacks.add(self._on_consumer_cancelled)
        for end in (self._channel.connection.closing, self._channel.closing):
            end.add_done_callback(self._on_closed)
        self._writer = asyncio.create_task(self._write_settlements(), name=f"settlements of {name}")
        if self._options.after_connect is not None:
            try:
                await self._options.after_connect(channel)
            except Exception as error:  # whatever the user's function raises is weather
                raise troubles.of_after_connect(error, self._options) from error

    async def _prepare_queue(self) -> None:
        channel, options = self._open_channel(), self._options
        await channel.basic_qos(prefetch_count=self._prefetch)
        if options.declare == "active":
            wanted = options.declare_options
            declared = await channel.queue_declare(
                options.queue,
                durable=wanted.durable,
                auto_delete=wanted.auto_delete,
                exclusive=wanted.exclusive,
                arguments=wanted.arguments,
            )
            self._queue = declared.queue or options.queue
        elif options.declare == "passive":
            await channel.queue_declare(options.queue, passive=True)
        for binding in options.bindings:
            await channel.queue_bind(self._queue, binding.exchange, binding.routing_key, arguments=binding.arguments)

    async def _consume(self) -> None:
        wanted = self._options.consume_options
        consuming = await self._open_channel().basic_consume(
            self._queue,
            self._on_delivery,
            exclusive=wanted.exclusive,
            arguments=wanted.arguments,
            consumer_tag=wanted.consumer_tag,
        )
        self._consumer_tag = consuming.consumer_tag

    def _open_channel(self) -> Channel:
        if self._channel is None:
            raise ProducerError(f"there is no channel to {self._options.where}")
        return self._channel

    @contextlib.contextmanager
    def _translated(self, sentence: Callable[[BaseException, RabbitMQOptions], ProducerError]) -> Iterator[None]:
        """Library errors become a ProducerError, and so does a cancellation that nobody asked for.

        When a connection dies, aiormq cancels its own tasks, and whoever awaits one of them sees a CancelledError.
        """
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise sentence(error, self._options) from None
        except TimeoutError:
            raise
        except troubles.LIBRARY_ERRORS as error:
            raise sentence(error, self._options) from error

    # --- what the client library tells us; called from its tasks, so they only take note ---------------------------

    async def _on_delivery(self, delivery: DeliveredMessage) -> None:
        self._ledger.delivered(tag_of(delivery))
        if self.trouble is None:
            self._buffer.append(delivery)
            self.changed.set()

    def _on_consumer_cancelled(self, frame: Basic.Cancel) -> None:
        self._stop_delivering(
            ProducerError(
                f"RabbitMQ at {self._options.where} cancelled the consumer of queue {self._queue!r}: "
                "the queue was deleted, or has moved"
            )
        )

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        loss = troubles.of_loss(
            error, self._options, silent=self._connection is not None and self._connection.is_silent
        )
        self._stop_settling(loss)
        self._stop_delivering(loss)

    def _stop_delivering(self, reason: ProducerError) -> None:
        if self.trouble is not None:
            return
        self.trouble = reason
        # The broker has them still, and hands them out again.
        self._buffer.clear()
        self._consumer_tag = None
        self.changed.set()
        if self._reporting:
            self._lost(reason)

    def _stop_settling(self, reason: ProducerError) -> None:
        self._channel = None
        if self._writer is not None:
            self._writer.cancel()
        for turn in (self._turn, self._writing):
            if turn is not None and not turn.done():
                turn.set_exception(reason)

    # --- handing over ---------------------------------------------------------------------------------------------

    def take(self, demand: int) -> list[Message[bytes]]:
        """Up to *demand* of the buffered messages, oldest first; without waiting."""
        return [to_message(self._buffer.popleft(), self, self._options) for _ in range(min(demand, len(self._buffer)))]

    async def stop_consuming(self) -> None:
        """Cancel the consumer, and give back what was not taken. Does nothing on a connection that is gone."""
        async with self._consuming:
            # A loss in here is reported by the callbacks above, and the broker takes everything back by itself.
            with contextlib.suppress(ProducerError, SettleError), self._translated(troubles.of_loss):
                if self._consumer_tag is not None:
                    tag, self._consumer_tag = self._consumer_tag, None
                    await self._open_channel().basic_cancel(tag)
                for delivery in self._buffer:
                    self._ledger.release(tag_of(delivery))
                if self._buffer:
                    self._buffer.clear()
                    await self._told()

    async def consume_again(self) -> None:
        """The way back from :meth:`stop_consuming`. Does nothing on a connection that is gone."""
        async with self._consuming:
            if self._consumer_tag is None and self.trouble is None:
                # A refusal closes the channel, and is reported by the callbacks above.
                with contextlib.suppress(ProducerError), self._translated(troubles.of_loss):
                    await self._consume()

    # --- settling -------------------------------------------------------------------------------------------------

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Tell the broker; returns when the words are on their way."""
        settled = [self._note(receipt, receipt.on_success) for receipt in _receipts(successful)]
        settled += [self._note(receipt, receipt.on_failure) for receipt in _receipts(failed)]
        await self._finish([*successful, *failed], settled)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Requeue *messages* by basic.nack, which costs no attempt on recent brokers."""
        await self._finish(messages, [self._ledger.release(receipt.tag) for receipt in _receipts(messages)])

    def outcome_of_failed(self, data: Any) -> Outcome:
        """As ``on_failure`` says: a requeued message is delivered again, an acked one is gone."""
        receipt: Receipt = data
        if receipt.on_failure == "ack":
            return "dropped"
        once_more = receipt.on_failure == "reject_and_requeue_once" and not receipt.redelivered
        return "retried" if once_more or receipt.on_failure == "reject_and_requeue" else "rejected"

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> Receipt:
        """``configure_ack(on_success=…, on_failure=…)``."""
        return configured(data, options)

    def _note(self, receipt: Receipt, verdict: Verdict) -> bool:
        if verdict == "ack":
            return self._ledger.ack(receipt.tag)
        once_more = verdict == "reject_and_requeue_once" and not receipt.redelivered
        return self._ledger.reject(receipt.tag, requeue=once_more or verdict == "reject_and_requeue")

    async def _finish(self, messages: Sequence[Message[Any]], settled: Sequence[bool]) -> None:
        try:
            await self._told()
        except ProducerError as loss:
            counted = "1 message" if len(messages) == 1 else f"{len(messages)} messages"
            raise SettleError(f"cannot settle {counted}: {loss}", unsettled=messages) from None
        if not all(settled):
            again = [message for message, open_until_now in zip(messages, settled, strict=True) if not open_until_now]
            raise SettleError(
                f"{len(again)} of {len(messages)} messages were settled before, and are left alone", unsettled=again
            )

    async def _told(self) -> None:
        """Wait until everything noted so far has been written."""
        if self._channel is None:
            raise self.trouble or ProducerError(f"the connection to {self._options.where} was closed")
        if self._turn is None:
            self._turn = asyncio.get_running_loop().create_future()
            self._unwritten.set()
        # Others wait for the same turn, so our own cancellation must not reach it.
        await asyncio.shield(self._turn)

    async def _write_settlements(self) -> None:
        """The one that writes: what is settled while a write is under way goes into the next one."""
        while True:
            await self._unwritten.wait()
            self._unwritten.clear()
            self._writing, self._turn = self._turn, None
            settlements = self._ledger.take()
            try:
                await self._write([_FRAMES[said.method](said) for said in settlements])
            except troubles.LIBRARY_ERRORS:
                return  # the channel's end is reported by _on_closed, which also ends the turns
            turn = cast("asyncio.Future[None]", self._writing)
            if not turn.done():
                turn.set_result(None)

    async def _write(self, frames: Sequence[Basic.Ack | Basic.Nack | Basic.Reject]) -> None:
        channel = self._open_channel()
        written: asyncio.Future[None] = channel.create_future()
        await channel.write_queue.put(ChannelFrame.marshall(channel.number, frames, drain_future=written))
        await written

    # --- ending ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what is settled, then close. Takes a few seconds at most, and raises nothing."""
        self._reporting = False
        unwritten = [turn for turn in (self._writing, self._turn) if turn is not None and not turn.done()]
        if unwritten:
            await asyncio.wait(unwritten, timeout=_FLUSH_TIMEOUT)
        reason = ProducerError(f"the connection to {self._options.where} was closed")
        self._stop_settling(reason)
        self._stop_delivering(reason)
        if self._writer is not None:
            await asyncio.wait([self._writer])
        if self._connection is not None:
            await self._connection.end()


def _receipts(messages: Sequence[Message[Any]]) -> list[Receipt]:
    return [message.acknowledgement.data for message in messages]
