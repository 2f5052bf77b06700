"""Isolation: a message that was being handled when a worker died is handled alone from then on.

A message that has killed two workers is not handled again. Isolation exists only in a daemon's workers: their
supervisor outlives them, reads the journal and decides which messages are suspected.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from broadway_py._core.turns import ExclusiveTurn
from broadway_py.errors import MalformedMessage
from broadway_py.message import Message
from broadway_py.pipeline.poison.journal import CONVICTED, REPEATED, SUSPECTED, Entry, Journal
from broadway_py.pipeline.settlement.spawned import ParentAcknowledger
from broadway_py.stage import Wake

__all__ = ["PATIENCE_S", "Isolation", "root_of"]

#: Seconds that a suspect waits for others to finish, and others wait for a suspect, before they run together.
PATIENCE_S: Final = 60.0

Messages = Sequence[Message[Any]]


class Isolation:
    """The isolation in one worker process, for all of its pipelines.

    Args:
        journal: the journal, shared with the supervisor and the other workers.
        index: the worker's number.
    """

    def __init__(self, journal: Journal, index: int) -> None:
        self.journal = journal
        self.region = journal.region(index)
        self.region.begin()
        self.turns = ExclusiveTurn(PATIENCE_S)
        #: The stages that wait for a turn.
        self.waiting: set[Wake] = set()
        self._index = index
        self._changes = -1
        self._entries: dict[bytes, Entry] = {}

    def see(self, workers: int) -> None:
        """Look at the regions of all *workers*, if there are more than before. The journal has been made larger."""
        if workers > self.journal.workers:
            # The region of this worker stays where it is mapped.
            self.journal = Journal(os.dup(self.journal.descriptor), workers)

    def end(self) -> None:
        """Note that the process ends in order.

        Does nothing if a stage has crashed for good: then the messages of that stage are blamed for the end.
        """
        if not self.region.is_blamed:
            self.region.end()

    def entry(self, identity: bytes | None) -> Entry | None:
        """Returns what the journal's table says about a message, or None."""
        self._refresh()
        entry = None if identity is None else self._entries.get(identity)
        # Another worker may have cleared it, so the state is read again.
        return entry if entry is None else entry._replace(state=self.journal.state(entry.slot))

    def _refresh(self) -> None:
        changes = self.journal.changes
        if self._changes != changes:
            self._changes = changes
            self._entries = self.journal.entries()

    def may_run_together(self, messages: Messages) -> bool:
        """Returns True if none of *messages* needs a closer check. That is almost always so."""
        self._refresh()
        return not self._entries and not any(map(_comes_again, messages))

    def must_be_alone(self, identity: bytes, message: Message[Any]) -> bool:
        """Returns True if the message is in the table as suspected or convicted.

        Also returns True for a message that a dead worker was handling, if the supervisor has not noted that yet.
        """
        # The order matters: the supervisor writes the table before it empties the region of the dead worker.
        if _comes_again(message) and self.journal.is_at_work_elsewhere(identity, self._index):
            return True
        entry = self.entry(identity)
        return entry is not None and entry.state in (SUSPECTED, CONVICTED, REPEATED)

    def wake_waiting(self) -> None:
        """Wake all stages that wait for a turn. Called after a stage has left its turn."""
        for wake in self.waiting:
            wake.set()


def _comes_again(message: Message[Any]) -> bool:
    message = root_of(message)
    # A handler may have deleted the attribute.
    attempt: int | None = getattr(message, "attempt", None)
    if attempt is not None and attempt > 1:
        return True
    try:
        metadata: object = getattr(message, "metadata", None)
    except MalformedMessage:
        # The source has not counted attempts, so the message may come again.
        return attempt is None
    # A handler may have replaced the metadata by any object.
    return isinstance(metadata, dict) and bool(metadata.get("redelivered"))


def root_of(message: Message[Any]) -> Message[Any]:
    """Returns the message that the source delivered. Spawned messages come again only through it."""
    while isinstance(family := message._acknowledgement[0], ParentAcknowledger):
        message = family.parent
    return message
