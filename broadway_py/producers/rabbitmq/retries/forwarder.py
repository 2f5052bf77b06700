"""Puts failed messages where they wait for their next attempt, or where they are kept for good."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelClosed, ChannelPreconditionFailed
from pamqp.commands import Basic

from broadway_py._core.backoff import Backoff
from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producer import FailurePlan
from broadway_py.producers.rabbitmq.connection.errors import is_of_library
from broadway_py.producers.rabbitmq.deliveries.lazy_message import delivery_of
from broadway_py.producers.rabbitmq.deliveries.message import Receipt, was_retried
from broadway_py.producers.rabbitmq.deliveries.returned import BY_DEFAULT
from broadway_py.producers.rabbitmq.retries.letters import Letter, Origin, bury, moved, retry
from broadway_py.producers.rabbitmq.retries.publisher import Away, NoQueue, Publisher
from broadway_py.producers.rabbitmq.settings.options import BY_THE_BROKER, RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.delay_queues import DelayQueue, delay_queue, way_back

__all__ = ["Forwarder", "Troubled", "dead_letters_of"]

log = logger("broadway_py.producers.rabbitmq")

Declare = Callable[[str, Mapping[str, Any]], Awaitable[object]]


def dead_letters_of(queue: str, pipeline: str) -> str:
    """The queue that keeps what failed for good in *queue* of *pipeline*, where the policy names none."""
    # The broker makes up another name at each connect, and keeps those that begin with "amq." for itself.
    return f"{pipeline if not queue or queue.startswith('amq.') else queue}.dead"


@dataclass
class Troubled:
    """Queues of ours that the broker refused: looked at again at the next connect, before anything is consumed."""

    queues: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Queues to which retries return by the default exchange, as we may not have one of our own.
    by_default: set[str] = field(default_factory=set)


class _Put(NamedTuple):
    letter: Letter
    #: How its queue is declared. None: it is not ours to declare.
    arguments: Mapping[str, Any] | None
    #: For how many seconds after its declaration the queue is sure to be there. None: until somebody deletes it.
    safe_s: float | None = None


class Forwarder:
    """For one connection of a producer.

    Args:
        options: of the producer.
        plan: what the pipeline does with failed messages.
        publisher: what carries them.
        pipeline: its name.
        clock: for the times in headers, and for how long a queue may be relied on.
        troubled: shared by all connections of the producer.
    """

    def __init__(
        self,
        options: RabbitMQOptions,
        plan: FailurePlan | None,
        publisher: Publisher,
        *,
        pipeline: str,
        clock: Clock,
        troubled: Troubled,
    ) -> None:
        self._options = options
        self._plan = plan
        self._publisher = publisher
        self._origin = Origin(pipeline, f"{socket.gethostname()}:{os.getpid()}")
        self._clock = clock
        self._troubled = troubled
        self._make_way: Callable[[str, str], Awaitable[bool]] | None = None

    @property
    def clock(self) -> Clock:
        """What tells for how long to wait."""
        return self._clock

    def waits(self) -> Backoff:
        """Fresh waits between two tries to put the same messages away."""
        return self._options.backoff_that_goes_on()

    @property
    def leaves_burying_to_the_broker(self) -> bool:
        """A rejected message goes where the queue's own dead-letter exchange leads."""
        return self._plan is not None and self._plan.dead_letter == BY_THE_BROKER

    @property
    def _keeps_dead_letters(self) -> bool:
        plan = self._plan
        if plan is None or "dead_letter" not in plan.actions or self.leaves_burying_to_the_broker:
            return False
        if self._options.consume_options.no_ack:
            return False  # settled before they fail
        # The default policy gives way to on_failure.
        return plan.is_given or "on_failure" not in self._options.model_fields_set

    def dead_letters_of(self, queue: str) -> str:
        """The queue that keeps what failed for good in *queue*."""
        if self._plan is not None and self._plan.dead_letter is not None:
            return self._plan.dead_letter
        return dead_letters_of(queue, self._origin.pipeline)

    async def prepare(self, queues: Sequence[str], declare: Declare, look: Callable[[str], Awaitable[object]]) -> None:
        """See, before anything is consumed from *queues*, that what failed can be put away.

        Raises:
            ProducerError: of *declare* and *look*.
        """
        if self._keeps_dead_letters:
            for queue in dict.fromkeys(map(self.dead_letters_of, queues)):
                if self._options.dead_letter_declare == "passive":
                    await look(queue)
                else:
                    await declare(queue, self._options.dead_letter_arguments)
        for queue, arguments in list(self._troubled.queues.items()):
            await declare(queue, arguments)
            # Another copy may have looked at it meanwhile.
            self._troubled.queues.pop(queue, None)

    async def make_ways_back(
        self, queues: Sequence[str], make: Callable[[str, str], Awaitable[bool]], *, for_retries: bool = True
    ) -> dict[str, bool]:
        """See, before anything is consumed from *queues*, that retries can return there by a way that is ours alone.

        Not *for_retries*: for what :meth:`keep` puts back, whether or not there will be retries.

        *make* makes the way to a queue by an exchange, and says whether it was not there before; so does this, for each
        queue that has one.

        Raises:
            AMQPError: the broker is away, or a queue is.
        """
        made: dict[str, bool] = {}
        self._make_way = make
        plan = self._plan
        if for_retries and (plan is None or "retry" not in plan.actions or self._options.consume_options.no_ack):
            return made
        for queue in queues:
            exchange = way_back(queue)
            try:
                made[queue] = await make(queue, exchange)
            except (ChannelAccessRefused, ChannelPreconditionFailed) as refused:
                if queue not in self._troubled.by_default:
                    log.warning(
                        "retries return by the default exchange, where publishers can pretend to be one, for the "
                        "exchange of our own is refused: give the user the permissions to configure, write and read "
                        "it, and to write to the queue",
                        exchange=exchange,
                        queue=queue,
                        reason=_said(refused),
                    )
                self._troubled.by_default.add(queue)
            else:
                self._troubled.by_default.discard(queue)
        return made

    def way_back(self, queue: str) -> str:
        """The exchange by which retries return to *queue*; see ``returned.came_back``."""
        return BY_DEFAULT if queue in self._troubled.by_default else way_back(queue)

    def _delay_queue(self, queue: str, delay_s: float) -> DelayQueue:
        return delay_queue(
            queue,
            delay_s,
            self._options.retry_arguments,
            back=self.way_back(queue),
            is_passing=self._options.is_passing(queue),
        )

    async def retry(self, failed: Sequence[tuple[Message[Any], float]]) -> list[ProducerError | None]:
        """Have each delivered again to its queue after so many seconds; for each, why that is not sure, or None."""
        puts: list[_Put] = []
        now_s = self._clock.wall()
        for message, delay_s in failed:
            receipt: Receipt = message.acknowledgement.data
            delivery, attempt = delivery_of(receipt), (1 if message.attempt is None else message.attempt) + 1
            # Also without a delay: what comes another way is a publisher's.
            waiting = self._delay_queue(receipt.queue, delay_s)
            letter = retry(delivery, waiting.name, attempt, now_s, retried=_was_retried(delivery, receipt))
            puts.append(_Put(letter, waiting.arguments, waiting.safe_s))
        return await self._put(puts)

    async def go_on_waiting(
        self, queue: str, waiting: Sequence[tuple[DeliveredMessage, float]]
    ) -> list[ProducerError | None]:
        """Have each, a retry of *queue* that waited elsewhere, wait so many seconds more; for each as :meth:`retry`."""
        puts: list[_Put] = []
        for delivery, delay_s in waiting:
            place = self._delay_queue(queue, delay_s)
            puts.append(_Put(moved(delivery, place.name), place.arguments, place.safe_s))
        return await self._put(puts)

    async def keep(self, messages: Sequence[Message[Any]], *, renews: bool) -> list[ProducerError | None]:
        """As :meth:`bury`, of what the broker would soon drop; if it *renews*, else put a copy into its own queue."""
        reasons = await self.bury(messages, cause="delivery_limit")
        if not renews:
            return reasons
        # What is only not confirmed may have arrived.
        refused = [index for index, reason in enumerate(reasons) if not isinstance(reason, Away | None)]
        if refused and self._make_way is not None:
            # Not before: what the broker may drop at the next loss must be away first.
            queues = {messages[index].acknowledgement.data.queue for index in refused}
            try:
                await self.make_ways_back(sorted(queues), self._make_way, for_retries=False)
            except Exception as error:
                if not is_of_library(error):
                    raise
                return reasons
        puts: list[_Put] = []
        for message in [messages[index] for index in refused]:
            receipt: Receipt = message.acknowledgement.data
            delivery, attempt = delivery_of(receipt), 1 if message.attempt is None else message.attempt
            # The way of a retry without a delay: what comes another way is a publisher's, and its attempt is not ours.
            place = self._delay_queue(receipt.queue, 0.0)
            retried = _was_retried(delivery, receipt)
            letter = retry(delivery, place.name, attempt, self._clock.wall(), retried=retried)
            puts.append(_Put(letter, place.arguments, place.safe_s))
        for index, reason in zip(refused, await self._put(puts) if puts else (), strict=True):
            # That of the dead letters is what somebody has to mend.
            reasons[index] = reason and reasons[index]
        return reasons

    async def bury(self, failed: Sequence[Message[Any]], *, cause: str | None = None) -> list[ProducerError | None]:
        """Keep each among the dead letters; for each, why that is not sure, or None.

        Args:
            failed: the messages.
            cause: why they are there, where their status does not say it.
        """
        now_s = self._clock.wall()
        puts: list[_Put] = []
        for message in failed:
            receipt: Receipt = message.acknowledgement.data
            delivery = delivery_of(receipt)
            letter = bury(
                delivery,
                self.dead_letters_of(receipt.queue),
                queue=receipt.queue,
                retried=_was_retried(delivery, receipt),
                attempts=message.attempt,
                status=message.status,
                origin=self._origin,
                now_s=now_s,
                cause=cause,
            )
            is_ours = self._options.dead_letter_declare == "active"
            puts.append(_Put(letter, self._options.dead_letter_arguments if is_ours else None))
        return await self._put(puts)

    async def _put(self, puts: Sequence[_Put]) -> list[ProducerError | None]:
        try:
            declared = await self._declare(puts)
        except ProducerError as refused:
            return [refused] * len(puts)
        reasons = await self._publisher.publish([put.letter for put in puts])
        missing = [index for index, reason in enumerate(reasons) if isinstance(reason, NoQueue)]
        if missing:
            # Deleted meanwhile: made again, once.
            again = [puts[index] for index in missing]
            second: Sequence[ProducerError | None]
            try:
                declared = {**declared, **await self._declare(again, anew=True)}
                second = await self._publisher.publish([put.letter for put in again])
            except ProducerError as refused:
                # The others are confirmed: put away a second time, they would be there twice.
                second = [refused] * len(again)
            for index, reason in zip(missing, second, strict=True):
                reasons[index] = reason
        return [reason or self._too_late(put, declared) for put, reason in zip(puts, reasons, strict=True)]

    async def _declare(self, puts: Sequence[_Put], *, anew: bool = False) -> dict[str, float]:
        """See that the queues are there, and when that was seen of those that go away by themselves."""
        declared: dict[str, float] = {}
        for put in puts:
            queue, arguments = put.letter.queue, put.arguments
            if arguments is None or queue in declared or (put.safe_s is None and not anew):
                continue
            if anew:
                self._publisher.forget(queue)
            try:
                declared[queue] = await self._publisher.declare(queue, arguments)
            except Away:
                raise
            except ProducerError:
                self._troubled.queues[queue] = arguments
                raise
        return declared

    def _too_late(self, put: _Put, declared: Mapping[str, float]) -> ProducerError | None:
        """A queue that the broker may have deleted, with what was in it, before our message was due."""
        if put.safe_s is None or self._clock.monotonic() - declared[put.letter.queue] <= put.safe_s:
            return None
        return ProducerError(f"putting a message into queue {put.letter.queue!r} took so long that it may be gone")


def _was_retried(delivery: DeliveredMessage, receipt: Receipt) -> bool:
    deliver = cast("Basic.Deliver", delivery.delivery)
    return was_retried(deliver, delivery.header.properties, receipt.queue, receipt.back)


def _said(refused: ChannelClosed) -> str:
    return next((part for part in reversed(refused.args) if isinstance(part, str)), "no reason given")
