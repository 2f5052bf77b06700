"""What runs of a RabbitMQ producer: one copy, from its connect to its end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broadway_py.errors import OptionsError, ProducerError
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producer import Producer, SourceMessages
from broadway_py.producers.rabbitmq.connection.log_filter import hush
from broadway_py.producers.rabbitmq.deliveries.prefetch import PrefetchGauge
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.session import Session
from broadway_py.producers.rabbitmq.settings.conflicts import refuse_losing
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.message_counts import DelaysInUse

__all__ = ["Learned", "RabbitMQReader"]

log = logger("broadway_py.producers.rabbitmq")


@dataclass
class Learned:
    """What the copies of one producer have learned. They share it, and later copies begin with it."""

    #: The average size of the bodies received so far, in bytes; 0: unknown.
    mean_bytes: float = 0.0
    #: Queues of ours that the broker refused.
    troubled: Troubled = field(default_factory=Troubled)
    #: The delay queues that are known to exist.
    delays: DelaysInUse = field(default_factory=DelaysInUse)


class RabbitMQReader(Producer):
    """Consumes the queues of a :class:`~broadway_py.producers.rabbitmq.RabbitMQProducer`, for one copy of it.

    Args:
        options_of: returns the options of the copy with a given index at this moment. Raises OptionsError.
        learned: what the copies of the producer share.
    """

    def __init__(self, options_of: Callable[[int], RabbitMQOptions], learned: Learned) -> None:
        self._options_of = options_of
        self._learned = learned
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._gauge: PrefetchGauge | None = None
        self._paused = False

    async def open(self) -> None:
        """Connects, checks the queue, and starts to consume.

        Raises:
            SourceRefused: the broker refused the login, the virtual host or the queue.
            ProducerError: the broker or the queue is not available; or ``merge_options`` returned something wrong, or
                something that conflicts with the failure policy.
        """
        hush()
        context = self.context
        try:
            self._options = options = self._options_of(context.index)
            plan = context.failure
            if plan is not None:
                plan = plan.for_settings(on_failure_is_given=options.on_failure_is_given)
                refuse_losing(options, plan, context.pipeline)
        except OptionsError as wrong:
            raise ProducerError(str(wrong)) from wrong
        prefetch = options.prefetch(context.capacity, self._learned.mean_bytes)
        self._gauge = None
        if options.prefetch_count == "auto":
            self._gauge = PrefetchGauge(options, context.capacity, self._learned.mean_bytes)
        name = options.connection_name or f"{context.pipeline}.{context.producer}.{context.index}"
        self._publisher = Publisher(options, f"{name}.publisher", context.clock)
        self._session = Session(
            options,
            prefetch=prefetch,
            lost=context.lost,
            overrun=self._overrun,
            forwarder=Forwarder(
                options,
                plan,
                self._publisher,
                pipeline=context.pipeline,
                clock=context.clock,
                troubled=self._learned.troubled,
                delays=self._learned.delays,
            ),
            clock=context.clock,
        )
        await self._session.open(name)

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]]:
        """Returns at most *demand* messages. Waits for the first one.

        Raises:
            ProducerError: the connection, the channel or the consumer is gone.
        """
        session, draining = self._opened(), self.context.draining
        while True:
            if session.trouble is not None:
                raise session.trouble
            if draining.is_set():
                return []
            if not self._paused and (messages := session.take(demand)):
                if self._gauge is not None:
                    # Only the first message of each list is measured; that is enough for the average.
                    self._change_prefetch(self._gauge.see(messages[0].size))
                return messages
            session.changed.clear()
            await session.changed.wait()

    async def source_messages(self) -> SourceMessages:
        """Returns the broker's counts of the queues, of the delay queues in use, and of the queues for dead letters.

        Messages that were handed out ahead, as the prefetch allows, are not counted. Partition 0 has the dead letters
        of all partitions.
        """
        return await self._opened().source_messages()

    async def pause(self) -> None:
        """Cancels the consumer, and requeues the messages that were not handed over."""
        self._paused = True
        await self._opened().stop_consuming()

    async def resume(self) -> None:
        """Starts to consume again. While draining it does nothing, because draining is final."""
        await self._resume(None)

    async def resume_for(self, most: int) -> None:
        """Starts to consume again, with a prefetch of at most *most*."""
        await self._resume(most)

    async def _resume(self, most: int | None) -> None:
        if self.draining.is_set():
            return
        self._paused = False
        session = self._opened()
        await session.consume_again(most)
        session.changed.set()

    async def prepare_for_draining(self) -> None:
        """Ends a waiting :meth:`handle_demand`, cancels the consumer, and requeues what was not handed over."""
        if self._session is not None:
            self._session.begin_draining()
            await self._session.stop_consuming()
            await self._session.kept()

    @property
    def obstacle(self) -> str | None:
        """Returns why failed messages cannot be retried or dead-lettered now; None: they can.

        While it is not None, no new messages are started.
        """
        found = None if self._session is None else self._session.obstacle
        if found is None:
            return None
        return f"no new messages are started, because a failed message cannot be stored: {found}"

    def resize(self, capacity: int) -> None:
        """Takes the new *capacity* of the pipeline, in messages. With ``prefetch_count: auto`` the prefetch changes."""
        if self._gauge is not None:
            self._change_prefetch(self._gauge.resize(capacity))

    def _overrun(self, mean_bytes: float) -> None:
        if self._gauge is not None:
            self._change_prefetch(self._gauge.overrun(mean_bytes))

    def _change_prefetch(self, count: int | None) -> None:
        if count is None or self._session is None:
            return
        self._learned.mean_bytes = 0.0 if self._gauge is None else self._gauge.mean_bytes
        log.info("the prefetch has changed", queue=self._options.shown_queue, prefetch=count)
        self._session.change_prefetch(count)

    async def close(self) -> None:
        """Writes the last settlements and closes the connections. Takes a few seconds at most.

        If it is cancelled, it drops the connections at once.
        """
        is_in_time = False
        try:
            if self._publisher is not None:
                await self._publisher.close()
            is_in_time = True
        finally:
            if self._session is not None:
                if not is_in_time:
                    self._session.abort()
                await self._session.close()

    def _opened(self) -> Session:
        if self._session is None:
            raise RuntimeError(f"{self!r} is not open; call open() first")
        return self._session
