"""Decides whether the sources of a pipeline may fetch: rate limit, pause, breaker, bytes in flight."""

from __future__ import annotations

from collections.abc import Sequence

from broadway_py._core.ledger import Ledger
from broadway_py._core.rate import Rate
from broadway_py.stage import Wake

__all__ = ["Gate"]


class Gate:
    """The rate limit, the pause and the breaker of one pipeline, for its sources to read."""

    def __init__(self, rate: Rate | None) -> None:
        self.rate = rate
        self.paused = False
        #: True while the breaker is not closed: only probes go through.
        self.broken = False
        #: Text that says why the breaker opened; "" while it is closed.
        self.broken_by = ""
        #: Where in the code the error that opened it was raised; "" while it is closed, or if that is not known.
        self.broken_at = ""
        self._most_bytes: int | None = None
        self._ledgers: Sequence[Ledger] = ()
        self._wakes: Sequence[Wake] = ()
        self._was_full = False
        #: Seconds that sources spent waiting for the rate limit.
        self.waited_seconds = 0.0

    def cap_bytes(self, most: int, ledgers: Sequence[Ledger], wakes: Sequence[Wake]) -> None:
        """Stop fetching while *ledgers* hold *most* bytes or more. *wakes* are set when there is room again."""
        self._most_bytes, self._ledgers, self._wakes = most, ledgers, wakes

    @property
    def full(self) -> bool:
        """Returns True while as many bytes are in flight as are allowed, or more."""
        if self._most_bytes is None:
            return False
        self._was_full = sum(ledger.bytes_in_flight for ledger in self._ledgers) >= self._most_bytes
        return self._was_full

    def look_at_bytes(self) -> None:
        """Wake the sources that wait for room, if there is room now. Called after messages were settled."""
        if self._was_full and not self.full:
            for wake in self._wakes:
                wake.set()

    @property
    def closed(self) -> bool:
        """Returns True if nothing may be fetched."""
        return self.paused or self.broken
