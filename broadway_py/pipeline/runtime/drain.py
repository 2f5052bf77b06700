"""The drain: the steps that end a pipeline, under one deadline."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broadway_py._core.settlement import will_be_stopped
from broadway_py.log import logger
from broadway_py.message import Message, Outcome
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.pipeline.runtime.layout import Stages
from broadway_py.pipeline.runtime.stage_tasks import StageTasks
from broadway_py.pipeline.stages.services import Services
from broadway_py.pipeline.stages.source import Source
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import first_completed

__all__ = ["Drain", "DrainReport"]

log = logger("broadway_py.pipeline")

#: This part of the drain's time (the smaller of the two) is kept to give back unfinished messages and to close.
_RESERVE_S: Final = 5.0
_RESERVE_SHARE: Final = 0.2
#: The drain has at most this many seconds left after :meth:`Drain.give_up`.
_GIVEN_UP_S: Final = 1.0
#: Giving back and closing get at least this many seconds, however late it is.
_LEAST_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a pipeline ended."""

    #: How many deliveries ended in each outcome during the life of the pipeline.
    outcomes: Mapping[Outcome, int]
    #: False if something had to be cut off at the deadline.
    in_time: bool


class Drain:
    """The drain of one pipeline.

    Args:
        services: the services of the pipeline.
        stages: all stages.
        tasks: the tasks of the stages.
        shutdown_timeout_s: seconds for a stop that gives no time of its own.
        publishers: what callbacks publish with. What is on its way is confirmed before the sources close.
        stop_wanted: set here when a stop is asked for.
        give_up: set when the last steps are to be done now.
    """

    def __init__(
        self,
        services: Services,
        stages: Stages,
        tasks: StageTasks,
        shutdown_timeout_s: float,
        *,
        publishers: Publishers,
        stop_wanted: asyncio.Event,
        give_up: asyncio.Event,
    ) -> None:
        self._services = services
        self._stages = stages
        self._tasks = tasks
        self._shutdown_timeout_s = shutdown_timeout_s
        self._publishers = publishers
        self._stop_wanted = stop_wanted
        self._give_up = give_up
        self._have_sources_ended = False
        self._deadline: float | None = None
        self._in_time = True
        self._log = log.bind(pipeline=services.name)

    @property
    def has_begun(self) -> bool:
        """Returns True once nothing more is taken in: the pipeline stops, or its sources have ended by themselves."""
        return self._services.is_stopping or self._have_sources_ended

    def note_sources_ended(self) -> None:
        """Take nothing more in, because all sources have ended. All messages that came in are handled as usual."""
        self._have_sources_ended = True
        self._stages.submissions.stop()

    def request_stop(self, timeout_s: float | None = None) -> None:
        """Begin to drain, with *timeout_s* seconds from now. A later call joins the first deadline."""
        limit = self._shutdown_timeout_s if timeout_s is None else timeout_s
        deadline = self._services.clock.monotonic() + limit
        if self._deadline is None:
            self._deadline = deadline
            self._shutdown_timeout_s = limit
        self._stop_wanted.set()
        self._tasks.changed.set()
        # Stop the sources at once, not in the pipeline's own task: a message that is given back because the failure
        # policy says stop must not be fetched again in between.
        self._stop_sources()

    def give_up(self) -> None:
        """Do the last steps of the drain at once."""
        self.request_stop()
        self._deadline = min(self._deadline or 0.0, self._services.clock.monotonic() + _GIVEN_UP_S)
        self._give_up.set()

    def report(self) -> DrainReport:
        """Returns the outcomes so far."""
        total: Counter[Outcome] = Counter()
        for ledger in self._stages.ledgers:
            total.update(ledger.outcomes)
        return DrainReport(dict(total), self._in_time)

    async def run(self, *, lets_finish: bool, guarding: asyncio.Future[None] | None) -> None:
        """Do the steps in order.

        With *lets_finish*, work that was begun may finish first. *guarding*, the breaker's task, runs until then.
        """
        try:
            if lets_finish and self._tasks.crash is None and self._tasks.pending():
                self._stop_sources()
                giving_back = self._give_back_unstarted()
                await self._let_finish(giving_back)
        finally:
            if guarding is not None:
                guarding.cancel()
            stages = self._stages.all()
            self._cut_off(stages)
            await self._end(stages)

    # --- the steps

    def _stop_sources(self) -> None:
        self._services.is_stopping = True
        for source in [*self._stages.sources, self._stages.submissions]:
            source.stop()

    def _give_back_unstarted(self) -> asyncio.Task[None]:
        for stage in self._stages.all():
            stage.wake.set()  # a stage that waits for a thread to return stops waiting
        # Take the messages at the sources first: a processor that gives messages back asks for more, and would start
        # them.
        unstarted = self._stages.take_unstarted()
        return asyncio.ensure_future(self._services.settler.give_back(unstarted))

    async def _let_finish(self, giving_back: asyncio.Task[None]) -> None:
        """Wait until the stages have finished, or until the reserve begins."""
        until = (self._deadline or 0.0) - self._reserve_s
        await self._wait({giving_back, *self._tasks.pending()}, until, or_given_up=True)
        if not giving_back.done():
            self._tasks.add(giving_back, self._stages.submissions)
        self._tasks.look_for_crash()

    def _cut_off(self, stages: Sequence[PipelineStage]) -> None:
        """Cut off the callbacks that still run."""
        self._services.is_stopping = True
        if self._services.deduplication is not None:
            self._services.deduplication.give_up()
        pending = self._tasks.pending()
        if pending:
            self._in_time = self._in_time and self._tasks.crash is not None
            names = sorted({self._tasks.layer_of(task) for task in pending})
            if self._tasks.crash is None:
                self._log.warning("the drain ran out of time; cancelling what still runs", stages=names)
            for stage in stages:
                stage.call.cut_off()
            self._stop_sources()

    async def _end(self, stages: Sequence[PipelineStage]) -> None:
        """Give back every message that has no outcome, close the sources, close the ledgers."""
        now = self._services.clock.monotonic()
        deadline = max(now + self._reserve_s if self._deadline is None else self._deadline, now + _LEAST_S)
        ending: asyncio.Future[None] | None = None
        flushing = {asyncio.ensure_future(self._publishers.flush())} if self._publishers else set()
        self._publishers.end_by(deadline)
        try:
            await self._wait(self._tasks.pending(), now + (deadline - now) * 0.5)
            # What callbacks have awaited is confirmed. This is what tasks of the user publish.
            await self._wait(flushing, now + (deadline - now) * 0.7)
            # A stage that was cut off may have put aside some of those in hand already. Each counts once.
            left = {id(one): (one, stage) for stage in stages for one in [*stage.held, *stage.take_all()]}
            ending = asyncio.ensure_future(self._give_back_and_close([*left.values()], stages))
            await self._wait({ending, *self._tasks.pending()}, deadline)
        finally:
            # Also if this is cancelled: the ledgers must be closed and no task may be left running.
            last: set[asyncio.Future[Any]] = {*flushing, *self._tasks.pending(), *self._services.settler.aside}
            if ending is not None:
                last.add(ending)
            for task in last:
                task.cancel()
            try:
                if last:
                    await asyncio.wait(last, timeout=_LEAST_S)
            finally:
                self._close_books(stages)

    async def _give_back_and_close(
        self, left: Sequence[tuple[Message[Any], PipelineStage]], stages: Sequence[PipelineStage]
    ) -> None:
        stopped = [(message, stage) for message, stage in left if will_be_stopped(message)]
        await self._services.settler.give_back([message for message, _ in left])
        await self._services.settler.finish()
        async with asyncio.TaskGroup() as group:
            for stage in stages:
                if isinstance(stage, Source):
                    group.create_task(stage.close())
                elif stage.process is not None:
                    group.create_task(stage.process.close())
        for message, stage in stopped:
            stage.conclusion.note_stopped(message)

    def _close_books(self, stages: Sequence[PipelineStage]) -> None:
        """Close the ledgers. Nothing is settled any more, so messages without an outcome count as unknown."""
        for stage in stages:
            if stage.process is not None:
                stage.process.kill()
        for task in self._tasks.pending():
            self._log.error(
                "a callback ignored its cancellation; the drain does not wait for it", stage=self._tasks.layer_of(task)
            )
        for ledger in self._stages.ledgers:
            unknown = ledger.close()
            if unknown:
                self._log.error(
                    "some messages could not be settled by the deadline; their outcome is unknown",
                    producer=ledger.producer,
                    messages=unknown,
                )
        self._services.failures.close()

    # --- time

    @property
    def _reserve_s(self) -> float:
        return min(_RESERVE_S, self._shutdown_timeout_s * _RESERVE_SHARE)

    async def _wait(self, tasks: Iterable[asyncio.Future[Any]], until: float, *, or_given_up: bool = False) -> None:
        """Wait until *tasks* are done, the clock shows *until*, or (with *or_given_up*) :meth:`give_up` was called."""
        pending = {task for task in tasks if not task.done()}
        if not pending:
            return
        over = asyncio.Event()
        ends = [over.wait(), self._give_up.wait()] if or_given_up else [over.wait()]
        timer = self._services.clock.call_at(until, over.set)
        try:
            await first_completed(asyncio.wait(pending), *ends)
        finally:
            timer.cancel()
