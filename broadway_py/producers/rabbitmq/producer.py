"""The RabbitMQ producer that users name in their code and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broadway_py.errors import OptionsError, ProducerError, gathered
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producer import Delays, FailurePlan, Producer
from broadway_py.producers.rabbitmq.connection.log_filter import hush
from broadway_py.producers.rabbitmq.deliveries.prefetch import PrefetchGauge
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder, Troubled
from broadway_py.producers.rabbitmq.retries.publisher import Publisher
from broadway_py.producers.rabbitmq.session import Session
from broadway_py.producers.rabbitmq.settings.conflicts import (
    loses_late_retries,
    refuse_copies_that_shut_each_other_out,
    refuse_losing,
    rejects_unasked,
    requeues_up_to,
    waits_in_classic_queues,
)
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions

__all__ = ["RabbitMQProducer"]


log = logger("broadway_py.producers.rabbitmq")


@dataclass
class _Seen:
    #: Average size of the bodies received so far; 0: unknown.
    mean_bytes: float = 0.0


class RabbitMQProducer(Producer):
    """Consumes one RabbitMQ queue, or several.

    ::

        RabbitMQProducer("orders", "amqp://guest:guest@127.0.0.1/", on_failure="reject_and_requeue_once")

    Each copy has its own connection, channel and consumer (one for each queue). It reports every error of these to the
    pipeline, which opens a new copy with back-off. Messages of the old copy can then no longer be settled, and the
    broker delivers them again.

    Args:
        queue: name of the queue, or a list of names.
        url: the address of the broker, or a list of addresses; default ``amqp://guest:guest@127.0.0.1/``.
        settings: any other field of :class:`RabbitMQOptions`.

    Raises:
        OptionsError: a setting is wrong or unknown.
    """

    def __init__(
        self, queue: str | Sequence[str] | None = None, url: str | Sequence[str] | None = None, **settings: Any
    ) -> None:
        given = {"queue": queue, "url": url}
        settings.update((name, value) for name, value in given.items() if value is not None)
        self._settings = settings
        self.options = RabbitMQOptions(**settings)
        self.name = self.options.name
        self.concurrency = self.options.concurrency
        # The options at this moment: merge_options may return others at a connect.
        self._of_copies = [self._merged(index) for index in range(self.concurrency)]
        refuse_copies_that_shut_each_other_out(self._of_copies)
        self._session: Session | None = None
        self._publisher: Publisher | None = None
        self._troubled = Troubled()
        self.on_failure_is_given = self.options.on_failure_is_given
        self._gauge: PrefetchGauge | None = None
        self._paused = False
        # What the copies know about the size of bodies.
        self._seen = _Seen()

    def _merged(self, index: int) -> RabbitMQOptions:
        """Returns the options of the copy *index*.

        Raises:
            OptionsError: ``merge_options`` returned something wrong.
        """
        merge = self.options.merge_options
        if merge is None:
            return self.options
        try:
            changes = merge(index)
        except Exception as error:  # the user's error; its text may hold secrets, so it is not shown
            raise OptionsError(("merge_options",), f"raised {type(error).__name__} for copy {index}") from error
        if not isinstance(changes, Mapping):
            raise OptionsError(
                ("merge_options",), f"expected a dict of settings for copy {index}, got {type(changes).__name__}"
            )
        for fixed in ("concurrency", "merge_options", "name"):
            if fixed in changes:
                raise OptionsError(("merge_options",), f"{fixed} is the same for all copies and cannot change here")
        try:
            return RabbitMQOptions(**{**self._settings, **changes})
        except OptionsError as wrong:
            raise wrong.under("merge_options") from None

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Refuses a *plan* that would lose failed messages, or that some copy cannot carry out.

        Raises:
            OptionsError: dead letters would come back to the queue itself, or ``reject`` would delete messages, or the
                messages are gone before they fail.
        """
        for limit in {requeues_up_to(options) for options in self._of_copies} - {None}:
            log.warning(
                "reject_and_requeue is not for ever here: a quorum queue dead-letters a message that came back as "
                "often as its x-delivery-limit says, and deletes it where it has no dead-letter exchange",
                queue=self.options.queue,
                limit=limit,
            )
        if plan is not None:
            wrong: list[OptionsError] = []
            for options in self._of_copies:
                with gathered(wrong):
                    refuse_losing(options, plan)
            if wrong:
                # Most copies have the same errors, so equal ones are removed.
                raise OptionsError.of({str(one): one for one in wrong}.values())
            retries = "retry" in plan.actions and plan.authority.policy_decides
            if retries and any(loses_late_retries(options) for options in self._of_copies):
                log.warning(
                    "a retry that returns while the queue is full is lost, as the queue refuses what is beyond its "
                    "limit: have retries wait in quorum queues (a durable queue, and no x-queue-type in "
                    "retry_arguments), or leave the limit away",
                    queue=self.options.queue,
                )
            elif retries and any(waits_in_classic_queues(options) for options in self._of_copies):
                log.warning(
                    "retries wait in classic queues, as retry_arguments say, and a restart of the broker can lose "
                    "those that are due meanwhile: leave x-queue-type out, and they wait in quorum queues, which lose "
                    "none",
                    queue=self.options.queue,
                )
        elif any(rejects_unasked(options) for options in self._of_copies):
            log.warning(
                "failed messages are rejected, which deletes them unless the queue has a dead-letter exchange: "
                "say on_failure=, or leave failure= as it is",
                queue=self.options.queue,
            )

    def most_in_flight(self, capacity: int) -> int | None:
        """Returns the prefetch of all queues together; None with ``no_ack``."""
        if self.options.consume_options.no_ack:
            return None
        return self.options.prefetch(capacity) * len(self.options.queues)

    def backoff(self) -> Delays | None:
        """Returns the waits between two connects; None: the settings do not set them."""
        return self.options.make_backoff()

    async def open(self) -> None:
        """Connects, checks the queue, and starts to consume.

        Raises:
            SourceRefused: the broker refused the login, the virtual host or the queue.
            ProducerError: the broker or the queue is not available; or ``merge_options`` returned something wrong, or
                something that conflicts with the failure policy.
        """
        hush()
        try:
            self.options = options = self._merged(self.index)
            plan = self.failure
            if plan is not None:
                plan = plan.for_settings(on_failure_is_given=options.on_failure_is_given)
                refuse_losing(options, plan, self.pipeline)
        except OptionsError as wrong:
            raise ProducerError(str(wrong)) from wrong
        prefetch = options.prefetch(self.capacity, self._seen.mean_bytes)
        self._gauge = None
        if options.prefetch_count == "auto":
            self._gauge = PrefetchGauge(options, self.capacity, self._seen.mean_bytes)
        self._publisher = Publisher(options, f"{self._connection_name()}.publisher", self.clock)
        self._session = Session(
            options,
            prefetch=prefetch,
            lost=self.lost,
            overrun=self._overrun,
            forwarder=Forwarder(
                options,
                plan,
                self._publisher,
                pipeline=self.pipeline,
                clock=self.clock,
                troubled=self._troubled,
            ),
            clock=self.clock,
        )
        await self._session.open(self._connection_name())

    def _connection_name(self) -> str:
        return self.options.connection_name or f"{self.pipeline}.{self.name or 'rabbitmq'}.{self.index}"

    async def handle_demand(self, demand: int) -> Sequence[Message[bytes]]:
        """Returns at most *demand* messages. Waits for the first one.

        Raises:
            ProducerError: the connection, the channel or the consumer is gone.
        """
        session = self._opened()
        while True:
            if session.trouble is not None:
                raise session.trouble
            if self.draining.is_set():
                return []
            if not self._paused and (messages := session.take(demand)):
                if self._gauge is not None:
                    # Only the first message of each list is measured; that is enough for the average.
                    self._change_prefetch(self._gauge.see(messages[0].size))
                return messages
            session.changed.clear()
            await session.changed.wait()

    def begin_draining(self) -> None:
        """Begins to drain, and ends a waiting :meth:`handle_demand`."""
        super().begin_draining()
        if self._session is not None:
            self._session.begin_draining()

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
        """Cancels the consumer, and requeues the messages that were not handed over."""
        if self._session is not None:
            await self._session.stop_consuming()
            await self._session.kept()

    @property
    def obstacle(self) -> str | None:
        """Returns why failed messages cannot be retried or dead-lettered now; None: they can.

        While it is not None, no new messages are started.
        """
        found = None if self._session is None else self._session.obstacle
        return None if found is None else f"nothing new is begun, for a failed message cannot be put away: {found}"

    def resize(self, capacity: int) -> None:
        """Takes the new *capacity* of the pipeline, in messages. With ``prefetch_count: auto`` the prefetch changes."""
        super().resize(capacity)
        if self._gauge is not None:
            self._change_prefetch(self._gauge.resize(capacity))

    def _overrun(self, mean_bytes: float) -> None:
        if self._gauge is not None:
            self._change_prefetch(self._gauge.overrun(mean_bytes))

    def _change_prefetch(self, count: int | None) -> None:
        if count is None or self._session is None:
            return
        self._seen.mean_bytes = 0.0 if self._gauge is None else self._gauge.mean_bytes
        log.info("the prefetch changes", queue=self.options.queue, prefetch=count)
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
            raise RuntimeError(f"{self!r} is a description: the pipeline opens a copy of it")
        return self._session
