"""Limits how many messages of one producer are in the pipeline."""

from __future__ import annotations

from broadway_py._core.ledger import Ledger
from broadway_py.stage import Wake

__all__ = ["InFlightCap"]


class InFlightCap:
    """The most messages of one producer that may be without an outcome.

    Partitions share the processors. A processor waits while a stage after it has no room. So a partition that cannot
    store anything would stop the others, if more of its messages came in than its own aggregators take.

    Args:
        ledger: the counts of the producer.
        most: how many messages.
        wake: set when there is room again.
    """

    def __init__(self, ledger: Ledger, most: int, wake: Wake) -> None:
        self._ledger = ledger
        self._most = most
        self._wake = wake
        self._was_full = False

    @property
    def room(self) -> int:
        """Returns how many more messages may come in; 0 or less: none."""
        # The sum of the entries is the same number, but there may be thousands of them.
        left = self._most - self._ledger.received + sum(self._ledger.outcomes.values())
        self._was_full = left <= 0
        return left

    def look(self) -> None:
        """Wake the producer if it waits for room, and there is room now. Called after messages were settled."""
        if self._was_full and self.room > 0:
            self._wake.set()
