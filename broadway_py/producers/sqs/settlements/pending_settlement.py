"""Who waits for a settlement, and what is said when a part of it did not work out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from broadway_py.producers.sqs.deliveries.message import Receipt
from broadway_py.producers.sqs.requests.errors import Kind

__all__ = ["Entry", "Fate", "PendingSettlement"]

#: Why an entry was not settled: a kind of trouble, or that nobody settles any more, or that it could not be buried: not
#: sent, or not taken.
Fate = Kind | Literal["closed", "unsent", "unfit"]

#: How long a settlement is tried at most, in seconds.
_PATIENCE_S: Final = 60.0

_WHY: Final[Mapping[str, str]] = {
    "away": "SQS gave no good answer in time",
    "busy": "SQS was throttling for too long",
    "expired": "the AWS credentials have expired",
    "refused": "AWS refused it: allow sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue",
    "gone": "the queue does not exist any more",
    "stale": "the receipt had expired, and others may have the message",
    "wrong": "SQS did not accept it",
    "closed": "the producer was closed",
    "unsent": "it could not be sent to the dead letter queue, and was left where it is",
    "unfit": "the dead letter queue does not take it, and it was left where it is",
}


class PendingSettlement:
    """One call that waits until each of its messages is settled, or given up."""

    __slots__ = ("_done", "_open", "lost")

    def __init__(self) -> None:
        self._open = 0
        self._done: asyncio.Future[None] | None = None
        #: What could not be settled, and why.
        self.lost: dict[Receipt, Fate] = {}

    def enter(self) -> None:
        """One more message."""
        self._open += 1

    def leave(self, receipt: Receipt, why: Fate | None = None) -> None:
        """One of them has ended; *why* it was not settled, or None."""
        if why is not None:
            self.lost[receipt] = why
        self._open -= 1
        if self._open == 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def wait(self) -> None:
        """Return when all have ended."""
        if self._open:
            self._done = asyncio.get_running_loop().create_future()
            await self._done

    def sentence(self, queue: str, total: int) -> str:
        """What was not settled, with the reasons."""
        reasons = Counter(self.lost.values())
        listed = "; ".join(f"{count}: {_WHY[why]}" for why, count in sorted(reasons.items()))
        return f"SQS queue {queue!r}: {len(self.lost)} of {total} messages could not be settled ({listed})"


@dataclass(slots=True, eq=False)
class Entry:
    """One delete, or one change of visibility, on its way to SQS."""

    receipt: Receipt
    #: The new timeout in seconds; None: a delete.
    timeout: int | None
    #: Who waits; None: nobody.
    pending: PendingSettlement | None
    begun_at: float
    tries: int = 0

    @property
    def give_up_at(self) -> float:
        """It is tried while others cannot have the message; one whose time is nearly over is tried, too."""
        return min(self.begun_at + _PATIENCE_S, max(self.receipt.hidden_until, self.begun_at + 1.0))

    def end(self, why: Fate | None = None) -> None:
        """Tell whoever waits."""
        if self.pending is not None:
            self.pending.leave(self.receipt, why)
