"""Dead letters on their way: sent to their queue, and only then off the one they came from."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.producers.sqs.batches import retry_delay
from broadway_py.producers.sqs.client import Client, Facts
from broadway_py.producers.sqs.letters import death_letter, portions
from broadway_py.producers.sqs.options import SQSOptions
from broadway_py.producers.sqs.troubles import Kind, Trouble

__all__ = ["Burial"]

log = logger("broadway_py.producers.sqs")

#: How long a letter is tried, in seconds.
_PATIENCE_S: Final = 60.0

#: What is told of messages, as soon as it is known.
Told = Callable[[Sequence[Message[Any]]], object]
#: Messages with their letters.
Portion = Sequence[tuple[Message[Any], dict[str, Any]]]


class Burial:
    """Sends the dead letters of one desk.

    Args:
        client: makes the requests.
        facts: of the queue, and where its dead letters go.
        options: the producer's settings.
        clock: tells the time.
        pipeline: its name, which the letters tell.
        begin: starts a task that the desk owns.
    """

    def __init__(
        self,
        client: Client,
        facts: Facts,
        options: SQSOptions,
        clock: Clock,
        *,
        pipeline: str,
        begin: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self._client = client
        self._url = facts.dead_letter_url or ""
        self._options = options
        self._clock = clock
        self._pipeline = pipeline
        self._begin = begin

    async def bury(self, messages: Sequence[Message[Any]], *, sent: Told, left: Told) -> None:
        """Send *messages*; *sent* hears of those that SQS has confirmed, *left* of those that it never will."""
        died_at = self._clock.wall()
        written = [
            death_letter(
                message,
                queue=self._options.queue_name,
                pipeline=self._pipeline,
                died_at=died_at,
                is_fifo=self._url.endswith(".fifo"),
            )
            for message in messages
        ]
        sending = {
            self._begin(self._bury_portion([(messages[at], written[at]) for at in positions], sent, left), "sqs-bury")
            for positions in portions(written)
        }
        # They go on when the caller is cancelled: what is sent must be deleted, too.
        await asyncio.wait(sending)

    async def _bury_portion(self, portion: Portion, sent: Told, left: Told) -> None:
        waiting = list(portion)
        tries = 0
        until = self._clock.monotonic() + _PATIENCE_S
        try:
            while waiting:
                tries += 1
                failed = await self._sent([letter for _, letter in waiting])
                sent([message for position, (message, _) in enumerate(waiting) if position not in failed])
                waiting = [waiting[position] for position in sorted(failed)]
                now = self._clock.monotonic()
                delays = [retry_delay(kind, tries, now, until, random.random()) for kind in failed.values()]
                if None in delays:
                    break
                if waiting:
                    await self._clock.sleep(max(delay for delay in delays if delay is not None))
        finally:
            left([message for message, _ in waiting])

    async def _sent(self, letters: Sequence[Mapping[str, Any]]) -> Mapping[int, Kind]:
        try:
            return await self._client.send(self._url, letters)
        except Trouble as trouble:
            log.warning("dead letters cannot be sent; they stay in their queue", reason=str(trouble))
            return dict.fromkeys(range(len(letters)), trouble.kind)
