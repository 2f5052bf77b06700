"""Emitters: hand committed results to ``emit``, one list at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any

from broadway_py._core.aggregation.pending import DueResult, PendingResults
from broadway_py.error_text import name_of, place_of, reason_of
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.output import Output
from broadway_py.pipeline.contexts import drive
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Wake
from broadway_py.storage.errors import StorageError

__all__ = ["Emitter"]

log = logger("broadway_py.pipeline")


class Emitter(PipelineStage):
    """Hands out the results of one aggregator.

    Args:
        services: the services of the pipeline.
        key: the aggregator's name.
        meter: the emitter's figures.
        output: where the results go.
        unwanted: returns the sequence numbers of the results that operators want to be removed.
        most: how many results one call gets at most.
        timeout_s: seconds that one call may take.
        is_durable: whether results that nobody has taken outlive the process.
        partition: the partition of the sources whose results these are; None: the sources have none.
        turn: what the emitters of one aggregator share, so that one of them calls at a time; None: it has one emitter.
    """

    def __init__(
        self,
        services: Services,
        key: str,
        meter: Meter,
        output: Output,
        unwanted: Callable[[], Awaitable[Collection[int]]],
        *,
        most: int,
        timeout_s: float,
        is_durable: bool,
        partition: int | None = None,
        turn: asyncio.Lock | None = None,
    ) -> None:
        super().__init__(services, f"emitter:{key}", partition or 0, meter)
        #: The results that are stored and not handed out.
        self.pending = PendingResults(most)
        #: Set when results were taken or refused, and when the emitter has ended.
        self.progress: Wake | None = None
        #: True once no task hands out results any more.
        self.has_ended = False
        self.output = output
        self._key = key
        self._unwanted = unwanted
        self._emit_timeout_s = timeout_s
        self._is_durable = is_durable
        self._turn: asyncio.Lock | nullcontext[None] = nullcontext() if turn is None else turn
        self._is_ending = self._is_last = False
        self._log = log.bind(pipeline=services.name, aggregator=key)
        if partition is not None:
            self._log = self._log.bind(partition=partition)

    def add(self, results: Sequence[DueResult]) -> None:
        """Take over *results*, which are stored, in their order."""
        self.pending.add(results)
        self.wake.set()

    def finish(self, *, more_come: bool) -> None:
        """End when all results are handed out, unless *more_come*. Nothing is added to windows any more."""
        self._is_ending = True
        self._is_last = not more_come
        self.wake.set()

    async def run(self) -> None:
        """Hand out results until :meth:`finish` was called and none is left, or until cut off.

        During a stop each stored result that fails has one last try, and stays stored if that fails, too.
        """
        clock, pending = self.services.clock, self.pending
        self.has_ended = False
        try:
            # A process that died may have left some.
            await self._drop_unwanted()
            while not self.call.cut:
                if self._is_ending and self._is_durable and self.services.is_stopping:
                    # They lie in the file, so the stop need not wait until they are taken.
                    pending.begin_last_tries()
                if pending.is_retry(clock.monotonic()):
                    # Results that were never tried go out at once. So this is where an operator's wish matters.
                    await self._drop_unwanted()
                ready = pending.ready
                taken = pending.take(clock.monotonic())
                if taken:
                    await self._hand_out(taken)
                    # A call that never waits would let nobody else run while ten thousand results are handed out.
                    await asyncio.sleep(0)
                elif pending.ready < ready:
                    # They wait behind results that failed now. This leaves room for more.
                    self._tell()
                elif self._is_last and (pending.has_given_up or not pending):
                    break
                else:
                    await self.wake.wait_until(pending.next_call(clock.monotonic()), clock)
            # Not after a crash: then it runs again, and the aggregator must wait for it.
            self.has_ended = True
            if pending.has_given_up:
                self._log.warning(
                    "some results were not taken; they stay stored and are handed out after the next start",
                    results=len(pending),
                )
        finally:
            self.wake.close()
            self._tell()

    def take_all(self) -> list[Message[Any]]:
        """Returns no message: results are no messages, and they lie in the state file."""
        return []

    async def _drop_unwanted(self) -> None:
        """Drop what operators do not want. No result is being emitted meanwhile, so none is dropped half way."""
        try:
            unwanted = await self._unwanted()
        except StorageError:
            return  # the checkpoints of the aggregator say why; before the next try, the store is asked again
        dropped = self.pending.drop(unwanted)
        if dropped:
            self._log.warning("results were dropped because an operator asked for it", results=dropped)
            self._tell()

    async def _hand_out(self, taken: Sequence[DueResult]) -> None:
        clock, call = self.services.clock, self.call
        started = self.busy_since = clock.monotonic()
        limit: asyncio.Timeout | None = None
        try:
            with call.in_callback:
                async with self._turn, clock.timeout(self._emit_timeout_s) as limit:
                    untaken = await drive(self.output.emit(taken), call.clean_context().copy())
        except foreign_errors() as error:
            # What emit raises in time may be a TimeoutError as well.
            self._note_failure(taken, error, is_too_late=limit is not None and limit.expired())
        except asyncio.CancelledError as cancelled:
            if call.was_cut():
                # What emit did with these results is not known. They lie in the file, and come again after a start.
                return
            self._note_failure(taken, cancelled)
        else:
            if untaken is None:
                self.pending.succeeded(taken)
            else:
                if len(untaken.results) < len(taken):
                    self.pending.succeeded([one for one in taken if one not in untaken.results])
                self._note_failure(untaken.results, untaken.error)
        # Also after a failure: it may be the last one, or leave room for more results.
        self._tell()
        self.busy_since = None
        took = clock.monotonic() - started
        self.meter.busy_seconds += took
        self.meter.duration.observe(took)

    def _note_failure(self, taken: Sequence[DueResult], error: BaseException, *, is_too_late: bool = False) -> None:
        self.pending.failed(taken, self.services.clock.monotonic())
        reason, raised = reason_of(error), error
        if is_too_late:
            reason = (
                f"aggregators.{self._key}.emit_timeout: {self.output.called} took longer than "
                f"{self._emit_timeout_s:g} s: make it faster, give it fewer results at a time (emit_batch), or raise "
                "emit_timeout"
            )
            # The cancellation shows where it waited.
            raised = error.__cause__ or error
        kept = "stored" if self._is_durable else "in memory"
        self._log.error(
            f"results could not be handed out; they stay {kept} and are handed out again",
            results=len(taken),
            exception=name_of(error),
            reason=reason,
            at=place_of(raised),
        )

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress.set()
