"""One opened copy: its receives, the messages that nobody has taken yet, and its end."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from broadway_py import telemetry
from broadway_py.clock import Clock
from broadway_py.errors import ProducerError
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producer import SourceMessages
from broadway_py.producers.sqs.deliveries.message import SQSReceipt, is_intact, to_message
from broadway_py.producers.sqs.deliveries.poll_plan import PollPlan
from broadway_py.producers.sqs.deliveries.receive_attempts import Attempt, Attempts
from broadway_py.producers.sqs.requests.client import Client, QueueInfo
from broadway_py.producers.sqs.requests.errors import Trouble
from broadway_py.producers.sqs.requests.message_counts import MessageCounts
from broadway_py.producers.sqs.settings.options import SQSOptions
from broadway_py.producers.sqs.settlements.acknowledger import SQSAcknowledger, SQSAcknowledgerWithDeadLetters
from broadway_py.request_counts import RequestCounts
from broadway_py.stage.wake import Wake

__all__ = ["LAST_POLLS_S", "Session"]

log = logger("broadway_py.producers.sqs")

#: If the pipeline can hold fewer messages than this, a receive asks for no more than the demand.
_SPARE_FROM: Final = 20
#: Seconds that closing waits for receives after a loss, and for the last settlements in any case.
LAST_POLLS_S: Final = 3.0
_LAST_SETTLEMENTS_S: Final = 1.5

RECEIVE: Final = "broadway.sqs.receive_messages"


class Session:
    """Covers one copy from its opening to its end.

    Args:
        options: the producer's settings.
        clock: tells the time.
        pipeline: name of the pipeline.
        producer: name of the producer.
        capacity: how many messages the pipeline can hold.
        attempts: names the receives of FIFO queues.
        requests: counts the requests.
        trace_fields: the message attributes that tell a trace.
        lost: called once, when the source is not available any more.
    """

    def __init__(
        self,
        options: SQSOptions,
        clock: Clock,
        *,
        pipeline: str,
        producer: str,
        capacity: int,
        attempts: Attempts,
        requests: RequestCounts,
        trace_fields: Collection[str],
        lost: Callable[[ProducerError], None],
    ) -> None:
        self._options = options
        self._clock = clock
        self._about = {"pipeline": pipeline, "producer": producer}
        self._attempts = attempts
        self._lost = lost
        self._client = Client(options, requests, clock)
        self._trace_fields = trace_fields
        self._plan = PollPlan(
            batch=options.max_number_of_messages,
            most=options.max_polls,
            interval_s=options.receive_interval,
            may_spare=capacity >= _SPARE_FROM,
        )
        self._acknowledger: SQSAcknowledger | None = None
        self._queue_info: QueueInfo | None = None
        self._counts: MessageCounts | None = None
        # Receives that run, each with the time at which it is answered if no message comes.
        self._polls: dict[asyncio.Task[None], float] = {}
        self._ready: deque[Message[bytes]] = deque()
        self._wanted = 0
        self._wake = Wake()
        self._is_paused = False
        self._is_stopping = False
        #: Why no more messages come; None: they come.
        self.trouble: ProducerError | None = None

    async def open(self) -> None:
        """Connects and reads the settings of the queue. Raises ProducerError."""
        try:
            self._queue_info = await self._client.open(self._trace_fields)
        except Trouble as trouble:
            raise trouble.as_loss() from None
        self._counts = MessageCounts(self._client, self._queue_info)
        has_no_place = self._queue_info.has_redrive is False and self._queue_info.dead_letter_url is None
        if has_no_place and self._options.on_failure.action != "ack":
            log.info(
                "the queue has no redrive policy and dead_letter_queue is not set: "
                "a failed message comes again until its retention period ends",
                queue=self._options.queue_name,
            )
        made = SQSAcknowledger if self._queue_info.dead_letter_url is None else SQSAcknowledgerWithDeadLetters
        self._acknowledger = made(
            self._client,
            self._queue_info,
            self._options,
            self._clock,
            self._about["pipeline"],
            freed=self._freed,
            refused=self._refused,
        )

    @property
    def acknowledger(self) -> SQSAcknowledger:
        """Returns the acknowledger, which exists after the session is open."""
        if self._acknowledger is None:
            raise ProducerError(f"SQS queue {self._options.queue_name!r}: it is closed; call open() first")
        return self._acknowledger

    async def source_messages(self) -> SourceMessages:
        """Returns how many messages the queue and its dead letter queue hold. Raises ProducerError."""
        if self._counts is None:
            raise ProducerError(f"SQS queue {self._options.queue_name!r}: it is closed; call open() first")
        return await self._counts.take()

    # --- handing over ---------------------------------------------------------------------------------------------

    async def take(self, demand: int) -> list[Message[bytes]]:
        """Returns at most *demand* messages; ``[]`` if the session stops. Polls and waits for the first one.

        Raises:
            ProducerError: the source is not available.
        """
        acknowledger = self.acknowledger
        try:
            while True:
                if self.trouble is not None:
                    raise self.trouble
                if self._is_stopping:
                    return []
                if self._ready and not self._is_paused:
                    taken = [self._ready.popleft() for _ in range(min(demand, len(self._ready)))]
                    acknowledger.handed_over(len(taken))
                    # The rest of the demand is polled for at the next call, which comes at once.
                    return taken
                self._wanted = demand
                self._poll()
                await self._wake.wait_until(self._plan.waits_until(self._clock.monotonic()), self._clock)
        finally:
            self._wanted = 0

    def _poll(self) -> None:
        """Starts as many receives as the demand needs."""
        if self._is_paused or self._is_stopping or self.trouble is not None:
            return
        now = self._clock.monotonic()
        most_parked = self._options.max_number_of_messages * self._options.max_polls
        while self.acknowledger.groups.parked + self._plan.asked < most_parked:
            asked = self._plan.ask(self._wanted - len(self._ready), now)
            if asked == 0:
                return
            attempt = self._attempts.begin(asked, now, self.visibility_s)
            self._plan.started(attempt.asked)
            task = asyncio.get_running_loop().create_task(self._receive(attempt), name="sqs-receive")
            self._polls[task] = now + self._options.wait_time_seconds
            task.add_done_callback(self._polls.pop)

    @property
    def visibility_s(self) -> float:
        """Returns the visibility timeout of the queue in seconds; 0 before it is known."""
        return 0.0 if self._queue_info is None else self._queue_info.visibility_s

    async def _receive(self, attempt: Attempt) -> None:
        asked = attempt.asked
        started_at = self._clock.monotonic()
        listening = telemetry.active()
        if listening:
            self._tell("start", {"system_time": self._clock.wall(), "monotonic_time": started_at}, demand=asked)
        try:
            raws = await self._client.receive(asked, attempt.id)
        except Trouble as trouble:
            if listening:
                self._tell_end("exception", started_at, demand=asked, exception=trouble)
            if trouble.kind == "away":
                self._attempts.lost(attempt)
            self._failed(trouble, asked, started_at)
        except BaseException:
            self._plan.abandoned(asked)
            raise
        else:
            self._plan.found(asked, len(raws), started_at, self._clock.monotonic())
            messages = self._take_in(raws, attempt.began_at)
            if listening:
                self._tell_end("stop", started_at, demand=asked, messages=messages)
        finally:
            self._wake.set()

    def _take_in(self, raws: Sequence[dict[str, Any]], hidden_at: float) -> list[Message[bytes]]:
        acknowledger, options = self.acknowledger, self._options
        now = self._clock.monotonic()
        receipts = [SQSReceipt(raw, options, hidden_at, self.visibility_s, now) for raw in raws]
        acknowledger.hold(receipts)
        if self._is_stopping or self._is_paused or self.trouble is not None:
            acknowledger.give_back(receipts)
            return []
        messages: list[Message[bytes]] = []
        broken: set[str | None] = set()
        for raw, receipt in zip(raws, receipts, strict=True):
            if (receipt.group is not None and receipt.group in broken) or not is_intact(raw):
                broken.add(receipt.group)
                self._leave_broken(receipt)
                continue
            message = to_message(raw, receipt, acknowledger, options)
            messages.append(message)
            if receipt.group is None or acknowledger.groups.arrived(receipt.group, message):
                self._ready.append(message)
        return messages

    def _leave_broken(self, receipt: SQSReceipt) -> None:
        # Not given back at once: what damages bodies on the network may damage this one again and again, at full speed.
        self.acknowledger.leave([receipt])
        log.error(
            "the body of a message, or of an earlier one of its group, does not match its MD5; "
            "the message comes again when its visibility ends",
            queue=self._options.queue_name,
            message_id=receipt.message_id,
        )

    def _freed(self, messages: list[Message[bytes]]) -> None:
        if self._is_stopping or self._is_paused or self.trouble is not None:
            self._give_back(messages)
        else:
            # In front of later messages, because the group has waited already.
            self._ready.extendleft(reversed(messages))
            self._wake.set()

    # --- trouble --------------------------------------------------------------------------------------------------

    def _failed(self, trouble: Trouble, asked: int, started_at: float) -> None:
        is_away = self._plan.failed(asked, started_at, self._clock.monotonic())
        if is_away or trouble.kind in ("refused", "expired", "gone", "wrong"):
            self._lose(trouble.as_loss())
        else:
            log.debug("a receive failed; trying again", reason=str(trouble), failures=self._plan.failures)

    def _refused(self, trouble: Trouble) -> None:
        log.error("AWS refuses to settle handled messages; fetching stops", reason=str(trouble))
        self._lose(trouble.as_loss())

    def _lose(self, error: ProducerError) -> None:
        if self.trouble is None and not self._is_stopping:
            self.trouble = error
            self._return_unstarted()
            self._wake.set()
            self._lost(error)

    # --- pause and end --------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Starts no receive, and gives back what nobody has taken, also messages of receives that still run."""
        self._is_paused = True
        self._return_unstarted()

    def resume(self) -> None:
        """Starts to receive again."""
        self._is_paused = False
        self._wake.set()

    def stop(self) -> None:
        """Works like :meth:`pause`, but for good. Ends a :meth:`take` that waits."""
        self._is_stopping = True
        self._return_unstarted()
        self._wake.set()

    def _return_unstarted(self) -> None:
        unstarted = list(self._ready)
        self._ready.clear()
        self._give_back(unstarted)

    def _give_back(self, messages: Sequence[Message[bytes]]) -> None:
        if self._acknowledger is None or not messages:
            return
        receipts: list[SQSReceipt] = []
        for message in messages:
            receipt: SQSReceipt = message.acknowledgement.data
            rest = self._acknowledger.groups.failed(receipt.group) if receipt.group is not None else ()
            receipts += [receipt, *(other.acknowledgement.data for other in rest)]
        self._acknowledger.give_back(receipts)

    async def until_polls_end(self) -> None:
        """Waits for receives that still run: if cut off, they could take messages that nobody would see."""
        if self._must_wait_for_polls:
            left_s = max(self._polls.values()) - self._clock.monotonic()
            log.info(
                "the stop waits for the open receive, which could still take messages",
                queue=self._options.queue_name,
                at_most_seconds=max(1, math.ceil(left_s)),
            )
        while self._must_wait_for_polls:
            await asyncio.wait(self._polls)

    @property
    def _must_wait_for_polls(self) -> bool:
        # Messages in the pipeline must not wait for receives: they could miss the deadline.
        return bool(self._polls) and not (self._acknowledger is not None and self._acknowledger.at_work)

    async def close(self, polls_s: float | None = None) -> None:
        """Gives back what is left, and closes every connection.

        *polls_s*: how long receives may still run, in seconds; None: until they end, or the caller gives up.
        """
        self.stop()
        try:
            if self._polls and polls_s is not None:
                await asyncio.wait(self._polls, timeout=polls_s)
            elif self._polls and self.trouble is not None:
                await asyncio.wait(self._polls, timeout=LAST_POLLS_S)
            else:
                await self.until_polls_end()
        finally:
            # Each step runs even if the one before was cancelled.
            async with AsyncExitStack() as ends:
                ends.push_async_callback(self._client.close)
                if self._acknowledger is not None:
                    ends.push_async_callback(self._acknowledger.close, _LAST_SETTLEMENTS_S)
                await self._end_polls()

    async def _end_polls(self) -> None:
        cut = len(self._polls)
        for task in self._polls:
            task.cancel()
        if self._polls:
            await asyncio.wait(self._polls)
            log.warning(
                "receives were cancelled at the end of the stop; messages that they take come again when their "
                "visibility ends",
                queue=self._options.queue_name,
                receives=cut,
            )

    async def retire(self) -> None:
        """Ends the copy after its source was lost: settles what was handed over, for as long as it takes."""
        try:
            if self._polls:
                await asyncio.wait(self._polls)
            if self._acknowledger is not None:
                await self._acknowledger.until_idle()
        finally:
            await self.close(0.0)

    # --- telemetry ------------------------------------------------------------------------------------------------

    def _tell_end(self, what: str, started_at: float, **metadata: Any) -> None:
        now = self._clock.monotonic()
        self._tell(what, {"duration": now - started_at, "monotonic_time": now}, **metadata)

    def _tell(self, what: str, measurements: dict[str, float], **metadata: Any) -> None:
        telemetry.execute(f"{RECEIVE}.{what}", measurements, {**self._about, **metadata})
