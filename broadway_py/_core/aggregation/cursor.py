"""How far one aggregator has come in the receipts of one producer."""

from __future__ import annotations

from collections.abc import Callable

from broadway_py._core.aggregation.receipts import Link, Receipt, Standstill

__all__ = ["Cursor"]


class Cursor:
    """Passes the receipts that have arrived, in their order, and keeps the highest event time of what it has passed.

    Args:
        hold_s: at most so many seconds one message holds it up.
        moved: called when it has passed something.
    """

    def __init__(self, hold_s: float, moved: Callable[[], None]) -> None:
        self.hold_s = hold_s
        self.moved = moved
        #: What it waits for; None: it has passed all.
        self.next: Link | None = None
        #: The number of the last place that it has passed.
        self.passed = 0
        #: The highest event time that counts, in microseconds; None: there was none.
        self.highest: int | None = None
        #: Since when it has waited for nothing, by the clock; None while it waits.
        self.free_since: float | None = None
        #: When it has last passed an event of its aggregator, by the clock; before that, when it has begun.
        self.taken_at = 0.0
        #: Since when a lost reader holds it up, by the clock, as far as it has come; None: none does.
        self.stands_since: float | None = None
        #: The highest event time of what came in after a lost reader, in microseconds. It counts when the cursor has
        #: passed the place with the number *until*.
        self.withheld: int | None = None
        self.until = 0
        #: The number of the place of this lost reader. What came in before it counts at once.
        self.withholds_from = 0

    def start(self, link: Link | None, now: float) -> None:
        """Begins at *link*; None: nothing was received."""
        self.next = link
        self.free_since = now if link is None else None
        self.taken_at = now

    def see(self, link: Link) -> None:
        """Notes that *link* is new at the end."""
        if self.next is None:
            self.next = link
            self.free_since = None

    def advance(self, active: float, now: float) -> bool:
        """Passes what lets it pass, when it is *active* in the producer's time. Returns True if it has moved."""
        link = self.next
        if link is None or not self._may_pass(link, active):
            return False
        while link is not None and self._may_pass(link, active):
            if isinstance(link, Standstill):
                # What lies before it is not withheld.
                if self.passed >= self.until:
                    self.withholds_from = link.number
                self._release()
                self.until = max(self.until, link.last or 0)
                if self.stands_since is None:
                    self.stands_since = link.began
            elif isinstance(link, Receipt):
                noted = link.noted.get(self)
                if noted is not None:
                    self._take(noted)
                    self.taken_at = now
            self.passed = link.number
            link = link.after
        self.next = link
        self._release()
        # What is withheld ends with a place that was received, so a cursor that has passed all withholds nothing.
        self.free_since = now if link is None else None
        return True

    def _may_pass(self, link: Link, active: float) -> bool:
        return (link.only_for is not None and link.only_for is not self) or link.lets_pass(active, self.hold_s)

    def note(self, receipt: Receipt, highest: int) -> bool:
        """Notes an event time of *receipt*, in microseconds. Returns True if it counts at once: the hold is over."""
        if not self.has_passed(receipt):
            receipt.noted[self] = max(highest, receipt.noted.get(self, highest))
            return False
        if receipt.number < self.withholds_from:
            self._count(highest)
        else:
            self._take(highest)
            self._release()
        return True

    def has_passed(self, receipt: Receipt) -> bool:
        """Returns True if it no longer waits for *receipt*."""
        return receipt.number <= self.passed

    def _take(self, highest: int) -> None:
        self.withheld = highest if self.withheld is None else max(self.withheld, highest)

    def _release(self) -> None:
        if self.passed < self.until:
            return
        self.stands_since = None
        if self.withheld is not None:
            self._count(self.withheld)
            self.withheld = None

    def _count(self, highest: int) -> None:
        self.highest = highest if self.highest is None else max(self.highest, highest)
