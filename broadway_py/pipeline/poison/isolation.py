"""Isolation: what was at work when a worker died is handled alone, and what has killed two is handled no more.

Only in a daemon's workers: their supervisor outlives them, reads the journal and says who is suspected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from broadway_py._core.turns import ExclusiveTurn
from broadway_py.errors import MalformedMessage
from broadway_py.message import Message
from broadway_py.pipeline.poison.journal import CONVICTED, REPEATED, SUSPECTED, Entry, Journal
from broadway_py.pipeline.settlement.spawned import ParentAcknowledger
from broadway_py.stage import Wake

__all__ = ["PATIENCE_S", "Isolation", "root_of"]

#: Seconds that a suspect waits for others to finish, and that others wait for it, before they go on together.
PATIENCE_S: Final = 60.0

Messages = Sequence[Message[Any]]


class Isolation:
    """Of one worker process, over all of its pipelines.

    Args:
        journal: shared with the supervisor and the other workers.
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

    def end(self) -> None:
        """The process leaves in order, unless a stage has crashed for good: that is put down to what it had in hand."""
        if not self.region.is_blamed:
            self.region.end()

    def entry(self, identity: bytes | None) -> Entry | None:
        """What is known of a message."""
        self._refresh()
        entry = None if identity is None else self._entries.get(identity)
        # Another worker may have cleared it.
        return entry if entry is None else entry._replace(state=self.journal.state(entry.slot))

    def _refresh(self) -> None:
        changes = self.journal.changes
        if self._changes != changes:
            self._changes = changes
            self._entries = self.journal.entries()

    def may_run_together(self, messages: Messages) -> bool:
        """True when none of *messages* needs a closer look, which is so almost always."""
        self._refresh()
        return not self._entries and not any(map(_comes_again, messages))

    def must_be_alone(self, identity: bytes, message: Message[Any]) -> bool:
        """True for a suspect, and for what a worker was at when it died although the supervisor has not looked yet."""
        # In this order: the supervisor writes the table before it empties the region of the dead.
        if _comes_again(message) and self.journal.is_at_work_elsewhere(identity, self._index):
            return True
        entry = self.entry(identity)
        return entry is not None and entry.state in (SUSPECTED, CONVICTED, REPEATED)

    def wake_waiting(self) -> None:
        """Somebody has left: let all look again."""
        for wake in self.waiting:
            wake.set()


def _comes_again(message: Message[Any]) -> bool:
    message = root_of(message)
    # A handler may have deleted what it does not need.
    attempt: int | None = getattr(message, "attempt", None)
    if attempt is not None and attempt > 1:
        return True
    try:
        metadata: object = getattr(message, "metadata", None)
    except MalformedMessage:
        # It may: nobody has counted.
        return attempt is None
    # A handler may have put anything there.
    return isinstance(metadata, dict) and bool(metadata.get("redelivered"))


def root_of(message: Message[Any]) -> Message[Any]:
    """The message that the source has delivered: spawned ones come again by it alone."""
    while isinstance(family := message._acknowledgement[0], ParentAcknowledger):
        message = family.parent
    return message
