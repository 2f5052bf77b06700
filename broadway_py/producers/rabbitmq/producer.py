"""The RabbitMQ producer that users name in their code and settings."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

from broadway_py.errors import OptionsError, gathered
from broadway_py.examination import Finding
from broadway_py.log import logger
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producer_description import Delays, ProducerDescription
from broadway_py.producers.rabbitmq.deliveries.trace_source import RabbitMQTraceSource
from broadway_py.producers.rabbitmq.examination.source import examine_source
from broadway_py.producers.rabbitmq.reader import Learned, RabbitMQReader
from broadway_py.producers.rabbitmq.settings.conflicts import (
    loses_late_retries,
    refuse_copies_that_shut_each_other_out,
    refuse_losing,
    rejects_unasked,
    requeues_up_to,
    waits_in_classic_queues,
)
from broadway_py.producers.rabbitmq.settings.options import RabbitMQOptions
from broadway_py.trace_place import TraceSource

__all__ = ["RabbitMQProducer"]

log = logger("broadway_py.producers.rabbitmq")


class RabbitMQProducer(ProducerDescription):
    """Consumes one RabbitMQ queue, or several.

    ::

        RabbitMQProducer("orders", "amqp://guest:guest@127.0.0.1/", on_failure="reject_and_requeue_once")

    Each copy has its own connection, channel and consumer (one for each queue). It reports every error of these to the
    pipeline, which opens a new copy with back-off. Messages of the old copy can then no longer be settled, and the
    broker delivers them again.

    With ``partitions=4`` it reads the queues ``<queue>.0`` to ``<queue>.3``, each with a reader of its own. See
    :attr:`RabbitMQOptions.partitions`.

    Args:
        queue: name of the queue, or a list of names.
        url: the address of the broker, or a list of addresses; default ``amqp://guest:guest@127.0.0.1/``.
        settings: any other field of :class:`RabbitMQOptions`.

    Raises:
        OptionsError: a setting is wrong or unknown.
    """

    marks_repeats = True
    outlives_process = True

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
        self.on_failure_is_given = self.options.on_failure_is_given
        self.partitions = self.options.partitions
        self.keeps_keys_apart = self.partitions is not None
        self._learned = Learned()

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

    def trace_source(self) -> TraceSource:
        """Returns what reads the headers of a trace from the deliveries."""
        return RabbitMQTraceSource(self.options.queues[0])

    def describe_partition(self, index: int) -> ProducerDescription:
        """Returns a producer that consumes the queue of the partition."""
        made = copy.copy(self)
        made.options = self.options.of_partition(index)
        made._of_copies = [made.options]
        made._learned = Learned()
        return made

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Refuses a *plan* that would lose failed messages, or that some copy cannot carry out.

        Raises:
            OptionsError: dead letters would come back to the queue itself, or ``reject`` would delete messages, or the
                messages are gone before they fail.
        """
        for limit in {requeues_up_to(options) for options in self._of_copies} - {None}:
            log.warning(
                "reject_and_requeue does not requeue for ever: when a message has come back as often as the "
                "x-delivery-limit of its quorum queue allows, the queue dead-letters it, or deletes it if there is no "
                "dead-letter exchange",
                queue=self.options.shown_queue,
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
                    "a retry that returns while the queue is full is lost, because a full queue refuses it: let "
                    "retries wait in quorum queues (a durable queue, and no x-queue-type in retry_arguments), or "
                    "remove the limit of the queue",
                    queue=self.options.shown_queue,
                )
            elif retries and any(waits_in_classic_queues(options) for options in self._of_copies):
                log.warning(
                    "retries wait in classic queues, as retry_arguments say, and the broker can lose those that are "
                    "due while it restarts: leave x-queue-type out, so that they wait in quorum queues, which lose "
                    "none",
                    queue=self.options.shown_queue,
                )
        elif any(rejects_unasked(options) for options in self._of_copies):
            log.warning(
                "failed messages are rejected, which deletes them unless the queue has a dead-letter exchange: "
                "set on_failure= to choose this, or use a failure policy",
                queue=self.options.shown_queue,
            )

    def check_windows(self) -> None:
        """Refuses ``no_ack``.

        Raises:
            OptionsError: a copy has it.
        """
        if any(options.consume_options.no_ack for options in self._of_copies):
            raise OptionsError(
                ("consume_options", "no_ack"),
                "expected false with aggregators, got true: the broker forgets a message when it hands it out, so a "
                "crash would lose what is not stored yet; leave no_ack out",
            )

    def most_in_flight(self, capacity: int) -> int | None:
        """Returns the prefetch of all queues together; None with ``no_ack``."""
        if self.options.consume_options.no_ack:
            return None
        return self.options.prefetch(capacity) * len(self.options.queues)

    def returns_within(self, *, process_died: bool) -> float:
        """Returns three heartbeats: so long a broker may take to notice that a silent connection is dead.

        When a process dies, its connections end at once.
        """
        if process_died:
            return 0.0
        return 3.0 * max(options.heartbeat_seconds for options in self._of_copies)

    def backoff(self) -> Delays | None:
        """Returns the waits between two connects; None: the settings do not set them."""
        return self.options.make_backoff()

    def create(self) -> Producer:
        """Returns what consumes the queues."""
        return RabbitMQReader(self._merged, self._learned)

    async def examine(
        self, pipeline: str, plan: FailurePlan | None, *, timeout: float
    ) -> AsyncGenerator[Finding, None]:
        """Yields what the brokers, the queues and the permissions of this user are like."""
        # Only merge_options makes copies differ.
        copies = self._of_copies
        for options in [one for index, one in enumerate(copies) if one not in copies[:index]]:
            limited = options.model_copy(update={"connect_timeout": timeout})
            async with aclosing(examine_source(limited, pipeline, plan)) as findings:
                async for finding in findings:
                    yield finding

    def succeed(self, former: Self) -> None:
        """Takes over what the copies of *former* have learned."""
        self._learned = former._learned
