"""Counts the deliveries of one producer: those that came in, and the one outcome of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress, count, islice, pairwise
from operator import attrgetter, is_not
from typing import Any, Final, NamedTuple, get_args

from broadway_py._core.aggregation.reader import Reader
from broadway_py._core.histogram import SECONDS_BOUNDS, Histogram
from broadway_py.message import Message, Outcome
from broadway_py.request_counts import RequestCounts

__all__ = ["OUTCOMES", "Ledger", "LedgerEntry", "Run", "runs_of"]

_entry_of: Final = attrgetter("_ledger_entry")

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Ledger:
    """The counts of one producer.

    ``received == sum(outcomes) + in_flight`` is true at every moment, because *in_flight* is the sum of what its
    entries hold open.
    """

    #: The copies of the producer, for those that ask whether they read. Empty: nobody does.
    readers: Sequence[Reader] = ()

    def __init__(self, producer: str, settler: Any = None) -> None:
        self.producer = producer
        #: The object that settles this producer's messages. The ledger only keeps it.
        self.settler = settler
        self.received = 0
        self.redelivered = 0
        self.outcomes: Counter[Outcome] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.bytes_in_flight = 0
        self.latency = Histogram(SECONDS_BOUNDS)
        #: The requests that the producer's copies make, if they count them.
        self.requests = RequestCounts()
        # In the order of arrival. An entry is removed when its last message is settled.
        self._open: dict[LedgerEntry, None] = {}

    @property
    def in_flight(self) -> int:
        """The number of deliveries without an outcome."""
        return sum(entry.open for entry in self._open)

    def oldest_age(self, now: float) -> float:
        """Returns the seconds since the oldest unsettled delivery came in; 0 if there is none."""
        oldest = next(iter(self._open), None)
        return 0.0 if oldest is None else max(0.0, now - oldest.received_at)

    def begin(self, now: float, parent: Message[Any] | None = None) -> LedgerEntry:
        """Returns a new entry for what comes in *now*; *parent* is the message that it was spawned from, if any."""
        return LedgerEntry(self, now)

    def receive(self, entry: LedgerEntry, messages: Sequence[Message[Any]], size: int, redelivered: int = 0) -> None:
        """Notes that *messages*, of *size* bytes in total, came in together under *entry*."""
        count = len(messages)
        entry.open += count
        self.received += count
        self.redelivered += redelivered
        self.bytes_in_flight += size
        if entry.open:
            self._open[entry] = None

    def settle(self, entry: LedgerEntry, outcome: Outcome, count: int, size: int, now: float) -> None:
        """Notes that *count* messages of *entry*, of *size* bytes in total, ended in *outcome*."""
        if entry not in self._open:
            return  # closed in the meantime, see close()
        self.outcomes[outcome] += count
        self.bytes_in_flight -= size
        self.latency.observe(now - entry.received_at, count)
        entry.open -= count
        if entry.open == 0:
            del self._open[entry]

    def expect(self, entry: LedgerEntry, messages: Sequence[Message[Any]]) -> None:
        """Notes that the source may deliver *messages* of *entry* again. It is called before they are settled."""

    def arrive(self, entry: LedgerEntry, count: int, now: float) -> None:
        """Notes that *count* messages of *entry* have arrived where the watermark waits for them no longer."""

    def close(self) -> int:
        """Gives every delivery without an outcome the final outcome ``unknown``. Returns how many there were.

        It is called when nothing settles messages any more.
        """
        left = self.in_flight
        self.outcomes["unknown"] += left
        self.bytes_in_flight = 0
        self._open.clear()
        return left


class LedgerEntry:
    """Messages that came in together, as one entry of a ledger. Each of them keeps a reference to it for ever."""

    __slots__ = ("ledger", "open", "producer", "received_at")

    #: Where the messages stand among what their producer has received; None if nobody asks for it.
    receipt: Any = None

    def __init__(self, ledger: Ledger, received_at: float) -> None:
        self.ledger = ledger
        self.producer = ledger.producer
        #: How many of the messages have no outcome.
        self.open = 0
        self.received_at = received_at

    @property
    def of_arrived(self) -> LedgerEntry:
        """The entry that its messages have once they have arrived."""
        return self


class Run(NamedTuple):
    """Neighbours in a list that have one entry, as messages that came in together have."""

    entry: Any
    #: The places of the first one, and of the one after the last.
    first: int
    until: int


def runs_of(messages: Sequence[Message[Any]]) -> list[Run]:
    """Returns the runs of *messages*, in their order."""
    if not messages:
        return []
    entries = list(map(_entry_of, messages))
    if entries.count(entries[0]) == len(entries):
        return [Run(entries[0], 0, len(entries))]
    changes = compress(count(1), map(is_not, entries, islice(entries, 1, None)))
    places = (0, *changes, len(entries))
    return [Run(entries[first], first, until) for first, until in pairwise(places)]
