"""Ledgers that also follow where their messages are, for the watermarks of aggregators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.ledger import Ledger, LedgerEntry, Run, runs_of
from broadway_py.foreign import foreign_errors
from broadway_py.message import SETTLED, Message, Outcome, Spawned

__all__ = ["ChildrenLedger", "TrackedLedger", "arrive", "progress_identity"]


class _Entry(LedgerEntry):
    """The entry of messages that have not arrived."""

    __slots__ = ("_of_arrived", "has_arrived", "parent", "pending", "receipt")

    def __init__(self, ledger: Ledger, received_at: float, parent: Message[Any] | None = None) -> None:
        super().__init__(ledger, received_at)
        self._of_arrived: LedgerEntry | None = None
        #: True if all its messages arrived at the same time. Then they keep this entry.
        self.has_arrived = False
        #: The message that its messages were spawned from, while that waits for them to arrive.
        self.parent = parent
        #: How many spawned messages have not arrived; of others, how many came in.
        self.pending = 0
        self.receipt = None if parent is None else parent._ledger_entry.receipt

    @property
    def of_arrived(self) -> LedgerEntry:
        """The entry that its messages have once they have arrived."""
        if self.has_arrived:
            return self
        arrived = self._of_arrived
        if arrived is None:
            arrived = _ArrivedEntry(self)
            if self.open:
                self._of_arrived = arrived
        return arrived

    def note_settled(self) -> None:
        """Forgets the entry of those that have arrived once all messages have an outcome.

        The two refer to each other. Without this, each receipt would be left to the garbage collector.
        """
        if not self.open:
            self._of_arrived = None

    def arrive_together(self, count: int) -> bool:
        """Notes that *count* of its messages have arrived. Returns False if these are not all, or some have an outcome.

        Then nothing was noted.
        """
        if self.has_arrived or self._of_arrived is not None or not count == self.open == self.pending:
            return False
        self.has_arrived = True
        return True


class _ArrivedEntry(LedgerEntry):
    """The entry of messages that have arrived and are not settled. They are counted in *origin*."""

    __slots__ = ("origin", "receipt")

    def __init__(self, origin: _Entry) -> None:
        super().__init__(origin.ledger, origin.received_at)
        self.producer = origin.producer
        self.origin = origin
        self.receipt = origin.receipt


class TrackedLedger(Ledger):
    """The ledger of a producer whose messages may go to aggregators.

    Args:
        producer: the producer's name.
        settler: the object that settles its messages.
        progress: learns what came in, what has arrived, and what will come again.
        identity_of: returns the same bytes for each delivery of a message; None: it cannot be recognised.
    """

    def __init__(
        self,
        producer: str,
        settler: Any = None,
        *,
        progress: Progress,
        identity_of: Callable[[Message[Any]], bytes | None],
    ) -> None:
        super().__init__(producer, settler)
        self.progress = progress
        self.readers = progress.readers
        self._identity_of = identity_of

    def begin(self, now: float, parent: Message[Any] | None = None) -> LedgerEntry:
        """Returns a new entry for what comes in *now*."""
        return _Entry(self, now)

    def receive(self, entry: LedgerEntry, messages: Sequence[Message[Any]], size: int, redelivered: int = 0) -> None:
        """Notes that *messages*, of *size* bytes in total, came in together under *entry*."""
        super().receive(entry, messages, size, redelivered)
        if messages:
            if isinstance(entry, _Entry):
                entry.pending += len(messages)
            known = self._identities(messages) if self.progress.awaits else ()
            entry.receipt = self.progress.received(len(messages), entry.received_at, known)

    def expect(self, entry: LedgerEntry, messages: Sequence[Message[Any]]) -> None:
        """Notes that the source may deliver *messages* of *entry* again; those that have arrived are not awaited."""
        if not _has_arrived(entry):
            self.progress.came_back(entry.receipt, self._identities(messages))

    def arrive(self, entry: LedgerEntry, count: int, now: float) -> None:
        """Notes that *count* messages of *entry* have arrived."""
        self.progress.arrived(entry.receipt, count, now)

    def settle(self, entry: LedgerEntry, outcome: Outcome, count: int, size: int, now: float) -> None:
        """Notes that *count* messages of *entry*, of *size* bytes in total, ended in *outcome*."""
        origin = _origin_of(entry)
        super().settle(origin, outcome, count, size, now)
        if not _has_arrived(entry):
            self.progress.arrived(entry.receipt, count, now)
        if isinstance(origin, _Entry):
            origin.note_settled()

    def _identities(self, messages: Sequence[Message[Any]]) -> list[bytes | None]:
        return [self.identity(message) for message in messages]

    def identity(self, message: Message[Any]) -> bytes | None:
        """Returns what names *message* over all its deliveries; None: nothing does, or it cannot be read."""
        try:
            return self._identity_of(message)
        except foreign_errors(cancellations=True):
            return None  # its metadata cannot be read, or a handler has changed it


class ChildrenLedger(Ledger):
    """The ledger of spawned messages in a pipeline with aggregators.

    A parent has arrived when all its children have. If a child fails, the parent arrives no sooner than it is settled:
    it may be delivered again.
    """

    def begin(self, now: float, parent: Message[Any] | None = None) -> LedgerEntry:
        """Returns a new entry for the children of *parent*."""
        return _Entry(self, now, parent)

    def receive(self, entry: LedgerEntry, messages: Sequence[Message[Any]], size: int, redelivered: int = 0) -> None:
        """Notes that *messages*, of *size* bytes in total, were spawned together under *entry*."""
        super().receive(entry, messages, size, redelivered)
        if isinstance(entry, _Entry):
            entry.pending += len(messages)

    def arrive(self, entry: LedgerEntry, count: int, now: float) -> None:
        """Notes that *count* messages of *entry* have arrived."""
        if not isinstance(entry, _Entry):
            return
        entry.pending -= count
        if not entry.pending and entry.parent is not None:
            parent, entry.parent = entry.parent, None
            arrive([parent], now)

    def settle(self, entry: LedgerEntry, outcome: Outcome, count: int, size: int, now: float) -> None:
        """Notes that *count* messages of *entry*, of *size* bytes in total, ended in *outcome*."""
        origin = _origin_of(entry)
        super().settle(origin, outcome, count, size, now)
        if isinstance(origin, _Entry) and outcome != "acked":
            origin.parent = None
        if origin is entry:
            self.arrive(entry, count, now)
        if isinstance(origin, _Entry):
            origin.note_settled()


def _origin_of(entry: LedgerEntry) -> LedgerEntry:
    """Returns the entry that counts the messages of *entry*."""
    return entry.origin if isinstance(entry, _ArrivedEntry) else entry


def progress_identity(message: Message[Any]) -> bytes | None:
    """Returns what names *message* for the progress of its producer. A spawned one comes again with its parent."""
    detail = message._acknowledgement[2]
    while type(detail) is Spawned:
        message = detail.parent
        detail = message._acknowledgement[2]
    ledger = message._ledger_entry.ledger
    return ledger.identity(message) if isinstance(ledger, TrackedLedger) else None


def _has_arrived(entry: LedgerEntry) -> bool:
    """Returns True if messages with this *entry* have arrived."""
    return isinstance(entry, _ArrivedEntry) or (isinstance(entry, _Entry) and entry.has_arrived)


def arrive(messages: Sequence[Message[Any]], now: float, runs: Sequence[Run] | None = None) -> None:
    """Notes in the ledgers that *messages* have arrived: an aggregator has them, or they go to a batcher.

    It may be called more than once for a message. Event times must be noted before.

    Args:
        messages: in any order.
        now: the time.
        runs: those of *messages*; None: not known yet.
    """
    for entry, first, until in runs_of(messages) if runs is None else runs:
        count = until - first
        # Mostly all messages that came in together arrive together. Then none of them need be touched.
        if not (isinstance(entry, _Entry) and entry.parent is None and entry.arrive_together(count)):
            count = _arrive_each(messages[first:until], entry.of_arrived)
        if count:
            entry.ledger.arrive(entry, count, now)


def _arrive_each(messages: Sequence[Message[Any]], later: LedgerEntry) -> int:
    """Gives those of *messages* that have not arrived the entry *later*. Returns how many these are."""
    count = 0
    for message in messages:
        # A message that was settled on its way has arrived by that.
        if message._ledger_entry is not later and message._settlement != SETTLED:
            message._ledger_entry = later
            count += 1
    return count
