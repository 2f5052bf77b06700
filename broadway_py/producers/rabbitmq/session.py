"""One connect of a consumer until its end: connection, channel, and the buffer of messages not taken yet."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, Final, cast

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelClosed, ChannelNotFoundEntity
from pamqp.commands import Basic

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import ProducerError, SettleError
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producer import SourceMessages
from broadway_py.producers.rabbitmq.connection import errors
from broadway_py.producers.rabbitmq.connection.connection import Connection, connect
from broadway_py.producers.rabbitmq.deliveries.choose_path import is_fast
from broadway_py.producers.rabbitmq.deliveries.consumers import Consumers
from broadway_py.producers.rabbitmq.deliveries.lazy_message import messages_of
from broadway_py.producers.rabbitmq.deliveries.message import Waiting, tag_of, to_message
from broadway_py.producers.rabbitmq.deliveries.near_limit import LimitWatch
from broadway_py.producers.rabbitmq.retries.former_delays import take_over
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder
from broadway_py.producers.rabbitmq.settings.options import AUTO_BYTES, RabbitMQOptions
from broadway_py.producers.rabbitmq.settlements.ack_writer import AckWriter, DirectSettlements, QueuedSettlements
from broadway_py.producers.rabbitmq.settlements.acknowledger import RabbitMQAcknowledger
from broadway_py.producers.rabbitmq.settlements.ledger import TagLedger
from broadway_py.producers.rabbitmq.topology.declare import Topology, make_way_back
from broadway_py.producers.rabbitmq.topology.message_counts import MessageCounts
from broadway_py.producers.rabbitmq.wire.delivery_parser import Ended, Sink

__all__ = ["Session"]

log = logger("broadway_py.producers.rabbitmq")

#: Seconds to wait for an answer that the broker normally gives at once. On a silent network none comes.
_ANSWER_TIMEOUT: Final = 3.0
#: Seconds for writing the last settlements to a connection that may be dead.
_FLUSH_TIMEOUT: Final = 3.0


class Session:
    """Covers one connect until its end. It has an acknowledger of its own, for exactly the messages that it delivered.

    Two things can end: *delivering* (:attr:`trouble` is set, the consumer is gone) and *settling* (the channel is
    gone). Delivering may end alone. In the client library's tasks our code only records what happened.

    Args:
        options: the producer's settings.
        prefetch: how many unsettled messages of each queue the broker may hand out.
        lost: called once, if delivering ends and nobody asked for it.
        overrun: called with the average size of the buffered bodies while they have too many bytes.
        forwarder: moves failed messages to a retry queue or to the dead letters.
        clock: tells how long the retries of a former version have waited.
    """

    def __init__(
        self,
        options: RabbitMQOptions,
        *,
        prefetch: int,
        lost: Callable[[ProducerError], None],
        overrun: Callable[[float], None],
        forwarder: Forwarder,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._options = options
        self._clock = clock
        self._lost = lost
        self._overrun = overrun
        self._forwarder = forwarder
        #: Why no more messages come; None: they come.
        self.trouble: ProducerError | None = None
        #: Why failed messages cannot be retried or dead-lettered now; None: they can. While it is set, no messages are
        #: handed over.
        self.obstacle: ProducerError | None = None
        #: Set when the buffer should be looked at again.
        self.changed = asyncio.Event()
        self._buffer: deque[Waiting] = deque()
        self._buffered_bytes = 0
        self._ledger = TagLedger()
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._where = options.where
        self._near_limit = LimitWatch(forwarder.clock)
        # The names that the broker uses: it gives a name to a queue without one.
        self._queues = list(options.queues)
        # Queue -> the exchange by which retries return there.
        self._ways_back: dict[str, str] = {}
        # Queues that had no such exchange before this connect.
        self._newly_retried: list[str] = []
        self._consumers = Consumers(
            options,
            prefetch,
            channel=self._the_channel,
            on_delivery=self._on_delivery,
            on_stray=self._on_stray,
            waiting=lambda: {waiting[4] for waiting in self._buffer},
            give_back=self._give_back,
        )
        self._asides: set[asyncio.Task[None]] = set()
        # Those of the tasks that move messages to the dead letters.
        self._keeping: set[asyncio.Task[None]] = set()
        # A loss is reported only if the connection was open and we did not close it.
        self._reporting = False
        # Made when the channel is open; it outlives the channel.
        self._acknowledger: RabbitMQAcknowledger | None = None
        # Whether deliveries bypass the library, and the sink that gets them; None: they come through the library.
        self._is_fast = False
        self._sink: Sink | None = None

    # --- connecting -----------------------------------------------------------------------------------------------

    async def open(self, name: str) -> None:
        """Connects as *name* and starts to consume.

        Raises:
            ProducerError: as the producer's ``open`` does; call :meth:`close` then, too.
        """
        self._is_fast = is_fast(self._options.delivery_path)
        may_have_delivered = False
        self._connection = await connect(self._options, name, cutting=self._is_fast)
        self._where = self._connection.where
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                with self._translated(errors.of_open):
                    await self._open_channel(name)
                    await self._prepare_queues()
                    may_have_delivered = True
                    await self._consumers.start(self._queues, self._watch(self._the_channel().number))
                    for queue in self._newly_retried:
                        self._aside(
                            take_over(self._options, name, self._forwarder, queue, self._clock), "former delays"
                        )
        except TimeoutError as error:
            failure = errors.of_open(error, self._options, self._where)
            failure.may_have_delivered = may_have_delivered
            raise failure from None
        except ProducerError as failure:
            # When the broker closes a channel, it takes back what it has delivered there.
            failure.may_have_delivered = may_have_delivered and not isinstance(failure.__cause__, ChannelClosed)
            raise
        if self.trouble is not None:
            self.trouble.may_have_delivered = True
            raise self.trouble
        self._reporting = True

    async def _open_channel(self, name: str) -> None:
        channel = await cast("Connection", self._connection).channel(publisher_confirms=False)
        self._channel = cast("Channel", await channel.get_underlay_channel())
        self._channel.on_consumer_cancel_callbacks.add(self._on_consumer_cancelled)
        for end in (self._channel.connection.closing, self._channel.closing):
            end.add_done_callback(self._on_closed)
        settlements = self._make_settlements(self._channel, name)
        self._acknowledger = RabbitMQAcknowledger(
            self._ledger,
            settlements,
            self._forwarder,
            waiting=self._on_waiting,
            on_failure_is_given=self._options.on_failure_is_given,
        )
        if self._options.after_connect is not None:
            try:
                returned = self._options.after_connect(channel)
                is_awaitable = inspect.isawaitable(returned)
                if is_awaitable:
                    await returned
            except Exception as error:  # any error of the user's function is expected here
                raise errors.of_after_connect(error, self._where) from error
            if not is_awaitable:
                raise errors.of_no_awaitable(returned, self._where)

    def _make_settlements(self, channel: Channel, name: str) -> AckWriter:
        writer = cast("Connection", self._connection).writer
        if self._is_fast and writer is not None:
            return DirectSettlements(channel.number, self._ledger, writer, self._where)
        return QueuedSettlements(channel, self._ledger, name)

    async def _prepare_queues(self) -> None:
        topology = Topology(cast("Connection", self._connection), self._the_channel(), self._options)
        await self._consumers.ask()
        self._queues = await topology.declare()
        self._near_limit.limits.update(topology.limits)
        await self._forwarder.prepare(self._queues, topology.declare_own, topology.look_at_own)
        made = await self._forwarder.make_ways_back(
            self._queues, functools.partial(make_way_back, self._another_channel)
        )
        self._ways_back = {queue: self._forwarder.way_back(queue) for queue in self._queues}
        self._newly_retried = [
            queue for queue, is_new in made.items() if is_new and not self._options.is_passing(queue)
        ]

    async def _another_channel(self) -> Channel:
        channel = await cast("Connection", self._connection).channel(publisher_confirms=False)
        return cast("Channel", await channel.get_underlay_channel())

    def _watch(self, channel: int) -> Sink | None:
        """Makes deliveries on *channel* bypass the library, on the fast path. Called before there is any consumer."""
        reader = cast("Connection", self._connection).reader
        if self._is_fast and reader is not None:
            self._sink = reader.sink(channel, self)
        return self._sink

    def _the_channel(self) -> Channel:
        if self._channel is None:
            raise ProducerError(f"there is no channel to {self._where}")
        return self._channel

    @contextlib.contextmanager
    def _translated(self, sentence: Callable[[BaseException, RabbitMQOptions, str], ProducerError]) -> Iterator[None]:
        """Works like :func:`errors.translated`, for our broker."""
        with errors.translated(lambda error: sentence(error, self._options, self._where)):
            yield

    # --- called from tasks of the client library, so these methods only record what happened -----------------------

    async def _on_delivery(self, delivery: DeliveredMessage) -> None:
        tag, consumer_tag = tag_of(delivery), cast("str", delivery.consumer_tag)
        self.came([(tag, bool(delivery.redelivered), delivery, delivery.body, consumer_tag)])

    async def _on_stray(self, _: DeliveredMessage) -> None:
        # Nobody would ever settle this delivery.
        self._stop_delivering(ProducerError(f"a delivery from {self._where} bypassed the fast path"))

    def _on_consumer_cancelled(self, frame: Basic.Cancel) -> None:
        self.ended(Ended("consumer", frame.consumer_tag or ""))

    # --- called on both delivery paths; see transport.DeliveryReceiver ------------------------------------------------

    def came(self, deliveries: Sequence[Waiting]) -> None:
        """Takes deliveries of our consumers, in the order of their tags."""
        first, last = deliveries[0][0], deliveries[-1][0]
        if last - first + 1 == len(deliveries):
            self._ledger.delivered_run(first, last)
        else:
            for waiting in deliveries:
                self._ledger.delivered(waiting[0])
        if self.trouble is None:
            if self._near_limit.limits:
                deliveries = self._without_those_near_their_limit(deliveries)
            self._buffer.extend(deliveries)
            self._buffered_bytes += _bytes_of(deliveries)
            if self._buffered_bytes > AUTO_BYTES:
                self._overrun(self._buffered_bytes / len(self._buffer))
            self.changed.set()

    def _without_those_near_their_limit(self, deliveries: Sequence[Waiting]) -> Sequence[Waiting]:
        """Moves to the dead letters what the broker would drop after a few more returns.

        These returns need no failure: each pause gives back the messages that nobody has taken.
        """
        near = self._near_limit.near(deliveries, self._consumers.origins, self._where)
        if not near:
            return deliveries
        keeping = self._aside(self._keep(near), "keep what came back too often")
        self._keeping.add(keeping)
        keeping.add_done_callback(self._keeping.discard)
        gone = {one[0] for one in near}
        return [one for one in deliveries if one[0] not in gone]

    async def _keep(self, near: Sequence[Waiting]) -> None:
        acknowledger = cast("RabbitMQAcknowledger", self._acknowledger)
        # After this error the messages are still at the broker, and are delivered again.
        with contextlib.suppress(SettleError):
            await acknowledger.keep(self._messages_of(near, acknowledger, self._options.without_no_ack()))

    def ended(self, why: Ended) -> None:
        """Notes that the broker cancelled a consumer, or closed the channel or the connection."""
        if why.what == "consumer":
            queue = self._consumers.cancelled(why.text)
            if queue is not None:
                self._aside(self._ask_why_cancelled(queue), "why cancelled")
            return
        self._stop(ProducerError(f"RabbitMQ at {self._where} closed the {why.what}: {why.text or 'no reason given'}"))

    async def _ask_why_cancelled(self, queue: str) -> None:
        """Stops delivering, and finds out the reason, which the broker does not send."""
        is_there = True
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                channel = await self._another_channel()
                await channel.queue_declare(queue, passive=True)
                await channel.close()
        except ChannelNotFoundEntity:
            is_there = False
        except TimeoutError:
            pass
        except Exception as error:
            if not errors.is_of_library(error):
                raise
            # The connection reports a reason of its own.
        unsettled = self._ledger.open
        self._stop_delivering(errors.of_cancelled_consumer(queue, self._where, is_there=is_there, unsettled=unsettled))

    def cut_off(self, problem: str | None) -> None:
        """Notes that the connection ended without a close from the broker."""
        if problem is None:
            self._stop(errors.of_loss(None, self._options, self._where, silent=self._is_silent))
        else:
            self._stop(ProducerError(f"{self._where} sent something that is not AMQP: {problem}"))

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._stop(errors.of_loss(error, self._options, self._where, silent=self._is_silent))

    @property
    def _is_silent(self) -> bool:
        return self._connection is not None and self._connection.is_silent

    def _stop(self, reason: ProducerError) -> None:
        self._channel = None
        if self._acknowledger is not None:
            self._acknowledger.stop(self.trouble or reason)
        self._stop_delivering(reason)

    def _stop_delivering(self, reason: ProducerError) -> None:
        if self.trouble is not None:
            return
        self.trouble = reason
        self._consumers.end()
        # The broker still has these messages, and delivers them again.
        self._buffer.clear()
        self._buffered_bytes = 0
        self.changed.set()
        if self._reporting:
            self._lost(reason)

    # --- handing over ---------------------------------------------------------------------------------------------

    def take(self, demand: int) -> list[Message[bytes]]:
        """Returns at most *demand* of the buffered messages, oldest first. Does not wait."""
        acknowledger, buffer = self._acknowledger, self._buffer
        if acknowledger is None or self.obstacle is not None:
            return []  # there is no channel yet, or a message that fails now could not be moved
        taken = [buffer.popleft() for _ in range(min(demand, len(buffer)))]
        self._buffered_bytes = self._buffered_bytes - _bytes_of(taken) if buffer else 0
        if self._options.consume_options.no_ack and taken:
            acknowledger.ack_at_once([waiting[0] for waiting in taken])
        return self._messages_of(taken, acknowledger, self._options)

    def _messages_of(
        self, taken: Sequence[Waiting], acknowledger: RabbitMQAcknowledger, options: RabbitMQOptions
    ) -> list[Message[bytes]]:
        origins = self._consumers.origins
        if self._sink is not None:
            return messages_of(taken, acknowledger, options, origins, self._ways_back)
        came = [(delivery, origins[consumer]) for _, _, delivery, _, consumer in taken]
        return [to_message(delivery, acknowledger, options, queue, self._ways_back[queue]) for delivery, queue in came]

    def _on_waiting(self, reason: ProducerError | None) -> None:
        """Notes that failed messages cannot be moved because of *reason*; None: they can again."""
        if (self.obstacle is None) == (reason is None):
            self.obstacle = reason
            return
        self.obstacle = reason
        if reason is None:
            log.info("failed messages can be stored again; new messages are started", broker=self._where)
        else:
            log.warning(
                "failed messages cannot be stored; they are tried again, and no new messages are started",
                reason=str(reason),
                broker=self._where,
            )
        self.changed.set()

    async def source_messages(self) -> SourceMessages:
        """Returns how many messages the queues of the source hold. See :class:`MessageCounts`.

        Raises:
            ProducerError: the connection is gone.
        """
        former = self._forwarder.former_delays(self._queues, self._newly_retried)
        # All partitions share one place for their dead letters, so one partition tells.
        tells_dead = self._options.queues[0] == self._options.all_queues[0]
        dead = self._forwarder.places_of_dead_letters(self._queues) if tells_dead else None
        with self._translated(errors.of_loss):
            counts = MessageCounts(self._another_channel)
            return await counts.of_source(self._queues, self._forwarder.delays, former, dead)

    def begin_draining(self) -> None:
        """Gives back failed messages that cannot be moved now, and ends a wait for :attr:`changed`."""
        if self._acknowledger is not None:
            self._acknowledger.give_up()
        self.changed.set()

    async def kept(self) -> None:
        """Waits, some seconds at most, until the messages near their delivery limit are among the dead letters."""
        if self._keeping:
            await asyncio.wait(self._keeping, timeout=_ANSWER_TIMEOUT)

    async def stop_consuming(self) -> None:
        """Cancels the consumers, and gives back messages that were not taken. Does nothing if the connection is gone.

        Waits for the broker a few seconds at most. On a silent network the work continues until :meth:`close`.
        """
        self._consumers.is_wanted = False
        await self._bounded(self._unless_lost(self._consumers.stop), "stop consuming")

    async def _unless_lost(self, change: Callable[[], Awaitable[None]]) -> None:
        """Runs *change*, and ignores a lost connection.

        The callbacks above report the loss, and the broker takes everything back. The same holds if the broker refuses,
        which closes the channel.
        """
        with contextlib.suppress(ProducerError, SettleError), self._translated(errors.of_loss):
            await change()

    async def _give_back(self) -> None:
        """Requeues the buffered messages, and waits until that is written."""
        if not self._buffer or self._acknowledger is None:
            return
        # A dict, because it keeps their order.
        gone = dict.fromkeys(tag for tag, *_ in self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        await self._acknowledger.give_back(gone)

    async def consume_again(self, most: int | None = None) -> None:
        """Starts to consume again after :meth:`stop_consuming`, with a prefetch of *most* if that is less than usual.

        Does nothing if the connection is gone.
        """
        await self._unless_lost(functools.partial(self._consumers.resume, most))

    def change_prefetch(self, prefetch: int) -> None:
        """Changes the prefetch of each queue to *prefetch*. If that is less, gives back waiting messages.

        The broker fixes a consumer's prefetch when it begins, so this needs another consumer. If the old consumer
        cannot be replaced (it is exclusive, or the single active one, or has a name of its own), the new prefetch is
        used from the next consume on.
        """
        self._consumers.want_prefetch(prefetch)
        change = functools.partial(self._consumers.change_prefetch, prefetch)
        self._aside(self._unless_lost(change), "change of prefetch")

    async def _bounded(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs *work* and waits for it a few seconds: it may hang on a silent network. :meth:`close` ends it."""
        _, unanswered = await asyncio.wait({self._aside(work, name)}, timeout=_ANSWER_TIMEOUT)
        if unanswered:
            log.warning("no answer from the broker; going on without it", to=name, broker=self._where)

    def _aside(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)
        return task

    # --- ending ---------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Writes the settlements, then closes. Takes a few seconds at most, and raises nothing.

        If it is cancelled, the connection is dropped, because it must not outlive us while it holds messages.
        """
        self._reporting = False
        is_in_time = False
        try:
            if self._acknowledger is not None:
                await self._give_all_back(self._acknowledger)
                await self._acknowledger.finish(_FLUSH_TIMEOUT)
            await self._end_settling()
            is_in_time = True
        finally:
            if not is_in_time:
                self.abort()
                self._call_off()
            if self._connection is not None:
                await self._connection.end()

    async def _give_all_back(self, acknowledger: RabbitMQAcknowledger) -> None:
        """Gives back explicitly everything that is not settled.

        Recent brokers count the end of a connection as a failure of all messages that it holds, but not an explicit
        return.
        """
        if self._channel is not None and self._consumers.are_at_work:
            # Otherwise this consumer would get them again, and that counts again.
            await self.stop_consuming()
        acknowledger.release_all(self._closed)

    def abort(self) -> None:
        """Drops the connection at once, without closing it properly. :meth:`close` must still be called."""
        self._reporting = False
        if self._connection is not None:
            self._connection.abort()

    async def _end_settling(self) -> None:
        self._call_off()
        if self._asides:
            await asyncio.wait(self._asides, timeout=_FLUSH_TIMEOUT)
        if self._acknowledger is not None:
            await self._acknowledger.ended()

    @property
    def _closed(self) -> ProducerError:
        return ProducerError(f"the connection to {self._where} was closed")

    def _call_off(self) -> None:
        self._stop(self._closed)
        for aside in self._asides:
            aside.cancel()


def _bytes_of(deliveries: Sequence[Waiting]) -> int:
    return sum([len(waiting[3]) for waiting in deliveries])
