"""The producer that takes the place of a real one: it reads the broker in memory through the same ports."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import ProducerError, SettleError
from broadway_py.foreign import shown
from broadway_py.message import Acknowledgement, Message, Outcome
from broadway_py.producer import FailurePlan, Producer
from broadway_py.producer_description import ProducerDescription
from broadway_py.stage import Wake
from broadway_py.testing.broker import Broker, Delivery

__all__ = ["BrokerProducer"]

#: A source that hands a failed message out again at once would do so for ever while the test's clock stands still.
_REQUEUE_S = 1.0


class BrokerProducer(ProducerDescription):
    """Reads a queue of the broker under the name of another producer, with what that one promises and refuses.

    Args:
        broker: the broker.
        original: the producer that the pipeline has in production; None: it has none yet.
    """

    redelivers = True
    marks_repeats = True

    def __init__(self, broker: Broker, original: ProducerDescription | None) -> None:
        self._broker = broker
        self._original = original
        self._partition: int | None = None
        self.queue = "broker"
        self._on_failure: str | None = None
        if original is not None:
            self.queue = original.called
            self.concurrency = original.concurrency
            self.keeps_keys_apart = original.keeps_keys_apart
            self.outlives_process = original.outlives_process
            self.on_failure_is_given = original.on_failure_is_given
            self.partitions = original.partitions
            self._on_failure = _text_of(getattr(getattr(original, "options", None), "on_failure", None))
        self.name = self.queue
        broker.declare(self.queue, self.partitions)

    def create(self) -> Producer:
        """Returns a reader of the queue, or of the partition."""
        return _Reader(self)

    def describe_partition(self, index: int) -> ProducerDescription:
        """Returns a description that reads the partition alone."""
        made = copy.copy(self)
        made._partition = index
        return made

    def check_failure(self, plan: FailurePlan | None) -> None:
        """Refuses what the original refuses."""
        if self._original is not None:
            self._original.check_failure(plan)

    def check_windows(self) -> None:
        """Refuses what the original refuses."""
        if self._original is not None:
            self._original.check_windows()

    def most_in_flight(self, capacity: int) -> int | None:
        """Returns the prefetch of the original."""
        return None if self._original is None else self._original.most_in_flight(capacity)

    def succeed(self, former: Self) -> None:
        """Does nothing: the broker has all that is shared."""


class _Receipt(NamedTuple):
    """What is needed to settle one message."""

    delivery: Delivery
    on_failure: str | None
    is_configured: bool = False


class _Acknowledger(Acknowledger):
    """Settles the messages of one reader."""

    abilities = frozenset({"configure", "release", "retry", "dead_letter"})

    def __init__(self, broker: Broker, pipeline: str, *, on_failure_is_given: bool) -> None:
        self.on_failure_is_given = on_failure_is_given
        self._broker = broker
        self._pipeline = pipeline

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Removes the successful messages. What becomes of the failed ones says ``on_failure``."""

        def succeed(message: Message[Any], delivery: Delivery) -> None:
            # A failed message among the successful ones: the policy says that it is dropped.
            self._broker.finish(delivery, "acked" if message.ok else "dropped", message.status)

        def fail(message: Message[Any], delivery: Delivery) -> None:
            outcome = self.outcome_of_failed(message.acknowledgement.data)
            if outcome == "dead_lettered":
                self._broker.bury(delivery, message.status, pipeline=self._pipeline)
            elif outcome == "retried":
                self._broker.put_off(delivery, _REQUEUE_S, delivery.attempt + 1, message.status)
            else:
                self._broker.finish(delivery, outcome, message.status)

        self._settle([(message, succeed) for message in successful] + [(message, fail) for message in failed])

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Gives the messages back to their places. The deliveries do not count as attempts."""
        self._settle([(message, lambda _, delivery: self._broker.give_back(delivery)) for message in messages])

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Delivers each message again, as the next attempt, once its delay has passed on the test's clock."""

        def put_off(delay_s: float) -> Callable[[Message[Any], Delivery], None]:
            def again(message: Message[Any], delivery: Delivery) -> None:
                # A failure that was not the message's own fault has taken its attempt back.
                next_attempt = (delivery.attempt if message.attempt is None else message.attempt) + 1
                self._broker.put_off(delivery, delay_s, next_attempt, message.status)

            return again

        self._settle([(message, put_off(delay_s)) for message, delay_s in messages_and_delays])

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Moves the messages to the dead letters."""

        def bury(message: Message[Any], delivery: Delivery) -> None:
            self._broker.bury(delivery, message.status, pipeline=self._pipeline)

        self._settle([(message, bury) for message in messages])

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> _Receipt:
        """Sets ``on_failure`` for one message. ``on_success`` is taken, and has no effect."""
        receipt: _Receipt = data
        for option, value in options.items():
            if option not in ("on_success", "on_failure"):
                raise ValueError(
                    f"configure_ack({option}=…): the broker of a test knows on_success and on_failure only"
                )
            if option == "on_failure":
                receipt = receipt._replace(on_failure=_text_of(value), is_configured=True)
                if receipt.on_failure not in _OUTCOMES:
                    raise ValueError(
                        f"configure_ack(on_failure=…): expected one of {', '.join(map(str, _OUTCOMES))}, "
                        f"got {shown(value)}"
                    )
        return receipt

    def outcome_of_failed(self, data: Any) -> Outcome:
        """Returns the outcome that ``on_failure`` leads to."""
        receipt: _Receipt = data
        if receipt.on_failure == "reject_and_requeue_once" and receipt.delivery.is_repeat:
            return "rejected"
        return _OUTCOMES.get(receipt.on_failure, "rejected")

    def on_failure_is_configured(self, data: Any) -> bool:
        """Returns whether ``configure_ack(on_failure=…)`` was called for the message."""
        receipt: _Receipt = data
        return receipt.is_configured

    def is_repeat(self, data: Any) -> bool:
        """Returns whether any reader has had the message before."""
        receipt: _Receipt = data
        return receipt.delivery.is_repeat

    def _settle(self, steps: Sequence[tuple[Message[Any], Callable[[Message[Any], Delivery], None]]]) -> None:
        gone: list[Message[Any]] = []
        for message, step in steps:
            delivery: Delivery = message.acknowledgement.data.delivery
            if delivery.is_open:
                step(message, delivery)
            elif not delivery.is_dead:
                gone.append(message)
        if gone:
            raise SettleError(
                f"{len(gone)} of {len(steps)} messages were not settled, because their reader was closed and no longer "
                "holds them",
                unsettled=gone,
            )


#: What ``on_failure`` of our producers means. None: the source has no such setting.
_OUTCOMES: Mapping[str | None, Outcome] = {
    "ack": "dropped",
    "drop": "dropped",
    "dead_letter": "dead_lettered",
    "reject": "rejected",
    "reject_and_requeue": "retried",
    "reject_and_requeue_once": "retried",
    "noop": "retried",
    "nack": "retried",
}


def _text_of(on_failure: object) -> str | None:
    """Returns a value of ``on_failure`` as a word. That of SQS may also have a number of seconds."""
    if on_failure is None:
        return None
    word = getattr(on_failure, "action", on_failure)
    return str(word[0] if isinstance(word, tuple | list) and word else word)


class _Reader(Producer):
    """One copy: it holds what it was handed out until it is settled.

    Args:
        description: what it reads.
    """

    def __init__(self, description: BrokerProducer) -> None:
        self._description = description
        self._broker = description._broker
        self._is_open = self._is_paused = False

    async def open(self) -> None:
        """Begins to listen to the queue."""
        self._wake = Wake()
        self._most = self._description.most_in_flight(self.context.capacity)
        self._acknowledger = _Acknowledger(
            self._broker, self.context.pipeline, on_failure_is_given=self._description.on_failure_is_given
        )
        self._broker.listen(self._description.queue, self._wake.set)
        self._process = self._broker.process
        self._is_open = True

    async def handle_demand(self, demand: int) -> list[Message[Any]]:
        """Returns at most *demand* messages. It waits for the first one."""
        if not self._is_open:
            raise ProducerError("it is closed; call open() before handle_demand()")
        queue, partition = self._description.queue, self._description._partition
        while not self.draining.is_set():
            if self._process is not self._broker.process:
                await self.draining.wait()
                break
            due: float | None = None
            if not self._is_paused:
                most = demand if self._most is None else min(demand, self._most - self._broker.held_by(self))
                if most > 0 and (taken := self._broker.take(queue, partition, most, self)):
                    return [self._message(delivery) for delivery in taken]
                due = self._broker.next_due(queue, partition)
            await self._wake.wait_until(due, self.context.clock)
        return []

    def _message(self, delivery: Delivery) -> Message[Any]:
        receipt = _Receipt(delivery, self._description._on_failure)
        metadata = self._broker.metadata_of(delivery)
        message = Message(delivery.stored.data, metadata, Acknowledgement(self._acknowledger, None, receipt))
        message.attempt = delivery.attempt
        return message

    def resize(self, capacity: int) -> None:
        """Takes over the prefetch for another capacity."""
        self._most = self._description.most_in_flight(capacity)

    async def pause(self) -> None:
        """Stops taking messages. Nothing is fetched in advance, so nothing is to be given back."""
        self._is_paused = True

    async def resume(self) -> None:
        """Takes messages again."""
        self._is_paused = False
        self._wake.set()

    async def prepare_for_draining(self) -> None:
        """Ends a ``handle_demand`` that waits."""
        self._wake.set()

    async def close(self) -> None:
        """Puts back what is still held."""
        if self._is_open:
            self._is_open = False
            self._wake.close()
            self._broker.unlisten(self._description.queue, self._wake.set)
            self._broker.lose(self)
