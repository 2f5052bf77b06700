"""A call that waits for settlements, and the text of its error if some of them failed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.producers.sqs.requests.errors import Kind

__all__ = ["BatchEntry", "Fate", "PendingSettlement"]

#: Why an entry was not settled: a kind of trouble, or "closed" (the producer has ended), "unsent" (the dead letter
#: could not be sent) or "unfit" (the dead letter was refused).
Fate = Kind | Literal["closed", "unsent", "unfit"]

#: How long a settlement is tried at most, in seconds.
_PATIENCE_S: Final = 60.0

_WHY: Final[Mapping[str, str]] = {
    "away": "SQS did not confirm it in time",
    "busy": "SQS throttled the requests for too long",
    "expired": "the AWS credentials have expired",
    "refused": "AWS refused it: allow sqs:DeleteMessage and sqs:ChangeMessageVisibility on the queue",
    "gone": "the queue does not exist any more",
    "stale": "the receipt had expired, and another consumer may have the message",
    "wrong": "SQS did not accept it",
    "closed": "the producer was closed",
    "unsent": "it could not be sent to the dead letter queue, and it stays where it is",
    "unfit": "the dead letter queue does not accept it, and it stays where it is",
}


class PendingSettlement:
    """One call that waits until each of its messages is settled or given up."""

    __slots__ = ("_done", "_open", "lost")

    def __init__(self) -> None:
        self._open = 0
        self._done: asyncio.Future[None] | None = None
        #: What could not be settled, and why.
        self.lost: dict[SQSReceipt, Fate] = {}

    def enter(self) -> None:
        """Counts one more message."""
        self._open += 1

    def leave(self, receipt: SQSReceipt, why: Fate | None = None) -> None:
        """Notes that one message has ended. *why* tells why it was not settled, or None."""
        if why is not None:
            self.lost[receipt] = why
        self._open -= 1
        if self._open == 0 and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def wait(self) -> None:
        """Returns after all messages have ended."""
        if self._open:
            self._done = asyncio.get_running_loop().create_future()
            await self._done

    def sentence(self, queue: str, total: int) -> str:
        """Returns a sentence on what was not settled, with the reasons."""
        reasons = Counter(self.lost.values())
        listed = "; ".join(f"{count}: {_WHY[why]}" for why, count in sorted(reasons.items()))
        return f"SQS queue {queue!r}: {len(self.lost)} of {total} messages could not be settled ({listed})"


@dataclass(slots=True, eq=False)
class BatchEntry:
    """One delete, or one change of visibility, for SQS."""

    receipt: SQSReceipt
    #: The new timeout in seconds; None: a delete.
    timeout: int | None
    #: The call that waits; None: no call does.
    pending: PendingSettlement | None
    begun_at: float
    tries: int = 0

    @property
    def give_up_at(self) -> float:
        """Returns until when it is tried: while others cannot have the message.

        An entry whose time is nearly over is still tried, for a second.
        """
        return min(self.begun_at + _PATIENCE_S, max(self.receipt.hidden_until, self.begun_at + 1.0))

    def end(self, why: Fate | None = None) -> None:
        """Tells the waiting call."""
        if self.pending is not None:
            self.pending.leave(self.receipt, why)
