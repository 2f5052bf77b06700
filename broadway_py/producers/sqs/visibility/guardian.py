"""The visibility guardian: it extends the visibility of messages, and knows which extensions SQS has not answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.producers.sqs.requests.batch_entries import MOST_ENTRIES
from broadway_py.producers.sqs.requests.client import Client, QueueInfo
from broadway_py.producers.sqs.requests.errors import Kind, Trouble
from broadway_py.producers.sqs.visibility.extensions import Guard

__all__ = ["Extension", "Guardian"]

log = logger("broadway_py.producers.sqs")

#: Seconds until a failed extension is tried again.
_EXTEND_AGAIN_S: Final = 1.0

#: One request: receipts, each with its new timeout in seconds.
Extension = Sequence[tuple[SQSReceipt, int]]


class Guardian:
    """Keeps the receipts of one acknowledger hidden until their ``guarded`` is False.

    Args:
        client: makes the requests.
        queue_info: knows the queue.
        clock: tells the time.
        is_held: whether no settlement of a receipt was requested yet.
        refused: called when AWS refuses an extension.
    """

    def __init__(
        self,
        client: Client,
        queue_info: QueueInfo,
        clock: Clock,
        *,
        is_held: Callable[[SQSReceipt], bool],
        refused: Callable[[Trouble], object],
    ) -> None:
        self._client = client
        self._url = queue_info.url
        self._queue = queue_info.name
        self._clock = clock
        self._is_held = is_held
        self._refused = refused
        self._guard = Guard(queue_info.visibility_s)
        # Receipts whose extension SQS has not answered yet. The event is set when it has.
        self._under_way: dict[SQSReceipt, asyncio.Event] = {}

    def hold(self, receipts: list[SQSReceipt]) -> None:
        """Guards *receipts*, from one receive."""
        self._guard.hold(receipts)

    def next_due(self) -> float | None:
        """Returns when to call :meth:`due`; None: nothing is guarded."""
        return self._guard.next_due()

    def due(self, now: float) -> list[Extension]:
        """Returns the requests to make now, each with :meth:`extend`."""
        extend, over = self._guard.due(now)
        for receipt in over:
            log.warning(
                "a message was held for as long as SQS allows; another consumer may get it now",
                queue=self._queue,
                message_id=receipt.message_id,
            )
        return [extend[start : start + MOST_ENTRIES] for start in range(0, len(extend), MOST_ENTRIES)]

    async def extend(self, batch: Extension) -> None:
        """Makes one request, and handles the result of each receipt."""
        # Some may have been settled since they were due.
        batch = [pair for pair in batch if pair[0].guarded]
        if not batch:
            return
        asked_at = self._clock.monotonic()
        answered = asyncio.Event()
        self._under_way.update((receipt, answered) for receipt, _ in batch)
        try:
            failed = await self._asked(batch)
        finally:
            for receipt, _ in batch:
                del self._under_way[receipt]
            answered.set()
        again: dict[SQSReceipt, Kind] = {}
        for position, trouble in failed.items():
            receipt = batch[position][0]
            if trouble in ("away", "busy", "expired"):
                again[receipt] = trouble
            else:
                self._give_up(receipt, trouble)
        self._guard.extended([pair for position, pair in enumerate(batch) if position not in failed], asked_at)
        for receipt in self._guard.again(list(again), self._clock.monotonic() + _EXTEND_AGAIN_S):
            self._give_up(receipt, again[receipt])

    async def _asked(self, batch: Extension) -> Mapping[int, Kind]:
        try:
            return await self._client.change_visibility(
                self._url, [(receipt.handle, timeout) for receipt, timeout in batch]
            )
        except Trouble as trouble:
            if trouble.kind == "refused":
                self._refused(trouble)
            return dict.fromkeys(range(len(batch)), trouble.kind)

    def _give_up(self, receipt: SQSReceipt, trouble: Kind) -> None:
        receipt.guarded = False
        if self._is_held(receipt):  # otherwise it was settled meanwhile
            log.warning(
                "the visibility of a message could not be extended; the message may be handled twice",
                queue=self._queue,
                message_id=receipt.message_id,
                trouble=trouble,
            )

    async def until_answered(self, receipts: Iterable[SQSReceipt]) -> None:
        """Waits until no extension of *receipts* is under way.

        If another request overtook the extension, the extension would undo it: the message would be hidden again for a
        whole visibility timeout. Returns when SQS has answered, or at the latest when the client gives up waiting.
        """
        for receipt in receipts:
            if (answered := self._under_way.get(receipt)) is not None:
                await answered.wait()
