"""What ``deduplicate_by`` is to the settlement: stores the ids of messages before their ack, and hears of outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from broadway_py._core.aggregation.reader import Reader
from broadway_py.message import Message, Outcome
from broadway_py.pipeline.deduplication.handled_ids import AtWork, HandledIds

__all__ = ["Deduplication"]


class Deduplication:
    """The ids of handled messages of one pipeline, in all partitions that it owns.

    Args:
        parts: by the partition; None: the sources have none.
        partition_of: the partition that each producer reads. Empty if the sources are not parted.
        readers: the copies of each producer, which say for how long it was read.
    """

    def __init__(
        self,
        parts: Mapping[int | None, HandledIds],
        partition_of: Mapping[str, int],
        readers: Mapping[str, Sequence[Reader]],
    ) -> None:
        self.parts = parts
        self.readers = readers
        self._partition_of = partition_of

    def ids_of(self, producer: str) -> HandledIds:
        """Returns the ids for the messages of *producer*."""
        return self.parts[self._partition_of.get(producer)]

    async def store(self, messages: Sequence[Message[Any]]) -> Sequence[Message[Any]]:
        """Store the ids of *messages*, which were handled. Returns those whose ids are not on the disk afterwards."""
        by_ids: dict[HandledIds, list[Message[Any]]] = {}
        for message in messages:
            at_work = _at_work(message)
            if at_work is not None and not at_work.is_stored:
                by_ids.setdefault(at_work.ids, []).append(message)
        if not by_ids:
            return ()
        if len(by_ids) == 1:
            ((ids, own),) = by_ids.items()
            return () if await ids.store(_identities(own)) == "stored" else own
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ids.store(_identities(own))) for ids, own in by_ids.items()]
        outcomes = [task.result() for task in tasks]
        return [
            message
            for outcome, own in zip(outcomes, by_ids.values(), strict=True)
            if outcome != "stored"
            for message in own
        ]

    def note_stored_by_aggregator(self, messages: Sequence[Message[Any]]) -> None:
        """Note that an aggregator has stored the effect and its own identities of *messages*."""
        for message in messages:
            at_work = _at_work(message)
            if at_work is not None:
                message._at_work = at_work._replace(is_stored=True)

    def ended(self, messages: Sequence[Message[Any]], outcome: Outcome) -> None:
        """Note that *messages* have an outcome."""
        for message in messages:
            at_work = _at_work(message)
            if at_work is not None:
                del message._at_work
                at_work.ids.ended(at_work.identity, is_handled=outcome == "acked")

    def give_up(self) -> None:
        """Do not try again to store ids: the time of a stop is over."""
        for part in self.parts.values():
            part.give_up()


def _identities(messages: Sequence[Message[Any]]) -> list[bytes]:
    return [message._at_work.identity for message in messages]


def _at_work(message: Message[Any]) -> AtWork | None:
    at_work: AtWork | None = getattr(message, "_at_work", None)
    return at_work
