"""Remembers when checkpoints were acked, for as long as their identities are kept."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["AckTimes"]

#: Checkpoints that were acked within this share of the kept time count as acked together, at the last of their times.
_SHARE: Final = 1 / 64


class AckTimes:
    """Says which checkpoints were acked at least *keep_s* seconds ago.

    Times are seconds of :class:`ConnectedTime`. At most about 66 of them are kept, so a checkpoint may be remembered
    for a 64th of *keep_s* longer, and never shorter.

    Args:
        keep_s: how long a checkpoint is remembered after its ack, in seconds.
    """

    def __init__(self, keep_s: float) -> None:
        self.keep_s = keep_s
        #: All checkpoints before this number are forgotten.
        self.forgotten_before = 1
        # Spans of checkpoints, in order: the last number of each, and when that was acked.
        self._numbers: list[int] = []
        self._times: list[float] = []
        # When the first checkpoint of the last span was acked. None: the next one begins a new span.
        self._began: float | None = None

    def acked(self, number: int, connected_s: float) -> None:
        """Notes that everything up to checkpoint *number* was acked, at the latest at *connected_s*."""
        if self._began is not None and connected_s - self._began < self.keep_s * _SHARE:
            self._numbers[-1], self._times[-1] = number, connected_s
        else:
            self._numbers.append(number)
            self._times.append(connected_s)
            self._began = connected_s

    def forget(self, connected_s: float) -> int:
        """Forgets the checkpoints whose time is over. Returns :attr:`forgotten_before`."""
        over = 0
        while over < len(self._times) and self._times[over] + self.keep_s <= connected_s:
            over += 1
        if over:
            self.forgotten_before = self._numbers[over - 1] + 1
            del self._numbers[:over], self._times[:over]
            if not self._times:
                self._began = None
        return self.forgotten_before

    def age(self, number: int, connected_s: float) -> float | None:
        """Returns how many seconds ago checkpoint *number* was acked, at the least. None: it was not acked."""
        at = bisect_left(self._numbers, number)
        return None if at == len(self._times) else max(0.0, connected_s - self._times[at])

    def saved(self) -> dict[str, Any]:
        """Returns what :meth:`restore` needs, as JSON has it."""
        return {"forgotten_before": self.forgotten_before, "numbers": [*self._numbers], "times": [*self._times]}

    def restore(self, saved: Mapping[str, Any], number: int, connected_s: float) -> None:
        """Goes on from *saved*. Nobody knows which later checkpoints, up to *number*, were acked: it counts as now."""
        self.forgotten_before = saved["forgotten_before"]
        numbers: Sequence[int] = saved["numbers"]
        self._numbers, self._times = [*numbers], [*saved["times"]]
        self._began = None
        if number > (numbers[-1] if numbers else self.forgotten_before - 1):
            self.acked(number, connected_s)
