"""The messages of one source that repeat what was handled, and those that wait for one of the same id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broadway_py import telemetry
from broadway_py.message import Message
from broadway_py.pipeline.deduplication.handled_ids import HandledIds
from broadway_py.pipeline.stages.services import Services
from broadway_py.stage import Wake

__all__ = ["Repeats"]


class Repeats:
    """Sorts out what comes in by one source, in a pipeline with ``deduplicate_by``.

    Args:
        services: the services of the pipeline.
        ids: the ids of handled messages.
        producer: the producer's name.
        index: position of the source among the copies.
        send_on: called with messages that have waited and are to be handled.
        wake: wakes the source.
    """

    def __init__(
        self,
        services: Services,
        ids: HandledIds,
        producer: str,
        index: int,
        *,
        send_on: Callable[[Sequence[Message[Any]]], None],
        wake: Wake,
    ) -> None:
        #: Messages whose id is at work, by their ``id()``. They wait here until that one has an outcome.
        self.waiting: dict[int, Message[Any]] = {}
        self._services = services
        self._ids = ids
        self._producer = producer
        self._index = index
        self._send_on = send_on
        self._wake = wake

    def sort(self, fresh: Sequence[Message[Any]]) -> tuple[list[Message[Any]], list[Message[Any]]]:
        """Returns the messages to handle, and those to :meth:`ack`. The others wait here."""
        return self._ids.sort(fresh, self._producer, self)

    async def ack(self, repeats: Sequence[Message[Any]]) -> None:
        """Ack messages that repeat what was handled."""
        self._tell(repeats)
        await self._services.settler.ack_repeats(repeats)

    def release(self, repeats: Sequence[Message[Any]], new: Sequence[Message[Any]]) -> None:
        """Ack the *repeats*, which have waited here, and send the *new* ones on.

        It does not wait: it is called where another message gets its outcome, and the source may be inside of its
        producer.
        """
        if repeats:
            self._tell(repeats)
            self._services.settler.ack_repeats_soon(repeats)
        if new:
            self._send_on(new)
        self._wake.set()

    def take(self, wanted: Callable[[Message[Any]], bool]) -> list[Message[Any]]:
        """Take out and return the *wanted* ones of the messages that wait."""
        taken = [message for message in self.waiting.values() if wanted(message)]
        if taken:
            self._ids.withdraw(taken)
        return taken

    def _tell(self, repeats: Sequence[Message[Any]]) -> None:
        if telemetry.active():
            self._services.tell(
                "broadway.deduplication.repeats", producer=self._producer, index=self._index, messages=list(repeats)
            )
