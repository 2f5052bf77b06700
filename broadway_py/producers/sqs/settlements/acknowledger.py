"""The acknowledger of one copy: it knows which messages are held, and settles them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal

from broadway_py.acknowledger import Acknowledger
from broadway_py.clock import Clock
from broadway_py.errors import SettleError
from broadway_py.message import Message, Outcome
from broadway_py.producers.sqs.dead_letters.dead_letter_sender import DeadLetterSender
from broadway_py.producers.sqs.deliveries.fifo_groups import Groups
from broadway_py.producers.sqs.deliveries.message import SQSReceipt, configured
from broadway_py.producers.sqs.requests.client import Client, QueueInfo
from broadway_py.producers.sqs.requests.errors import Trouble, refused_entries
from broadway_py.producers.sqs.settings.options import MOST_VISIBILITY, Disposition, SQSOptions
from broadway_py.producers.sqs.settlements.batch_sender import BatchSender
from broadway_py.producers.sqs.settlements.pending_settlement import BatchEntry, Fate, PendingSettlement
from broadway_py.producers.sqs.visibility.guardian import Guardian

__all__ = ["SQSAcknowledger", "SQSAcknowledgerWithDeadLetters"]

#: Called with the next messages of FIFO groups, which may start now.
Freed = Callable[[list[Message[Any]]], object]


class SQSAcknowledger(Acknowledger):
    """The acknowledger of all messages that one copy receives, from its opening until no message is held.

    A receipt outlives a connection: after the copy has lost its source, this still settles what was handed over.

    Args:
        client: makes the requests.
        queue_info: knows the queue.
        options: the producer's settings.
        clock: tells the time.
        pipeline: the pipeline's name, for dead letters.
        freed: called with messages of FIFO groups that may start now; with an empty list if waiting ones were given
            back.
        refused: called once, when AWS refuses a settlement.
    """

    def __init__(
        self,
        client: Client,
        queue_info: QueueInfo,
        options: SQSOptions,
        clock: Clock,
        pipeline: str,
        *,
        freed: Freed,
        refused: Callable[[Trouble], object],
    ) -> None:
        self.on_failure_is_given = options.on_failure_is_given
        self._queue_info = queue_info
        self._options = options
        self._clock = clock
        self._freed = freed
        self._refused: Callable[[Trouble], object] | None = refused
        self._guardian = Guardian(
            client,
            queue_info,
            clock,
            is_held=lambda receipt: receipt in self._held,
            refused=self._report_refusal,
        )
        self._sender = BatchSender(
            client,
            queue_info,
            clock,
            self._guardian,
            due=self._send_when_due,
            deleted=self._when_deleted,
            ended=self._look_whether_idle,
            refused=self._report_refusal,
        )
        self._dead_letter_sender = DeadLetterSender(
            client, queue_info, clock, pipeline=pipeline, begin=self._sender.begin
        )
        #: Messages of FIFO groups that wait for an earlier message of their group.
        self.groups: Groups[Message[Any]] = Groups()
        # Received messages for which no settlement was requested yet, in order.
        self._held: dict[SQSReceipt, None] = {}
        # How many messages are handed over with no settlement requested yet.
        self._at_work = 0
        # How many calls wait for a settlement. And whether, at the last wait of a single call for others, no other
        # came.
        self._callers = 0
        self._is_alone = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of queue {self._queue_info.name!r}, {len(self._held)} held>"

    # --- what comes in --------------------------------------------------------------------------------------------

    @property
    def at_work(self) -> bool:
        """Returns whether the pipeline has messages for which no settlement was requested yet."""
        return self._at_work > 0

    def hold(self, receipts: list[SQSReceipt]) -> None:
        """Keeps *receipts*, from one receive, hidden from other readers until they are settled."""
        self._held.update(dict.fromkeys(receipts))
        self._guardian.hold(receipts)
        self._idle.clear()
        self._sender.arm()

    def handed_over(self, count: int) -> None:
        """Counts more messages in the pipeline. A batch that is not full may wait for them."""
        self._at_work += count

    def leave(self, receipts: Iterable[SQSReceipt]) -> None:
        """Stops handling *receipts*: they are delivered again after their visibility timeout."""
        for receipt in receipts:
            receipt.guarded = False
            self._held.pop(receipt, None)
        self._look_whether_idle()

    def give_back(self, receipts: Sequence[SQSReceipt]) -> None:
        """Makes *receipts* visible to other readers at once, because no work on them has begun. Does not wait."""
        self._change_together(receipts, 0, None)

    # --- the acknowledger -----------------------------------------------------------------------------------------

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Deletes messages, makes them visible, or leaves them, as ``on_success`` and ``on_failure`` say.

        Returns after SQS has confirmed it.

        Raises:
            SettleError: for messages that SQS did not settle, with the reasons.
        """
        said = [(message, message.acknowledgement.data.on_success) for message in successful]
        said += [(message, message.acknowledgement.data.on_failure) for message in failed]
        await self._settle(said)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Makes *messages* visible to others at once. SQS still counts the receive. Raises as :meth:`ack` does."""
        at_once = Disposition("nack", 0)
        await self._settle([(message, at_once) for message in messages])

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Makes each message visible to others after its delay, in whole seconds. Raises as :meth:`ack` does."""
        await self._settle([(message, Disposition("nack", math.ceil(delay))) for message, delay in messages_and_delays])

    def configure(self, ref: Hashable, data: Any, options: Mapping[str, Any]) -> SQSReceipt:
        """Applies ``configure_ack(on_success=…, on_failure=…)``."""
        return configured(data, options, has_dead_letters=self._queue_info.dead_letter_url is not None)

    def on_failure_is_configured(self, data: Any) -> bool:
        """Returns whether ``configure_ack(on_failure=…)`` was called for the message."""
        receipt: SQSReceipt = data
        return receipt.is_configured

    def outcome_of_failed(self, data: Any) -> Outcome:
        """Returns the outcome that ``on_failure`` leads to. What is not deleted is retried."""
        outcomes: dict[str, Outcome] = {"ack": "dropped", "dead_letter": "dead_lettered"}
        return outcomes.get(data.on_failure.action, "retried")

    async def _settle(self, said: Sequence[tuple[Message[Any], Disposition]]) -> None:
        self._callers += 1
        if self._callers > 1:
            self._is_alone = False
        try:
            await self._settle_now(said)
        finally:
            self._callers -= 1

    async def _settle_now(self, said: Sequence[tuple[Message[Any], Disposition]]) -> None:
        pending = PendingSettlement()
        letters: list[Message[Any]] = []
        for message, disposition in said:
            receipt: SQSReceipt = message.acknowledgement.data
            pending.enter()
            if self._sender.is_closed:
                pending.leave(receipt, "closed")
                continue
            self._at_work -= 1
            if disposition.action == "dead_letter":
                # No longer held: closing must not give back a message that is being sent and will be deleted.
                self._held.pop(receipt, None)
                letters.append(message)
            else:
                self._say(receipt, disposition, pending)
        self._tick()
        if letters:
            await self._send_dead_letters(letters, pending)
        await pending.wait()
        if pending.lost:
            unsettled = [message for message, _ in said if message.acknowledgement.data in pending.lost]
            raise SettleError(pending.sentence(self._queue_info.name, len(said)), unsettled=unsettled)

    def _say(self, receipt: SQSReceipt, disposition: Disposition, pending: PendingSettlement) -> None:
        if disposition.action == "ack":
            self._held.pop(receipt, None)
            now = self._clock.monotonic()
            self._sender.deletes.add(BatchEntry(receipt, None, pending, now), now)
        elif disposition.action == "noop":
            self._fall_back(receipt)
            pending.leave(receipt)
        else:
            self._change_together([receipt, *self._rest_of(receipt)], disposition.delay, pending)

    # --- groups ---------------------------------------------------------------------------------------------------

    def _rest_of(self, receipt: SQSReceipt) -> list[SQSReceipt]:
        """Returns the receipts that waited for *receipt*. They are settled in the same way."""
        if receipt.group is None:
            return []
        rest = [message.acknowledgement.data for message in self.groups.failed(receipt.group)]
        if rest:
            self._freed([])  # there is room for other groups
        return rest

    def _fall_back(self, receipt: SQSReceipt) -> None:
        """Leaves *receipt* until its visibility timeout ends. The rest of its group must not come back earlier."""
        rest = self._rest_of(receipt)
        self.leave([receipt])
        if rest and not self._sender.is_closed:  # closing has given back everything that was held
            left_s = max(0.0, receipt.hidden_until - self._clock.monotonic())
            self._change_together(rest, math.ceil(left_s), None)

    def _when_deleted(self, receipt: SQSReceipt, why: Fate | None) -> None:
        if why is not None:
            self._fall_back(receipt)
        elif receipt.group is not None and (following := self.groups.done(receipt.group)) is not None:
            self._freed([following])

    def _change_together(self, receipts: Sequence[SQSReceipt], timeout: int, pending: PendingSettlement | None) -> None:
        """Changes the visibility of *receipts*. *pending* waits for the first one. A group goes out in one batch."""
        now = self._clock.monotonic()
        entries = []
        for position, receipt in enumerate(receipts):
            receipt.guarded = False
            self._held.pop(receipt, None)
            most = math.floor(receipt.received_at + MOST_VISIBILITY - now)
            asks = pending if position == 0 else None
            entries.append(BatchEntry(receipt, max(0, min(timeout, most)), asks, now))
        if len(entries) == 1:
            self._sender.changes.add(entries[0], now)
        else:
            self._sender.send_together(entries)
        self._sender.arm()

    # --- dead letters ---------------------------------------------------------------------------------------------

    async def _send_dead_letters(self, messages: Sequence[Message[Any]], pending: PendingSettlement) -> None:
        """Sends *messages* to the dead letter queue, then deletes those that it has accepted."""

        def sent(stored: Sequence[Message[Any]]) -> None:
            for message in stored:
                self._say(message.acknowledgement.data, Disposition("ack"), pending)
            self._tick()

        def left(not_stored: Sequence[Message[Any]], why: Literal["unsent", "unfit"]) -> None:
            for message in not_stored:
                self._fall_back(message.acknowledgement.data)
                pending.leave(message.acknowledgement.data, why)

        await self._dead_letter_sender.send(messages, sent=sent, left=left)

    # --- when -----------------------------------------------------------------------------------------------------

    def _send_when_due(self) -> None:
        due = self._sender.deletes.next_due()
        if due is not None and due <= self._clock.monotonic():
            # A single processor cannot bring more before it gets its answer, so the next time its batch does not wait.
            self._is_alone = self._callers == 1
        self._tick()

    def _tick(self) -> None:
        # If no other message is in the pipeline, nobody can come to fill the batch.
        flush = self._at_work <= 0 or self._is_alone or self._sender.is_closed
        self._sender.send_due(self._clock.monotonic(), flush=flush)

    def _report_refusal(self, trouble: Trouble | None) -> None:
        if self._refused is None:
            return
        refused, self._refused = self._refused, None
        refused(trouble or refused_entries(self._options))

    # --- the end --------------------------------------------------------------------------------------------------

    def _look_whether_idle(self) -> None:
        if not self._held and self._sender.is_idle:
            self._idle.set()

    async def until_idle(self) -> None:
        """Waits until nothing is held, and every settlement has reached SQS or was given up."""
        self._look_whether_idle()
        await self._idle.wait()

    async def close(self, seconds: float) -> None:
        """Gives back what is held, and settles nothing more. Takes so many seconds at most."""
        if self._sender.is_closed:
            return
        self.give_back(list(self._held))
        await self._sender.close(seconds)


class SQSAcknowledgerWithDeadLetters(SQSAcknowledger):
    """The acknowledger if a dead letter queue is set."""

    abilities = SQSAcknowledger.abilities | {"dead_letter"}

    def dead_letters_go_to(self, data: Any) -> str | None:
        """Returns the name of the dead letter queue."""
        return (self._queue_info.dead_letter_url or "").rpartition("/")[2] or None

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Sends *messages* to the dead letter queue, then deletes them. Raises as ``ack`` does."""
        await self._settle([(message, Disposition("dead_letter")) for message in messages])
