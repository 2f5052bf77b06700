"""Sends dead letters to their queue. They are deleted from the original queue only after that."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Literal

from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producers.sqs.dead_letters.letters import SQSDeadLetter, portions
from broadway_py.producers.sqs.requests.batch_entries import retry_delay
from broadway_py.producers.sqs.requests.client import Client, QueueInfo
from broadway_py.producers.sqs.requests.errors import Kind, Trouble

__all__ = ["DeadLetterSender"]

log = logger("broadway_py.producers.sqs")

#: For how long a letter is tried again, in seconds.
_PATIENCE_S: Final = 60.0

#: Seconds between two log lines about letters that the queue refuses.
_QUIET_S: Final = 60.0

#: Called with messages that were sent, as soon as that is known.
Sent = Callable[[Sequence[Message[Any]]], object]
#: Called with messages that were not sent: "unsent" if SQS was not available for too long, "unfit" if it refuses them.
Left = Callable[[Sequence[Message[Any]], Literal["unsent", "unfit"]], object]


class DeadLetterSender:
    """Sends the dead letters of one acknowledger.

    Args:
        client: makes the requests.
        queue_info: knows the queue, and where its dead letters go.
        clock: tells the time.
        pipeline: the pipeline's name, for the letters.
        begin: starts a task that the acknowledger owns.
    """

    def __init__(
        self,
        client: Client,
        queue_info: QueueInfo,
        clock: Clock,
        *,
        pipeline: str,
        begin: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._client = client
        self._url = queue_info.dead_letter_url or ""
        self._queue = queue_info.name
        self._clock = clock
        self._pipeline = pipeline
        self._begin = begin
        # The letters refused since the last log line, and the time of that line.
        self._unfit = 0
        self._told_at = float("-inf")

    async def send(self, messages: Sequence[Message[Any]], *, sent: Sent, left: Left) -> None:
        """Sends *messages*. Calls *sent* with those that SQS has confirmed, and *left* with those that are given up."""
        died_at = self._clock.wall()
        letters = [
            SQSDeadLetter(
                message,
                queue=self._queue,
                pipeline=self._pipeline,
                died_at=died_at,
                is_fifo=self._url.endswith(".fifo"),
            )
            for message in messages
        ]
        sending = {
            self._begin(self._send_portion([letters[at] for at in positions], sent, left), "sqs-dead-letters")
            for positions in portions([letter.entry for letter in letters])
        }
        # The tasks go on if the caller is cancelled, because what is sent must also be deleted.
        await asyncio.wait(sending)

    async def _send_portion(self, portion: Sequence[SQSDeadLetter], sent: Sent, left: Left) -> None:
        waiting = dict.fromkeys(portion)
        is_alone = len(portion) == 1
        tries = 0
        until = self._clock.monotonic() + _PATIENCE_S
        try:
            while waiting:
                tries += 1
                failed: dict[SQSDeadLetter, Kind] = {}
                for group in [[letter] for letter in waiting] if is_alone else [list(waiting)]:
                    failed |= await self._sent(group)
                    gone = [letter for letter in group if letter not in failed]
                    for letter in gone:
                        del waiting[letter]
                    sent([letter.message for letter in gone])
                disliked = [letter for letter, kind in failed.items() if kind == "wrong"]
                if disliked and not is_alone:
                    # SQS may refuse one of them, or all together. Sent one by one, it becomes clear which.
                    is_alone = True
                    continue
                for letter in disliked:
                    del failed[letter]
                    if not letter.give_way():
                        del waiting[letter]
                        left([letter.message], "unfit")
                        self._tell_of_unfit(letter)
                now = self._clock.monotonic()
                delays = [retry_delay(kind, tries, now, until, random.random()) for kind in failed.values()]
                if None in delays:
                    break
                if delays:
                    await self._clock.sleep(max(delay for delay in delays if delay is not None))
        finally:
            left([letter.message for letter in waiting], "unsent")

    async def _sent(self, letters: Sequence[SQSDeadLetter]) -> dict[SQSDeadLetter, Kind]:
        """Sends *letters* in one request. Returns those that SQS did not accept, and why."""
        try:
            failed = await self._client.send(self._url, [letter.entry for letter in letters])
        except Trouble as trouble:
            if trouble.kind in ("wrong", "stale"):
                return dict.fromkeys(letters, "wrong")
            log.warning("dead letters cannot be sent; they stay in their queue", reason=str(trouble))
            return dict.fromkeys(letters, trouble.kind)
        return {letters[position]: kind for position, kind in failed.items()}

    def _tell_of_unfit(self, letter: SQSDeadLetter) -> None:
        self._unfit += 1
        now = self._clock.monotonic()
        if now - self._told_at < _QUIET_S:
            return
        log.warning(
            "the dead letter queue does not accept failed messages; they stay in their queue, and come again",
            queue=self._queue,
            dead_letter_queue=self._url.rpartition("/")[2],
            messages=self._unfit,
            bytes_of_one=letter.weight,
            what_to_do="raise its MaximumMessageSize to that of the queue",
        )
        self._unfit = 0
        self._told_at = now
