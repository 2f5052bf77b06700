"""Moves failed messages to a queue where they wait for their next attempt, or to the dead letters."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
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
from broadway_py.producers.rabbitmq.deliveries.message import RabbitMQReceipt, was_retried
from broadway_py.producers.rabbitmq.deliveries.returned import BY_DEFAULT
from broadway_py.producers.rabbitmq.retries.letters import FailurePlace, Letter, dead_letter, moved, retry
from broadway_py.producers.rabbitmq.retries.publisher import Away, NoQueue, Publisher
from broadway_py.producers.rabbitmq.settings.options import BY_THE_BROKER, RabbitMQOptions
from broadway_py.producers.rabbitmq.topology.delay_queues import DelayQueue, delay_queue, rungs_within, way_back
from broadway_py.producers.rabbitmq.topology.message_counts import DelaysInUse

__all__ = ["Forwarder", "Troubled", "dead_letters_of"]

log = logger("broadway_py.producers.rabbitmq")

Declare = Callable[[str, Mapping[str, Any]], Awaitable[object]]


def dead_letters_of(queue: str, pipeline: str) -> str:
    """Returns the dead-letter queue for *queue* of *pipeline*, if the policy names none."""
    # The broker invents another name at each connect, and reserves names that begin with "amq.".
    return f"{pipeline if not queue or queue.startswith('amq.') else queue}.dead"


@dataclass
class Troubled:
    """Queues of ours that the broker refused. They are checked at the next connect, before anything is consumed."""

    queues: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    #: Queues to which retries return by the default exchange, because we may not have an exchange of our own.
    by_default: set[str] = field(default_factory=set)


class _Put(NamedTuple):
    letter: Letter
    #: The arguments to declare the queue with. None: we do not declare it.
    arguments: Mapping[str, Any] | None
    #: For how many seconds after its declaration the queue certainly exists. None: until somebody deletes it.
    safe_s: float | None = None


class Forwarder:
    """Moves the failed messages of one connection of a producer.

    Args:
        options: the producer's settings.
        plan: what the pipeline does with failed messages of a source with these settings.
        publisher: publishes them.
        pipeline: the pipeline's name.
        clock: for the times in headers, and for how long a queue certainly exists.
        troubled: shared by all connections of the producer.
        delays: gets the names of the delay queues that are used; shared as *troubled*.
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
        delays: DelaysInUse | None = None,
    ) -> None:
        self._options = options
        self._plan = plan
        self._publisher = publisher
        self._failed_in = FailurePlace(pipeline, f"{socket.gethostname()}:{os.getpid()}")
        self._clock = clock
        self._troubled = troubled
        #: The delay queues that are known to exist.
        self.delays = DelaysInUse() if delays is None else delays
        self._make_way: Callable[[str, str], Awaitable[bool]] | None = None

    @property
    def clock(self) -> Clock:
        """Returns the clock that measures the waits."""
        return self._clock

    def waits(self) -> Backoff:
        """Returns new waits between two tries to move the same messages."""
        return self._options.backoff_that_goes_on()

    @property
    def leaves_dead_letters_to_the_broker(self) -> bool:
        """Returns whether failed messages are rejected, so that the queue's own dead-letter exchange gets them."""
        return self._plan is not None and self._plan.dead_letter == BY_THE_BROKER

    @property
    def keeps_dead_letters(self) -> bool:
        """Returns whether failed messages may be moved to the queue of :meth:`dead_letters_of`."""
        plan = self._plan
        if plan is None or "dead_letter" not in plan.actions or self.leaves_dead_letters_to_the_broker:
            return False
        if self._options.consume_options.no_ack:
            return False  # messages are settled before they fail
        return plan.authority.policy_decides

    def dead_letters_of(self, queue: str) -> str:
        """Returns the queue for dead letters of *queue*."""
        if self._plan is not None and self._plan.dead_letter is not None:
            return self._plan.dead_letter
        return dead_letters_of(self._options.named_after(queue), self._failed_in.pipeline)

    def places_of_dead_letters(self, queues: Sequence[str]) -> list[str] | None:
        """Returns the queues for dead letters of *queues*; None: there are none, or only the broker knows them."""
        return list(dict.fromkeys(map(self.dead_letters_of, queues))) if self.keeps_dead_letters else None

    def former_delays(self, queues: Sequence[str], newly_retried: Collection[str]) -> Iterator[str]:
        """Yields the delay queues of *queues* that earlier runs may have left. They are yielded once for each queue.

        Those of queues that nobody has retried from before, *newly_retried*, are left out.
        """
        delays = None if self._plan is None else self._plan.delays
        for queue in queues:
            if queue not in self.delays.looked and queue not in newly_retried and delays is not None:
                for wait_ms in rungs_within(*delays):
                    yield self._delay_queue_of(queue, wait_ms / 1000.0).name
            self.delays.looked.add(queue)

    async def prepare(self, queues: Sequence[str], declare: Declare, look: Callable[[str], Awaitable[object]]) -> None:
        """Checks or declares the queues for failed messages, before anything is consumed from *queues*.

        Raises:
            ProducerError: what *declare* and *look* raise.
        """
        if self.keeps_dead_letters:
            for queue in dict.fromkeys(map(self.dead_letters_of, queues)):
                if self._options.dead_letter_declare == "passive":
                    await look(queue)
                else:
                    await declare(queue, self._options.dead_letter_arguments)
        for queue, arguments in list(self._troubled.queues.items()):
            await declare(queue, arguments)
            # Another copy may have removed it meanwhile.
            self._troubled.queues.pop(queue, None)

    async def make_ways_back(
        self, queues: Sequence[str], make: Callable[[str, str], Awaitable[bool]], *, for_retries: bool = True
    ) -> dict[str, bool]:
        """Makes the exchanges by which only our retries return, before anything is consumed from *queues*.

        It does nothing if there will be no retries. With *for_retries* False it makes them anyway, for what
        :meth:`keep` puts back.

        *make* makes the exchange for a queue, and returns True if it is new. This returns the same for each queue that
        has one.

        Raises:
            AMQPError: the broker or a queue is not available.
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
                        "retries return by the default exchange, where publishers can forge a retry, because the "
                        "broker refuses the exchange for retries: give the user the permissions to configure, write "
                        "and read it, and to write to the queue",
                        exchange=exchange,
                        queue=queue,
                        reason=_said(refused),
                    )
                self._troubled.by_default.add(queue)
            else:
                self._troubled.by_default.discard(queue)
        return made

    def way_back(self, queue: str) -> str:
        """Returns the exchange by which retries return to *queue*; see ``returned.came_back``."""
        return BY_DEFAULT if queue in self._troubled.by_default else way_back(queue)

    def _delay_queue(self, queue: str, delay_s: float) -> DelayQueue:
        made = self._delay_queue_of(queue, delay_s)
        self.delays.names.add(made.name)
        return made

    def _delay_queue_of(self, queue: str, delay_s: float) -> DelayQueue:
        return delay_queue(
            queue,
            delay_s,
            self._options.retry_arguments,
            back=self.way_back(queue),
            is_passing=self._options.is_passing(queue),
        )

    async def retry(self, failed: Sequence[tuple[Message[Any], float]]) -> list[ProducerError | None]:
        """Delivers each message again to its queue after so many seconds.

        Returns for each the reason why this is not sure, or None.
        """
        puts: list[_Put] = []
        now_s = self._clock.wall()
        for message, delay_s in failed:
            receipt: RabbitMQReceipt = message.acknowledgement.data
            delivery, attempt = delivery_of(receipt), (1 if message.attempt is None else message.attempt) + 1
            # Retries without a delay use a delay queue, too: a message that comes another way counts as a publisher's.
            waiting = self._delay_queue(receipt.queue, delay_s)
            letter = retry(delivery, waiting.name, attempt, now_s, retried=_was_retried(delivery, receipt))
            puts.append(_Put(letter, waiting.arguments, waiting.safe_s))
        return await self._put(puts)

    async def go_on_waiting(
        self, queue: str, waiting: Sequence[tuple[DeliveredMessage, float]]
    ) -> list[ProducerError | None]:
        """Makes retries of *queue* that waited elsewhere wait so many seconds more. Returns what :meth:`retry` does."""
        puts: list[_Put] = []
        for delivery, delay_s in waiting:
            place = self._delay_queue(queue, delay_s)
            puts.append(_Put(moved(delivery, place.name), place.arguments, place.safe_s))
        return await self._put(puts)

    async def keep(self, messages: Sequence[Message[Any]], *, renews: bool) -> list[ProducerError | None]:
        """Works like :meth:`dead_letter`, for messages that the broker would soon drop.

        With *renews*, a message that the dead letters refuse is copied to its own queue.
        """
        reasons = await self.dead_letter(messages, cause="delivery_limit")
        if not renews:
            return reasons
        # An unconfirmed message may have arrived.
        refused = [index for index, reason in enumerate(reasons) if not isinstance(reason, Away | None)]
        if refused and self._make_way is not None:
            # Not earlier: messages that the broker may drop at the next loss must be moved first.
            queues = {messages[index].acknowledgement.data.queue for index in refused}
            try:
                await self.make_ways_back(sorted(queues), self._make_way, for_retries=False)
            except Exception as error:
                if not is_of_library(error):
                    raise
                return reasons
        puts: list[_Put] = []
        for message in [messages[index] for index in refused]:
            receipt: RabbitMQReceipt = message.acknowledgement.data
            delivery, attempt = delivery_of(receipt), 1 if message.attempt is None else message.attempt
            # This is the way of a retry without a delay. A message that comes another way counts as a publisher's, and
            # its attempt header is ignored.
            place = self._delay_queue(receipt.queue, 0.0)
            retried = _was_retried(delivery, receipt)
            letter = retry(delivery, place.name, attempt, self._clock.wall(), retried=retried)
            puts.append(_Put(letter, place.arguments, place.safe_s))
        for index, reason in zip(refused, await self._put(puts) if puts else (), strict=True):
            # The error of the dead letters is the one that somebody has to fix.
            reasons[index] = reason and reasons[index]
        return reasons

    async def dead_letter(
        self, failed: Sequence[Message[Any]], *, cause: str | None = None
    ) -> list[ProducerError | None]:
        """Moves each message to the dead letters. Returns for each the reason why this is not sure, or None.

        Args:
            failed: the messages.
            cause: the cause of death, if their status does not tell it.
        """
        now_s = self._clock.wall()
        puts: list[_Put] = []
        for message in failed:
            receipt: RabbitMQReceipt = message.acknowledgement.data
            delivery = delivery_of(receipt)
            letter = dead_letter(
                delivery,
                self.dead_letters_of(receipt.queue),
                queue=receipt.queue,
                retried=_was_retried(delivery, receipt),
                attempts=message.attempt,
                status=message.status,
                failed_in=self._failed_in,
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
            # The queue was deleted meanwhile. It is declared again, once.
            again = [puts[index] for index in missing]
            second: Sequence[ProducerError | None]
            try:
                declared = {**declared, **await self._declare(again, anew=True)}
                second = await self._publisher.publish([put.letter for put in again])
            except ProducerError as refused:
                # The other messages are confirmed. A second publish would duplicate them.
                second = [refused] * len(again)
            for index, reason in zip(missing, second, strict=True):
                reasons[index] = reason
        return [reason or self._too_late(put, declared) for put, reason in zip(puts, reasons, strict=True)]

    async def _declare(self, puts: Sequence[_Put], *, anew: bool = False) -> dict[str, float]:
        """Declares the queues, and returns the time of declaration for those that the broker may delete by itself."""
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
        """Returns an error if the broker may have deleted the queue, with its messages, before our message was due."""
        if put.safe_s is None or self._clock.monotonic() - declared[put.letter.queue] <= put.safe_s:
            return None
        return ProducerError(
            f"putting a message into queue {put.letter.queue!r} took so long that the message may be lost"
        )


def _was_retried(delivery: DeliveredMessage, receipt: RabbitMQReceipt) -> bool:
    deliver = cast("Basic.Deliver", delivery.delivery)
    return was_retried(deliver, delivery.header.properties, receipt.queue, receipt.back)


def _said(refused: ChannelClosed) -> str:
    return next((part for part in reversed(refused.args) if isinstance(part, str)), "no reason given")
