"""Sends settlements in batches, tries failed ones again, and starts the visibility extensions."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from broadway_py.clock import Clock, Timer
from broadway_py.log import logger
from broadway_py.producers.sqs.deliveries.message import SQSReceipt
from broadway_py.producers.sqs.requests.batch_entries import MOST_ENTRIES, retry_delay
from broadway_py.producers.sqs.requests.client import Client, QueueInfo
from broadway_py.producers.sqs.requests.errors import Kind, Trouble
from broadway_py.producers.sqs.settlements.batches import Batches
from broadway_py.producers.sqs.settlements.pending_settlement import BatchEntry, Fate
from broadway_py.producers.sqs.visibility.guardian import Extension, Guardian

__all__ = ["BatchSender"]

log = logger("broadway_py.producers.sqs")


class BatchSender:
    """Runs the requests of one acknowledger, each in a task, and the timer for the next ones.

    Args:
        client: makes the requests.
        queue_info: knows the queue.
        clock: tells the time.
        guardian: knows which visibilities to extend.
        due: called when something is due; it must call :meth:`send_due`.
        deleted: called with a receipt after its delete, and why it was not deleted, or None.
        ended: called when a request has ended, with all that follows from it.
        refused: called when AWS refuses a request; with AWS's answer if it refused the whole request.
    """

    def __init__(
        self,
        client: Client,
        queue_info: QueueInfo,
        clock: Clock,
        guardian: Guardian,
        *,
        due: Callable[[], object],
        deleted: Callable[[SQSReceipt, Fate | None], object],
        ended: Callable[[], object],
        refused: Callable[[Trouble | None], object],
    ) -> None:
        self._client = client
        self._url = queue_info.url
        self._queue = queue_info.name
        self._clock = clock
        self._guardian = guardian
        self._due = due
        self._deleted = deleted
        self._after = ended
        self._refused = refused
        self.deletes: Batches[BatchEntry] = Batches()
        self.changes: Batches[BatchEntry] = Batches()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._timer_at = math.inf
        #: Whether settling has ended.
        self.is_closed = False

    @property
    def is_idle(self) -> bool:
        """Returns whether every settlement has reached SQS, or was given up."""
        return not (self._tasks or len(self.deletes) or len(self.changes))

    # --- when -----------------------------------------------------------------------------------------------------

    def send_due(self, now: float, *, flush: bool) -> None:
        """Sends what is due; with *flush* also batches that are not full. Then sets the timer for the next."""
        for batch in (*self.deletes.due(now, flush=flush), *self.changes.due(now, flush=flush)):
            self.begin(self._send(batch), "sqs-settle")
        if not self.is_closed:
            for extension in self._guardian.due(now):
                self.begin(self._extend(extension), "sqs-extend")
        self.arm()

    def send_together(self, entries: Sequence[BatchEntry]) -> None:
        """Sends *entries*, all of one kind, now and in as few requests as possible."""
        for start in range(0, len(entries), MOST_ENTRIES):
            self.begin(self._send(entries[start : start + MOST_ENTRIES]), "sqs-settle")

    def arm(self) -> None:
        """Sets the timer for what is due next."""
        moments = (self.deletes.next_due(), self.changes.next_due(), self._guardian.next_due())
        due = min((moment for moment in moments if moment is not None), default=math.inf)
        if due < self._timer_at:
            # Here the timer is too late. One that is too early is kept, because that costs less than a new one for each
            # batch.
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self._due()

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs *work* in a task that :meth:`close` waits for."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a settlement has crashed", exc_info=error)
        self._after()

    # --- requests -------------------------------------------------------------------------------------------------

    async def _send(self, batch: Sequence[BatchEntry]) -> None:
        """Makes one request, and handles the result of each entry. All of *batch* are of one kind."""
        failed: Mapping[int, Fate] = dict.fromkeys(range(len(batch)), "closed")
        trouble: Trouble | None = None
        try:
            failed = await self._asked(batch)
        except Trouble as caught:
            trouble = caught
            failed = dict.fromkeys(range(len(batch)), caught.kind)
        finally:
            # Also when this task is cancelled: waiting callers must get an answer.
            spread = random.random()
            for position, entry in enumerate(batch):
                self._conclude(entry, failed.get(position), spread)
            self.arm()
        if "refused" in failed.values():
            self._refused(trouble)

    async def _asked(self, batch: Sequence[BatchEntry]) -> Mapping[int, Kind]:
        if batch[0].timeout is None:
            return await self._client.delete(self._url, [entry.receipt.handle for entry in batch])
        await self._guardian.until_answered(entry.receipt for entry in batch)
        return await self._client.change_visibility(
            self._url, [(entry.receipt.handle, entry.timeout or 0) for entry in batch]
        )

    async def _extend(self, extension: Extension) -> None:
        await self._guardian.extend(extension)
        self.arm()

    def _conclude(self, entry: BatchEntry, why: Fate | None, spread: float) -> None:
        """Ends *entry*, or tries it again later.

        *spread*, 0 to 1, is the jitter of the whole batch, so that entries that failed together are tried again
        together.
        """
        if why is not None and not self.is_closed:
            entry.tries += 1
            now = self._clock.monotonic()
            delay = retry_delay(why, entry.tries, now, entry.give_up_at, spread)
            if delay is not None:
                (self.deletes if entry.timeout is None else self.changes).again(entry, now + delay)
                return
        entry.receipt.guarded = False
        if entry.timeout is None:
            self._deleted(entry.receipt, why)
        entry.end(why)

    # --- the end --------------------------------------------------------------------------------------------------

    async def close(self, seconds: float) -> None:
        """Sends what is there, and nothing more. Takes so many seconds at most."""
        self.is_closed = True
        for batches in (self.deletes, self.changes):
            for batch in batches.due(math.inf, flush=True):
                self.begin(self._send(batch), "sqs-settle")
        try:
            async with self._clock.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            log.warning("the last settlements did not reach SQS in time", queue=self._queue)
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
