"""The books of one producer: every delivery that came in, and the one outcome that each ended in."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args

from broadway_py._core.histogram import SECONDS_BOUNDS, Histogram
from broadway_py.message import Outcome

__all__ = ["OUTCOMES", "Ledger", "Receipt"]

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Ledger:
    """``received == sum(outcomes) + in_flight`` at every moment, because *in_flight* is what the receipts hold open."""

    def __init__(self, producer: str, settler: Any = None) -> None:
        self.producer = producer
        #: Whoever settles this producer's messages; the books only remember it.
        self.settler = settler
        self.received = 0
        self.redelivered = 0
        self.outcomes: Counter[Outcome] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.bytes_in_flight = 0
        self.latency = Histogram(SECONDS_BOUNDS)
        # In the order of arrival; a receipt leaves when its last message was settled.
        self._open: dict[Receipt, None] = {}

    @property
    def in_flight(self) -> int:
        """Deliveries without an outcome."""
        return sum(receipt.open for receipt in self._open)

    def oldest_age(self, now: float) -> float:
        """Seconds since the oldest unsettled delivery came in; 0 when there is none."""
        oldest = next(iter(self._open), None)
        return 0.0 if oldest is None else max(0.0, now - oldest.received_at)

    def receive(self, receipt: Receipt, count: int, size: int, redelivered: int = 0) -> None:
        """*count* messages of *size* bytes came in together, under *receipt*."""
        receipt.open += count
        self.received += count
        self.redelivered += redelivered
        self.bytes_in_flight += size
        if receipt.open:
            self._open[receipt] = None

    def settle(self, receipt: Receipt, outcome: Outcome, count: int, size: int, now: float) -> None:
        """*count* messages of *receipt*, of *size* bytes together, ended in *outcome*."""
        if receipt not in self._open:
            return  # closed meanwhile: see close()
        self.outcomes[outcome] += count
        self.bytes_in_flight -= size
        self.latency.observe(now - receipt.received_at, count)
        receipt.open -= count
        if receipt.open == 0:
            del self._open[receipt]

    def close(self) -> int:
        """Nobody settles any more: whatever has no outcome is ``unknown``, for good. How many those were."""
        left = self.in_flight
        self.outcomes["unknown"] += left
        self.bytes_in_flight = 0
        self._open.clear()
        return left


class Receipt:
    """Messages that came in together; each of them points here until the end of its days."""

    __slots__ = ("ledger", "open", "producer", "received_at")

    def __init__(self, ledger: Ledger, received_at: float) -> None:
        self.ledger = ledger
        self.producer = ledger.producer
        #: How many of them have no outcome.
        self.open = 0
        self.received_at = received_at
