"""One generation of a consumer: its connection, its channel, and the settlement of what came through it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelClosed
from pamqp.commands import Basic

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import ProducerError, SettleError
from broadway_py.log import logger
from broadway_py.message import Message, Outcome
from broadway_py.producers.rabbitmq import troubles
from broadway_py.producers.rabbitmq.connection import Connection, connect
from broadway_py.producers.rabbitmq.cutter import Ended, Sink
from broadway_py.producers.rabbitmq.delivery import Receipt, configured, tag_of, to_message
from broadway_py.producers.rabbitmq.forwarder import Forwarder
from broadway_py.producers.rabbitmq.lazy import messages_of
from broadway_py.producers.rabbitmq.ledger import TagLedger
from broadway_py.producers.rabbitmq.options import AUTO_BYTES, RabbitMQOptions, Verdict
from broadway_py.producers.rabbitmq.path import is_fast
from broadway_py.producers.rabbitmq.settlements import DirectSettlements, QueuedSettlements, Settlements

__all__ = ["Session"]

log = logger("broadway_py.producers.rabbitmq")

T = TypeVar("T")

#: Seconds to wait for what the broker answers at once; on a silent network it does not.
_ANSWER_TIMEOUT: Final = 3.0
#: Seconds for the last settlements to get onto a connection that may be dead.
_FLUSH_TIMEOUT: Final = 3.0

#: What waits to be taken: tag, redelivered, envelope (from the library: all of the delivery), body, consumer tag.
_Waiting = tuple[int, int, Any, bytes, str]


class Session(Acknowledger):
    """From one connect to its end. It is the acknowledger of every message it delivered, and settles nothing else.

    Two things can end, and the first may end alone: *delivering* (:attr:`trouble` is set, the consumer is gone) and
    *settling* (the channel is gone). The client library's tasks run none of our code beyond noting what happened.

    Args:
        options: the producer's settings.
        prefetch: how many unsettled messages of each queue the broker may hand out.
        lost: called once, when delivering ends and nobody asked for it.
        overrun: called with the average size of the buffered bodies while there are too many bytes of them.
        forwarder: puts failed messages away, for a while or for good.
    """

    def __init__(
        self,
        options: RabbitMQOptions,
        *,
        prefetch: int,
        lost: Callable[[ProducerError], None],
        overrun: Callable[[float], None],
        forwarder: Forwarder,
    ) -> None:
        self._options = options
        self._prefetch = prefetch
        self._lost = lost
        self._overrun = overrun
        self._forwarder = forwarder
        #: Why no more messages come; None while they do.
        self.trouble: ProducerError | None = None
        #: Set whenever a look at the buffer may be worth it.
        self.changed = asyncio.Event()
        self._buffer: deque[_Waiting] = deque()
        self._buffered_bytes = 0
        self._ledger = TagLedger()
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._where = options.where
        # As the broker calls them: it names the nameless.
        self._queues = list(options.queues)
        # Consumer tag -> queue: of every consumer whose deliveries may still be in the buffer; and those at work.
        self._origins: dict[str, str] = {}
        self._consumers: set[str] = set()
        self._asides: set[asyncio.Task[None]] = set()
        # Pausing and draining both cancel the consumer, and may come at once.
        self._consuming = asyncio.Lock()
        # A loss is reported only of a connection that had been there and was not closed by us.
        self._reporting = False
        self._settlements: Settlements | None = None
        # Where deliveries go past the library; None: they come by way of it.
        self._is_fast = False
        self._sink: Sink | None = None

    # --- connecting -----------------------------------------------------------------------------------------------

    async def open(self, name: str) -> None:
        """Connect as *name* and consume.

        Raises:
            ProducerError: as the port says; call :meth:`close` then, too.
        """
        self._is_fast = is_fast(self._options.delivery_path)
        self._connection = await connect(self._options, name, cutting=self._is_fast)
        self._where = self._connection.where
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                with self._translated(troubles.of_open):
                    await self._open_channel(name)
                    await self._prepare_queues()
                    await self._consume()
        except TimeoutError as error:
            raise troubles.of_open(error, self._options, self._where) from None
        if self.trouble is not None:
            raise self.trouble
        self._reporting = True

    async def _open_channel(self, name: str) -> None:
        channel = await cast("Connection", self._connection).channel(publisher_confirms=False)
        self._channel = cast("Channel", await channel.get_underlay_channel())
        self._channel.on_consumer_cancel_callbacks.add(self._on_consumer_cancelled)
        for end in (self._channel.connection.closing, self._channel.closing):
            end.add_done_callback(self._on_closed)
        self._settlements = self._make_settlements(self._channel, name)
        if self._options.after_connect is not None:
            try:
                await self._options.after_connect(channel)
            except Exception as error:  # whatever the user's function raises is weather
                raise troubles.of_after_connect(error, self._where) from error

    def _make_settlements(self, channel: Channel, name: str) -> Settlements:
        writer = cast("Connection", self._connection).writer
        if self._is_fast and writer is not None:
            return DirectSettlements(channel.number, self._ledger, writer, self._where)
        return QueuedSettlements(channel, self._ledger, name)

    async def _prepare_queues(self) -> None:
        channel, options = self._the_channel(), self._options
        await channel.basic_qos(prefetch_count=self._prefetch)
        for position, queue in enumerate(options.queues):
            if options.declare == "active":
                wanted = options.declare_options
                declared = await channel.queue_declare(
                    queue,
                    durable=wanted.durable,
                    auto_delete=wanted.auto_delete,
                    exclusive=wanted.exclusive,
                    arguments=wanted.arguments,
                )
                self._queues[position] = declared.queue or queue
            elif options.declare == "passive":
                await channel.queue_declare(queue, passive=True)
            for bound in options.bindings:
                if bound.queue in (None, queue):
                    await channel.queue_bind(
                        self._queues[position], bound.exchange, bound.routing_key, arguments=bound.arguments
                    )

        await self._forwarder.prepare(self._queues, self._declare_own, self._look_at_own)

    async def _declare_own(self, queue: str, arguments: Mapping[str, Any]) -> None:
        try:
            await self._the_channel().queue_declare(queue, durable=True, arguments=dict(arguments))
        except ChannelClosed as refused:
            raise troubles.of_own_queue(refused, queue, self._where) from refused

    async def _look_at_own(self, queue: str) -> None:
        try:
            await self._the_channel().queue_declare(queue, passive=True)
        except ChannelClosed as refused:
            raise troubles.of_own_queue(refused, queue, self._where) from refused

    async def _consume(self) -> None:
        wanted = self._options.consume_options
        still = {waiting[4] for waiting in self._buffer}
        on_delivery = self._on_stray if self._watch(self._the_channel().number) else self._on_delivery
        self._origins = {tag: queue for tag, queue in self._origins.items() if tag in still or tag in self._consumers}
        for queue in self._queues:
            # Named by us, for the first delivery may be here before the answer is.
            tag = wanted.consumer_tag or f"broadway.{uuid.uuid4().hex}"
            self._origins[tag] = queue
            self._consumers.add(tag)
            if self._sink is not None:
                self._sink.add(tag)
            await self._the_channel().basic_consume(
                queue,
                on_delivery,
                exclusive=wanted.exclusive,
                arguments=wanted.all_arguments(),
                consumer_tag=tag,
            )

    def _watch(self, channel: int) -> bool:
        """Have deliveries on *channel* go past the library, if they do; before any consumer there is asked for."""
        reader = cast("Connection", self._connection).reader
        if self._is_fast and self._sink is None and reader is not None:
            self._sink = reader.sink(channel, self)
        return self._sink is not None

    def _the_channel(self) -> Channel:
        if self._channel is None:
            raise ProducerError(f"there is no channel to {self._where}")
        return self._channel

    @contextlib.contextmanager
    def _translated(self, sentence: Callable[[BaseException, RabbitMQOptions, str], ProducerError]) -> Iterator[None]:
        """Library errors become a ProducerError, and so does a cancellation that nobody asked for.

        When a connection dies, aiormq cancels its own tasks, and whoever awaits one of them sees a CancelledError.
        """
        try:
            yield
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise sentence(error, self._options, self._where) from None
        except TimeoutError:
            raise
        except troubles.LIBRARY_ERRORS as error:
            raise sentence(error, self._options, self._where) from error

    # --- what the client library tells us; called from its tasks, so they only take note ---------------------------

    async def _on_delivery(self, delivery: DeliveredMessage) -> None:
        tag, consumer_tag = tag_of(delivery), cast("str", delivery.consumer_tag)
        self.came([(tag, bool(delivery.redelivered), delivery, delivery.body, consumer_tag)])

    async def _on_stray(self, _: DeliveredMessage) -> None:
        # Nobody would ever settle it here.
        self._stop_delivering(ProducerError(f"a delivery from {self._where} came another way than expected"))

    def _on_consumer_cancelled(self, frame: Basic.Cancel) -> None:
        self.ended(Ended("consumer", frame.consumer_tag or ""))

    # --- what came, whichever way; see transport.Receiver ----------------------------------------------------------

    def came(self, deliveries: Sequence[_Waiting]) -> None:
        """Deliveries of our consumers, in the order of their tags."""
        first, last = deliveries[0][0], deliveries[-1][0]
        if last - first + 1 == len(deliveries):
            self._ledger.delivered_run(first, last)
        else:
            for waiting in deliveries:
                self._ledger.delivered(waiting[0])
        if self.trouble is None:
            self._buffer.extend(deliveries)
            self._buffered_bytes += _bytes_of(deliveries)
            if self._buffered_bytes > AUTO_BYTES:
                self._overrun(self._buffered_bytes / len(self._buffer))
            self.changed.set()

    def ended(self, why: Ended) -> None:
        """The broker took back a consumer, or closed the channel or the connection."""
        if why.what == "consumer":
            if why.text in self._consumers:
                queue = self._origins[why.text]
                self._stop_delivering(
                    ProducerError(
                        f"RabbitMQ at {self._where} cancelled the consumer of queue {queue!r}: "
                        "the queue was deleted, or has moved"
                    )
                )
            return
        self._stop(ProducerError(f"RabbitMQ at {self._where} closed the {why.what}: {why.text or 'no reason given'}"))

    def cut_off(self, problem: str | None) -> None:
        """The connection is gone without a word."""
        if problem is None:
            self._stop(troubles.of_loss(None, self._options, self._where, silent=self._is_silent))
        else:
            self._stop(ProducerError(f"{self._where} sent what is no AMQP: {problem}"))

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._stop(troubles.of_loss(error, self._options, self._where, silent=self._is_silent))

    @property
    def _is_silent(self) -> bool:
        return self._connection is not None and self._connection.is_silent

    def _stop(self, reason: ProducerError) -> None:
        self._stop_settling(reason)
        self._stop_delivering(reason)

    def _stop_delivering(self, reason: ProducerError) -> None:
        if self.trouble is not None:
            return
        self.trouble = reason
        # The broker has them still, and hands them out again.
        self._buffer.clear()
        self._buffered_bytes = 0
        self._consumers.clear()
        self.changed.set()
        if self._reporting:
            self._lost(reason)

    def _stop_settling(self, reason: ProducerError) -> None:
        self._channel = None
        if self._settlements is not None:
            self._settlements.stop(reason)

    # --- handing over ---------------------------------------------------------------------------------------------

    def take(self, demand: int) -> list[Message[bytes]]:
        """Up to *demand* of the buffered messages, oldest first; without waiting."""
        buffer = self._buffer
        taken = [buffer.popleft() for _ in range(min(demand, len(buffer)))]
        self._buffered_bytes = self._buffered_bytes - _bytes_of(taken) if buffer else 0
        if self._options.consume_options.no_ack and taken and self._settlements is not None:
            self._ledger.ack_all([waiting[0] for waiting in taken])
            self._settlements.tell_soon()
        origins, options = self._origins, self._options
        if self._sink is not None:
            return messages_of(taken, self, options, origins)
        return [to_message(delivery, self, options, origins[consumer]) for _, _, delivery, _, consumer in taken]

    async def stop_consuming(self) -> None:
        """Cancel the consumers, and give back what was not taken. Does nothing on a connection that is gone.

        Waits for the broker a few seconds at most: on a silent network it goes on by itself until :meth:`close`.
        """
        await self._bounded(self._stop_consuming(), "stop consuming")

    async def _stop_consuming(self) -> None:
        async with self._consuming:
            # A loss in here is reported by the callbacks above, and the broker takes everything back by itself.
            with contextlib.suppress(ProducerError, SettleError), self._translated(troubles.of_loss):
                await self._cancel(set(self._consumers))
                await self._give_back(list(self._buffer))

    async def _cancel(self, tags: set[str]) -> None:
        self._consumers -= tags
        for tag in tags:
            await self._the_channel().basic_cancel(tag)

    async def _give_back(self, waiting: Sequence[_Waiting]) -> None:
        """Requeue these of the buffered messages, and wait until that is written."""
        if not waiting:
            return
        gone = {tag for tag, *_ in waiting}
        self._buffer = deque(one for one in self._buffer if one[0] not in gone)
        self._buffered_bytes -= _bytes_of(waiting)
        for tag in gone:
            self._ledger.release(tag)
        await self._told()

    async def consume_again(self) -> None:
        """The way back from :meth:`stop_consuming`. Does nothing on a connection that is gone."""
        async with self._consuming:
            if not self._consumers and self.trouble is None:
                # A refusal closes the channel, and is reported by the callbacks above.
                with contextlib.suppress(ProducerError), self._translated(troubles.of_loss):
                    await self._consume()

    def change_prefetch(self, prefetch: int) -> None:
        """Have *prefetch* messages of each queue in advance from now on; when that is less, give back the surplus.

        The broker fixes a consumer's prefetch when it begins: so one with the new prefetch begins before the old one
        is cancelled, so that the queue never is without. Where the old one allows no other beside it (it is exclusive,
        or has a name of its own), the new prefetch counts from the next consume on.
        """
        before, self._prefetch = self._prefetch, prefetch
        self._aside(self._change_prefetch(before, prefetch), "change of prefetch")

    async def _change_prefetch(self, before: int, prefetch: int) -> None:
        wanted = self._options.consume_options
        async with self._consuming:
            if self.trouble is not None or prefetch != self._prefetch:
                return  # the next change is waiting behind this one
            with contextlib.suppress(ProducerError, SettleError), self._translated(troubles.of_loss):
                await self._the_channel().basic_qos(prefetch_count=prefetch)
                if not self._consumers or wanted.exclusive or wanted.consumer_tag is not None:
                    return
                old = set(self._consumers)
                await self._consume()
                await self._cancel(old)
                if prefetch < before:
                    # The new consumer has a whole prefetch of its own besides.
                    await self._give_back([one for one in self._buffer if one[4] in old])

    async def _bounded(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do *work*, which may hang on a silent network, and wait for it a few seconds; :meth:`close` ends it."""
        _, unanswered = await asyncio.wait({self._aside(work, name)}, timeout=_ANSWER_TIMEOUT)
        if unanswered:
            log.warning("no answer from the broker; going on without it", to=name, broker=self._where)

    def _aside(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)
        return task

    # --- settling -------------------------------------------------------------------------------------------------

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Tell the broker; returns when the words are on their way."""
        settled = self._note_successes(_receipts(successful))
        settled += [self._note(receipt, receipt.on_failure) for receipt in _receipts(failed)]
        await self._finish([*successful, *failed], settled)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Requeue *messages* by basic.nack, which costs no attempt on recent brokers."""
        await self._finish(messages, [self._ledger.release(receipt.tag) for receipt in _receipts(messages)])

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Have each delivered again to its queue after its delay, as the next attempt.

        Published with confirm to a queue that holds it so long, and only then acked here.

        Raises:
            SettleError: for some of them that is not sure: they stay with the broker, which delivers them again.
        """
        messages = [message for message, _ in messages_and_delays]
        await self._put_away(messages, self._forwarder.retry, messages_and_delays)

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Keep each among the dead letters: published with confirm, and only then acked. Raises as :meth:`retry`."""
        if self._forwarder.leaves_burying_to_the_broker:
            settled = [self._ledger.reject(receipt.tag, requeue=False) for receipt in _receipts(messages)]
            await self._finish(messages, settled)
        else:
            await self._put_away(messages, self._forwarder.bury, messages)

    async def _put_away(
        self,
        messages: Sequence[Message[Any]],
        put: Callable[[Sequence[T]], Awaitable[list[ProducerError | None]]],
        what: Sequence[T],
    ) -> None:
        if self._channel is None:
            # The broker has them again: to publish them, too, would double them.
            await self._finish(messages, [])
        reasons = await put(what)
        safe = [message for message, reason in zip(messages, reasons, strict=True) if reason is None]
        if safe:
            await self._finish(safe, [self._ledger.ack(receipt.tag) for receipt in _receipts(safe)])
        reason = next((reason for reason in reasons if reason is not None), None)
        if reason is not None:
            # Given back at once it would fail and come here again at once: so the next try is a matter of the back-off
            # of the whole connection, whose end gives everything back.
            self._stop_delivering(reason)
            unsafe = [message for message, why in zip(messages, reasons, strict=True) if why is not None]
            raise SettleError(
                f"{len(unsafe)} of {len(messages)} failed messages were not put away, and stay with the broker: "
                f"{reason}",
                unsettled=unsafe,
            )

    def failure_said_by(self, data: Any) -> Literal["source", "message"] | None:
        """``on_failure`` of the producer, when it was given, or ``configure_ack(on_failure=…)``."""
        receipt: Receipt = data
        return receipt.said_by

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

    def _note_successes(self, receipts: Sequence[Receipt]) -> list[bool]:
        tags = [receipt.tag for receipt in receipts if receipt.on_success == "ack"]
        if len(tags) == len(receipts):
            return self._ledger.ack_all(tags)
        return [self._note(receipt, receipt.on_success) for receipt in receipts]

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
        if self._channel is None or self._settlements is None:
            raise self.trouble or ProducerError(f"the connection to {self._where} was closed")
        await self._settlements.told()

    # --- ending ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what is settled, then close. Takes a few seconds at most, and raises nothing."""
        self._reporting = False
        if self._settlements is not None:
            await self._settlements.finish(_FLUSH_TIMEOUT)
        self._stop(ProducerError(f"the connection to {self._where} was closed"))
        for aside in self._asides:
            aside.cancel()
        if self._asides:
            await asyncio.wait(self._asides, timeout=_FLUSH_TIMEOUT)
        if self._settlements is not None:
            await self._settlements.ended()
        if self._connection is not None:
            await self._connection.end()


def _bytes_of(deliveries: Sequence[_Waiting]) -> int:
    return sum([len(waiting[3]) for waiting in deliveries])


def _receipts(messages: Sequence[Message[Any]]) -> list[Receipt]:
    return [message._acknowledgement.data for message in messages]
