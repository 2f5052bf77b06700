"""Puts failed messages where they wait for their next attempt, or where they are kept for good."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from broadway_py._core.backoff import Backoff
from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.message import Message
from broadway_py.producer import FailurePlan
from broadway_py.producers.rabbitmq.delays import delay_queue
from broadway_py.producers.rabbitmq.delivery import Receipt
from broadway_py.producers.rabbitmq.lazy import delivery_of
from broadway_py.producers.rabbitmq.letters import Letter, Origin, bury, retry
from broadway_py.producers.rabbitmq.options import RabbitMQOptions
from broadway_py.producers.rabbitmq.publisher import Away, NoQueue, Publisher

__all__ = ["BY_THE_BROKER", "Forwarder", "Troubled", "dead_letters_of"]

#: The place of dead letters that stands for: the queue's own dead-letter exchange, for which the user vouches.
BY_THE_BROKER: Final = "broker"

Declare = Callable[[str, Mapping[str, Any]], Awaitable[object]]


def dead_letters_of(queue: str, pipeline: str) -> str:
    """The queue that keeps what failed for good in *queue* of *pipeline*, where the policy names none."""
    # The broker makes up another name at each connect, and keeps those that begin with "amq." for itself.
    return f"{pipeline if not queue or queue.startswith('amq.') else queue}.dead"


@dataclass
class Troubled:
    """Queues of ours that the broker refused: looked at again at the next connect, before anything is consumed."""

    queues: dict[str, Mapping[str, Any]] = field(default_factory=dict)


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

    async def retry(self, failed: Sequence[tuple[Message[Any], float]]) -> list[ProducerError | None]:
        """Have each delivered again to its queue after so many seconds; for each, why that is not sure, or None."""
        puts: list[_Put] = []
        now_s = self._clock.wall()
        for message, delay_s in failed:
            receipt: Receipt = message.acknowledgement.data
            delivery, attempt = delivery_of(receipt), (1 if message.attempt is None else message.attempt) + 1
            if delay_s <= 0.0:
                puts.append(_Put(retry(delivery, receipt.queue, attempt, now_s), None))
            else:
                waiting = delay_queue(receipt.queue, delay_s, self._options.retry_arguments)
                letter = retry(delivery, waiting.name, attempt, now_s)
                puts.append(_Put(letter, waiting.arguments, waiting.safe_s))
        return await self._put(puts)

    async def keep(self, messages: Sequence[Message[Any]]) -> list[ProducerError | None]:
        """As :meth:`bury`, of what the broker would soon drop; else put a copy of it into its own queue."""
        reasons = await self.bury(messages, cause="delivery_limit")
        refused = [index for index, reason in enumerate(reasons) if reason is not None]
        puts: list[_Put] = []
        for message in [messages[index] for index in refused]:
            receipt: Receipt = message.acknowledgement.data
            attempt = 1 if message.attempt is None else message.attempt
            puts.append(_Put(retry(delivery_of(receipt), receipt.queue, attempt, self._clock.wall()), None))
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
            letter = bury(
                delivery_of(receipt),
                self.dead_letters_of(receipt.queue),
                queue=receipt.queue,
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
