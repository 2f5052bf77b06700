"""Decides which messages must be extended, when, and by how much. It is the arithmetic of the visibility guardian."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Final

from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.producers.sqs.settings.options import MOST_VISIBILITY

__all__ = ["Guard"]

#: Messages that are due within this share of the visibility timeout are extended together with those due now.
_SLACK: Final = 0.125
#: The shortest extension that is worth a request, in seconds.
_LEAST_S: Final = 1.0


class Guard:
    """Keeps messages hidden while we hold them. Each is extended when half of its visibility timeout has passed.

    Args:
        life_s: the visibility timeout; 0 guards nothing.
    """

    def __init__(self, life_s: float) -> None:
        self._life_s = life_s
        # One entry for all messages of a receive, because they are due together.
        self._lots: list[tuple[float, int, list[SQSReceipt]]] = []
        self._order = itertools.count()

    def hold(self, receipts: list[SQSReceipt]) -> None:
        """Guards *receipts*, which became invisible together, until their ``guarded`` is False."""
        if receipts and self._life_s > 0:
            self._enter(receipts[0].visible_until - self._life_s / 2.0, receipts)

    def next_due(self) -> float | None:
        """Returns when to call :meth:`due`; None: nothing is guarded."""
        return self._lots[0][0] if self._lots else None

    def due(self, now: float) -> tuple[list[tuple[SQSReceipt, int]], list[SQSReceipt]]:
        """Returns what to extend now, with new timeouts in seconds, and what has reached SQS's 12 hours.

        The latter are not guarded any more. For the former, :meth:`extended` or :meth:`again` must follow.
        """
        extend: list[tuple[SQSReceipt, int]] = []
        over: list[SQSReceipt] = []
        if not self._lots or self._lots[0][0] > now:
            return extend, over
        while self._lots and self._lots[0][0] <= now + self._life_s * _SLACK:
            for receipt in heapq.heappop(self._lots)[2]:
                if not receipt.guarded:
                    continue
                timeout = int(min(self._life_s, receipt.received_at + MOST_VISIBILITY - now))
                if timeout < _LEAST_S or now + timeout <= receipt.visible_until:
                    receipt.guarded = False
                    over.append(receipt)
                else:
                    extend.append((receipt, timeout))
        return extend, over

    def extended(self, receipts: Iterable[tuple[SQSReceipt, int]], now: float) -> None:
        """Notes that SQS hides them for so many more seconds from *now* (the time of the request) on."""
        by_end: dict[float, list[SQSReceipt]] = {}
        for receipt, timeout in receipts:
            receipt.visible_until = receipt.hidden_until = now + timeout
            by_end.setdefault(receipt.visible_until, []).append(receipt)
        for end, together in by_end.items():
            self._enter(end - self._life_s / 2.0, together)

    def again(self, receipts: list[SQSReceipt], when: float) -> list[SQSReceipt]:
        """Notes that an extension failed, and tries again at *when*.

        Returns the receipts for which that is too late. They are not guarded any more.
        """
        guarded = [receipt for receipt in receipts if receipt.guarded]
        left = [receipt for receipt in guarded if when < receipt.hidden_until]
        if left:
            self._enter(when, left)
        late = [receipt for receipt in guarded if when >= receipt.hidden_until]
        for receipt in late:
            receipt.guarded = False
        return late

    def _enter(self, due: float, receipts: list[SQSReceipt]) -> None:
        heapq.heappush(self._lots, (due, next(self._order), receipts))
