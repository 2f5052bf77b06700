"""Settles the deliveries of one channel at the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from broadway_py._core.backoff import Backoff
from broadway_py.acknowledger import Acknowledger
from broadway_py.errors import ProducerError, SettleError
from broadway_py.message import Message, Outcome
from broadway_py.producers.rabbitmq.deliveries.lazy_message import is_retry
from broadway_py.producers.rabbitmq.deliveries.message import RabbitMQReceipt, configured
from broadway_py.producers.rabbitmq.retries.forwarder import Forwarder
from broadway_py.producers.rabbitmq.settings.options import Disposition
from broadway_py.producers.rabbitmq.settlements.ack_writer import AckWriter
from broadway_py.producers.rabbitmq.settlements.ledger import TagLedger

__all__ = ["RabbitMQAcknowledger"]

T = TypeVar("T")


class RabbitMQAcknowledger(Acknowledger):
    """The acknowledger of every message that came through one channel. It settles nothing else.

    Args:
        ledger: knows which deliveries are open. The receiver of deliveries enters them.
        settlements: writes what the ledger has collected.
        forwarder: moves failed messages to a retry queue or to the dead letters.
        waiting: called with the reason when some messages could not be moved and wait for the next try, so that no new
            messages should be started; called with None when none waits any more.
        on_failure_is_given: True if the settings of the source give ``on_failure=``.
    """

    abilities = frozenset({"configure", "release", "retry", "dead_letter"})

    def __init__(
        self,
        ledger: TagLedger,
        settlements: AckWriter,
        forwarder: Forwarder,
        *,
        waiting: Callable[[ProducerError | None], None],
        on_failure_is_given: bool,
    ) -> None:
        self.on_failure_is_given = on_failure_is_given
        self._ledger = ledger
        self._settlements = settlements
        self._forwarder = forwarder
        self._waiting = waiting
        # The last error of every call that has not yet been able to move its messages.
        self._refused: dict[Backoff, ProducerError] = {}
        # Set when no call may wait for another try.
        self._no_more_tries = asyncio.Event()
        # Why nothing can be settled any more; None: it can.
        self._gone: ProducerError | None = None

    # --- for the pipeline; see Acknowledger -----------------------------------------------------------------------

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Settles at the broker as ``on_success`` and ``on_failure`` say. Returns when that is written."""
        settled = self._note_successes(_receipts(successful))
        settled += [self._note(receipt, receipt.on_failure) for receipt in _receipts(failed)]
        await self._finish([*successful, *failed], settled)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Requeues *messages* by basic.nack, which costs no attempt on recent brokers."""
        await self._finish(messages, [self._ledger.release(receipt.tag) for receipt in _receipts(messages)])

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Delivers each message again to its queue after its delay, as the next attempt.

        The message is published with confirm to a queue that holds it for the delay, and only then acked here. What the
        broker does not accept is kept and tried again with back-off, until :meth:`give_up` or :meth:`stop`.

        Raises:
            SettleError: for some of them this is not sure: the broker delivers them again.
        """
        messages = [message for message, _ in messages_and_delays]
        await self._put_away(messages, self._forwarder.retry, messages_and_delays)

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Moves each message to the dead letters: publishes with confirm, then acks. Raises as :meth:`retry` does."""
        if self._forwarder.leaves_dead_letters_to_the_broker:
            settled = [self._ledger.reject(receipt.tag, requeue=False) for receipt in _receipts(messages)]
            await self._finish(messages, settled)
        else:
            await self._put_away(messages, self._forwarder.dead_letter, messages)

    def dead_letters_go_to(self, data: Any) -> str | None:
        """Returns the dead-letter queue; None: the broker's own dead-letter exchange decides."""
        receipt: RabbitMQReceipt = data
        return (
            None
            if self._forwarder.leaves_dead_letters_to_the_broker
            else self._forwarder.dead_letters_of(receipt.queue)
        )

    async def keep(self, messages: Sequence[Message[Any]]) -> None:
        """Works like :meth:`dead_letter`, for messages that the broker would soon drop because of their delivery limit.

        If the dead-letter queue refuses a message, a new copy goes to its own queue, where counting starts again.
        """
        if self._forwarder.leaves_dead_letters_to_the_broker:
            await self.dead_letter(None, messages)
            return
        renews = False

        async def keep(left: Sequence[Message[Any]]) -> list[ProducerError | None]:
            # Not at the first try: if the connection has died, that is noticed soon, and all messages are delivered
            # again.
            nonlocal renews
            before, renews = renews, True
            return await self._forwarder.keep(left, renews=before)

        await self._put_away(messages, keep, messages)

    def is_repeat(self, data: Any) -> bool:
        """Returns whether the broker has marked the message as redelivered, or it is a retry of ours.

        RabbitMQ promises that a message without its mark was never delivered before.
        """
        receipt: RabbitMQReceipt = data
        return receipt.redelivered or is_retry(receipt)

    def on_failure_is_configured(self, data: Any) -> bool:
        """Returns whether ``configure_ack(on_failure=…)`` was called for the message."""
        receipt: RabbitMQReceipt = data
        return receipt.is_configured

    def outcome_of_failed(self, data: Any) -> Outcome:
        """Returns the outcome that ``on_failure`` leads to. A requeued message is retried, an acked one is dropped."""
        receipt: RabbitMQReceipt = data
        if receipt.on_failure == "ack":
            return "dropped"
        once_more = receipt.on_failure == "reject_and_requeue_once" and not receipt.redelivered
        return "retried" if once_more or receipt.on_failure == "reject_and_requeue" else "rejected"

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> RabbitMQReceipt:
        """Applies ``configure_ack(on_success=…, on_failure=…)``."""
        return configured(data, options)

    # --- for the session ------------------------------------------------------------------------------------------

    def ack_at_once(self, tags: Iterable[int]) -> None:
        """Acks *tags* whatever the result of their messages: at most once. Does not wait for it."""
        self._ledger.ack_all(tags)
        self._settlements.tell_soon()

    async def give_back(self, tags: Iterable[int]) -> None:
        """Requeues *tags*, which nobody has taken.

        Raises:
            ProducerError: the channel is gone, and the broker takes them back by itself.
        """
        for tag in tags:
            self._ledger.release(tag)
        await self._told()

    def give_up(self) -> None:
        """Ends the waits for another try. From now on, what cannot be moved is given back."""
        self._no_more_tries.set()

    def release_all(self, reason: ProducerError) -> None:
        """Gives back all open deliveries, without waiting. Every later settlement gets *reason*."""
        if self._gone is None:
            self._gone = reason
            self._no_more_tries.set()
            self._ledger.release_all()
            self._settlements.tell_soon()

    def stop(self, reason: ProducerError) -> None:
        """Notes that the channel is gone. Every later settlement, and every waiting one, gets *reason*."""
        if self._gone is None:
            self._gone = reason
        self._settlements.stop(reason)
        self._no_more_tries.set()

    async def finish(self, timeout: float) -> None:
        """Waits until everything settled so far is written, *timeout* seconds at most."""
        await self._settlements.finish(timeout)

    async def ended(self) -> None:
        """Waits until the tasks that :meth:`stop` cancelled have ended."""
        await self._settlements.ended()

    # --- how ------------------------------------------------------------------------------------------------------

    async def _put_away(
        self,
        messages: Sequence[Message[Any]],
        put: Callable[[Sequence[T]], Awaitable[list[ProducerError | None]]],
        what: Sequence[T],
    ) -> None:
        if self._gone is not None:
            # The broker has the messages again, so publishing them would duplicate them.
            await self._finish(messages, [])
        left, tries = list(zip(messages, what, strict=True)), self._forwarder.waits()
        unsettled: list[Message[Any]] = []
        problems: list[str] = []
        reason: ProducerError | None = None
        try:
            while left:
                reasons = await _reasons(put, [each for _, each in left])
                safe = [message for (message, _), why in zip(left, reasons, strict=True) if why is None]
                left = [one for one, why in zip(left, reasons, strict=True) if why is not None]
                reason = next((why for why in reasons if why is not None), None)
                try:
                    await self._ack(safe)
                except SettleError as lost:
                    unsettled += lost.unsettled
                    problems.append(str(lost))
                if reason is None or not await self._may_try_again(tries, reason):
                    break
        finally:
            self._waits_no_longer(tries)
        if left:
            rest = [message for message, _ in left]
            problems.append(
                f"{len(rest)} of {len(messages)} failed messages could not be stored and "
                f"{await self._give_back(rest)}: {reason}"
            )
            unsettled += rest
        if unsettled:
            raise SettleError("; ".join(problems), unsettled=unsettled) from reason

    async def _may_try_again(self, tries: Backoff, reason: ProducerError) -> bool:
        """Waits for the next of *tries*. Returns False if there is none.

        If a message were given back at once, it would be delivered and fail again at once, and a quorum queue would
        count each time.
        """
        if self._no_more_tries.is_set():
            return False
        self._refused[tries] = reason
        self._waiting(reason)
        try:
            async with self._forwarder.clock.timeout(tries.failed()):
                await self._no_more_tries.wait()
        except TimeoutError:
            return True
        return False

    def _waits_no_longer(self, tries: Backoff) -> None:
        if self._refused.pop(tries, None) is not None:
            self._waiting(next(iter(self._refused.values()), None))

    async def _ack(self, messages: Sequence[Message[Any]]) -> None:
        if messages:
            await self._finish(messages, [self._ledger.ack(receipt.tag) for receipt in _receipts(messages)])

    async def _give_back(self, messages: Sequence[Message[Any]]) -> str:
        """Makes the broker deliver *messages* again. Returns in words what happens to them."""
        if self._gone is None:
            with contextlib.suppress(SettleError):
                await self.release(None, messages)
                return "are given back"
        return "stay with the broker"

    def _note_successes(self, receipts: Sequence[RabbitMQReceipt]) -> list[bool]:
        tags = [receipt.tag for receipt in receipts if receipt.on_success == "ack"]
        if len(tags) == len(receipts):
            return self._ledger.ack_all(tags)
        return [self._note(receipt, receipt.on_success) for receipt in receipts]

    def _note(self, receipt: RabbitMQReceipt, disposition: Disposition) -> bool:
        if disposition == "ack":
            return self._ledger.ack(receipt.tag)
        once_more = disposition == "reject_and_requeue_once" and not receipt.redelivered
        return self._ledger.reject(receipt.tag, requeue=once_more or disposition == "reject_and_requeue")

    async def _finish(self, messages: Sequence[Message[Any]], settled: Sequence[bool]) -> None:
        try:
            await self._told()
        except ProducerError as loss:
            counted = "1 message" if len(messages) == 1 else f"{len(messages)} messages"
            raise SettleError(f"cannot settle {counted}: {loss}", unsettled=messages) from None
        if not all(settled):
            again = [message for message, open_until_now in zip(messages, settled, strict=True) if not open_until_now]
            raise SettleError(
                f"{len(again)} of {len(messages)} messages were settled before and are not settled again",
                unsettled=again,
            )

    async def _told(self) -> None:
        """Waits until everything noted so far is written."""
        if self._gone is not None:
            raise self._gone
        await self._settlements.told()


async def _reasons(
    put: Callable[[Sequence[T]], Awaitable[list[ProducerError | None]]], what: Sequence[T]
) -> list[ProducerError | None]:
    """Returns the reason why each of *what* may not be moved, or None. If *put* itself fails, no result is known."""
    try:
        return await put(what)
    except Exception as error:  # noqa: BLE001  # a defect, but the messages must not stay unsettled until a restart
        # The error's text may hold secrets, so it is not shown.
        defect = ProducerError(f"storing them raised {type(error).__name__}")
        defect.__cause__ = error
        return [defect] * len(what)


def _receipts(messages: Sequence[Message[Any]]) -> list[RabbitMQReceipt]:
    return [message._acknowledgement.data for message in messages]
