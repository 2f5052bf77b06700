"""The receipts of one producer in their order: which of them have arrived, and where its readers were lost."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Final

__all__ = ["Link", "Receipt", "Receipts", "Standstill"]


class Link:
    """One place in the order of receipts."""

    __slots__ = ("after", "before", "number", "only_for")

    def __init__(self) -> None:
        self.before: Link | None = None
        self.after: Link | None = None
        #: Counts the places, from 1.
        self.number = 0
        #: The aggregator that has to wait here; None: all of them.
        self.only_for: object = None

    def is_done(self) -> bool:
        """Returns True if nobody has to wait here."""
        raise NotImplementedError

    def lets_pass(self, active: float, hold_s: float) -> bool:
        """Returns True if the watermark may go on. It is *active* by the producer's time; a message holds *hold_s*."""
        raise NotImplementedError

    def opens_at(self, hold_s: float) -> float | None:
        """Returns when it lets pass by time alone, in the producer's time; None if time alone is not enough."""
        raise NotImplementedError


class Receipt(Link):
    """Messages that came in together.

    It is complete when each of them has arrived: an aggregator has added it, or it was sent to a batcher, or it was
    settled and does not come again.

    Args:
        source: the producer's progress.
        count: how many messages came in.
        since: when, in the producer's time.
    """

    __slots__ = ("awaited", "awaited_since", "brings", "noted", "overdue", "pending", "since", "source", "waits_for")

    def __init__(self, source: object, count: int, since: float) -> None:
        super().__init__()
        self.source: Final = source
        self.since: Final = since
        #: How many have not arrived, with those that are awaited.
        self.pending = count
        #: How many were retried or given back, and have not come in again and arrived.
        self.awaited = 0
        #: When the newest of those that are awaited came in for the first time. It does not go back when that one has
        #: arrived and others are still awaited.
        self.awaited_since = 0.0
        #: The identities of those that are awaited and have not come in again.
        self.waits_for: list[bytes] = []
        #: By identity: the receipts that wait for one of these messages, and when they came in for the first time.
        self.brings: dict[bytes, list[tuple[Receipt, float]]] = {}
        #: The identities of those that every aggregator has awaited for too long before they came in.
        self.overdue: set[bytes] = set()
        #: For each aggregator, the highest event time in microseconds of what it has added.
        self.noted: dict[Hashable, int] = {}

    def is_done(self) -> bool:
        """Returns True if all have arrived."""
        return not self.pending

    def lets_pass(self, active: float, hold_s: float) -> bool:
        """Returns True if all have arrived, or were held for too long."""
        return not self.pending or active >= self._held_since() + hold_s

    def opens_at(self, hold_s: float) -> float:
        """Returns when the hold runs out."""
        return self._held_since() + hold_s

    def _held_since(self) -> float:
        return self.since if self.pending > self.awaited else self.awaited_since


class Standstill(Link):
    """A lost reader: what it held can come back, and lies before what other readers have received meanwhile.

    Args:
        began: when the reader was lost, by the clock.
        ends_at: when all of it is back, in the producer's time.
    """

    __slots__ = ("began", "ends_at", "last")

    def __init__(self, began: float, ends_at: float) -> None:
        super().__init__()
        self.began: Final = began
        self.ends_at = ends_at
        #: The last place that was taken in that time; None while it lasts.
        self.last: int | None = None

    def is_done(self) -> bool:
        """Returns True if the time is over."""
        return self.last is not None

    def lets_pass(self, active: float, hold_s: float) -> bool:
        """Returns True if the time is over. What came in until then has to arrive all the same."""
        return self.last is not None

    def opens_at(self, hold_s: float) -> float | None:
        """Returns when the time is over."""
        return self.ends_at


class Receipts:
    """All places that somebody may still wait for, in order.

    Neighbours that have arrived become one. So there are at most two for each that has not.
    """

    def __init__(self) -> None:
        self.first: Link | None = None
        self.last: Link | None = None
        #: The number of the last place that was taken.
        self.count = 0

    def __iter__(self) -> Iterator[Link]:
        link = self.first
        while link is not None:
            # Read now, because the caller may take the link out.
            after = link.after
            yield link
            link = after

    def append(self, link: Link) -> None:
        """Puts *link* at the end."""
        self.count += 1
        link.number = self.count
        link.before = self.last
        if self.last is None:
            self.first = link
        else:
            self.last.after = link
        self.last = link

    def close(self, receipt: Receipt) -> None:
        """Joins *receipt*, which is complete and was passed by those that waited for it, with its neighbours."""
        before, after = receipt.before, receipt.after
        if isinstance(before, Receipt) and not before.pending:
            self._absorb(before, receipt)
            receipt = before
        if isinstance(after, Receipt) and not after.pending:
            self._absorb(receipt, after)

    def drop(self, waited_for: Iterable[Link | None]) -> None:
        """Removes what is done from the front, up to the first link of *waited_for*."""
        waiting = set(map(id, waited_for))
        while self.first is not None and self.first.is_done() and id(self.first) not in waiting:
            self._remove(self.first)

    def _absorb(self, one: Receipt, next_one: Receipt) -> None:
        one.number = next_one.number
        for cursor, highest in next_one.noted.items():
            one.noted[cursor] = max(highest, one.noted.get(cursor, highest))
        self._remove(next_one)

    def _remove(self, link: Link) -> None:
        before, after = link.before, link.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        # Messages keep their receipt for ever, and must not keep the others with it.
        link.before = link.after = None
