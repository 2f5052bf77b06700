"""A pipeline at work: its stages, their tasks, and the drain that ends them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from broadway_py import telemetry
from broadway_py._core.backoff import Backoff
from broadway_py._core.restarts import Restarts
from broadway_py._core.settlement import will_be_stopped
from broadway_py.clock import Clock
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import PipelineCrashed
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Failed, Message, Outcome, Plain
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.runtime.breaker import BreakerGuard
from broadway_py.pipeline.runtime.layout import Stages
from broadway_py.pipeline.stages.services import Services
from broadway_py.pipeline.stages.source import Source
from broadway_py.pipeline.stages.stage import PipelineStage

__all__ = ["DrainReport", "Runtime", "announce"]

log = logger("broadway_py.pipeline")

#: Of the drain's time, this much is kept to give back what user code did not finish, and to close.
_RESERVE_S = 5.0
_RESERVE_SHARE = 0.2
#: What is left of the time after :meth:`Runtime.give_up`.
_GIVEN_UP_S = 1.0
#: However late it is, giving back and closing get this long.
_LEAST_S = 0.1


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a pipeline ended."""

    #: How many deliveries of the pipeline's life ended in each outcome.
    outcomes: Mapping[Outcome, int]
    #: False when something had to be cut off at the deadline.
    in_time: bool


class Runtime:
    """Runs *stages* until they end by themselves, are stopped, or crash too often.

    Args:
        services: of the pipeline.
        stages: built and connected, not running.
        restarts: how often what crashed may be started again.
        shutdown_timeout_s: for a stop that names no time of its own.
        guard: of the breaker; None when there is none.
        gate: of the sources.
        topology: of the pipeline, as plain data.
    """

    def __init__(
        self,
        services: Services,
        stages: Stages,
        restarts: Restarts,
        shutdown_timeout_s: float,
        guard: BreakerGuard | None,
        *,
        gate: Gate,
        topology: Mapping[str, Any],
    ) -> None:
        self.services = services
        self.stages = stages
        self.restarts = restarts
        self.gate = gate
        self.topology = topology
        self.draining = False
        self.in_time = True
        #: Why the pipeline crashed.
        self.crash: PipelineCrashed | None = None
        self._shutdown_timeout_s = shutdown_timeout_s
        self._guard = guard
        self._stop_wanted = asyncio.Event()
        self._give_up = asyncio.Event()
        # Set when a stage has joined: whoever waits for the stages must wait for it, too.
        self._joined = asyncio.Event()
        self._deadline: float | None = None
        self._tasks: dict[asyncio.Task[None], PipelineStage] = {}
        self._log = log.bind(pipeline=services.name)

    @property
    def clock(self) -> Clock:
        """The pipeline's."""
        return self.services.clock

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """True for the task of one of the stages, in which callbacks run."""
        return task in self._tasks

    def request_stop(self, timeout_s: float | None = None) -> None:
        """Begin to drain, within *timeout_s* from now; a later call joins the first, with its deadline."""
        limit = self._shutdown_timeout_s if timeout_s is None else timeout_s
        deadline = self.clock.monotonic() + limit
        if self._deadline is None:
            self._deadline = deadline
            self._shutdown_timeout_s = limit
        self._stop_wanted.set()
        # At once, not when our own task hears of it: a message that is given back because a policy says stop must not
        # be fetched once more in between.
        self._stop_sources()

    def _stop_sources(self) -> None:
        self.draining = self.services.draining = True
        for source in [*self.stages.sources, self.stages.submissions]:
            source.stop()

    def give_up(self) -> None:
        """Do the last steps of the drain at once."""
        self.request_stop()
        self._deadline = min(self._deadline or 0.0, self.clock.monotonic() + _GIVEN_UP_S)
        self._give_up.set()

    def report(self) -> DrainReport:
        """The outcomes so far."""
        total: Counter[Outcome] = Counter()
        for ledger in self.stages.ledgers:
            total.update(ledger.outcomes)
        return DrainReport(dict(total), self.in_time)

    async def run(self) -> None:
        """Work, then drain. Returns when every stage has ended and every message has an outcome."""
        for stage in self.stages.all():
            self.start_stage(stage)
        guarding = None if self._guard is None else asyncio.ensure_future(self._guard.run())
        try:
            await self._until_stop()
            if self.crash is None and self._pending():
                await self._drain()
        finally:
            if guarding is not None:
                guarding.cancel()
            await self._end()

    def start_stage(self, stage: PipelineStage) -> None:
        """Give *stage* its task; for stages that join while the others run, too."""
        task = asyncio.get_running_loop().create_task(self._supervise(stage), name=stage.name)
        stage.call.task = task
        # Those that were taken out and have ended well are forgotten: there may be many, over the months.
        ended = [known for known, of in self._tasks.items() if known.done() and self._crash_of(known, of) is None]
        for known in ended:
            del self._tasks[known]
        self._tasks[task] = stage
        self._joined.set()

    @property
    def _reserve_s(self) -> float:
        return min(_RESERVE_S, self._shutdown_timeout_s * _RESERVE_SHARE)

    def _pending(self) -> set[asyncio.Task[None]]:
        return {task for task in self._tasks if not task.done()}

    async def _supervise(self, stage: PipelineStage) -> None:
        """Run *stage*; after a crash, what it had in hand fails and it is started again."""
        backoff = Backoff(first_s=0.1, most_s=5.0)
        while True:
            try:
                await stage.run()
            except PipelineCrashed:
                raise
            except foreign_errors(cancellations=True) as error:
                if isinstance(error, asyncio.CancelledError) and (stage.call.cut or _is_being_cancelled()):
                    raise
                lost = list(stage.held)
                # Not the text of the error: it may quote a payload or a password.
                self._log.error(
                    "a stage crashed",
                    stage=stage.layer,
                    index=stage.index,
                    messages=len(lost),
                    exception=name_of(error),
                    at=place_of(error),
                )
                for message in lost:
                    message.status = Failed("crashed", Plain(f"{stage.layer} crashed: {name_of(error)}"), error)
                stage.meter.failed["crashed"] += len(lost)
                await self.services.settler.settle((), lost)
                stage.reset_after_crash()
                if not self.restarts.crashed(self.clock.monotonic()):
                    if stage.journal is not None:
                        stage.journal.blame()
                    # A drain under way must not wait for a stage that is gone.
                    self._give_up.set()
                    raise PipelineCrashed(
                        f"pipeline {self.services.name!r}: {stage.layer} crashed once too often "
                        f"({type(error).__name__}: see the log); raise max_restarts if this is expected"
                    ) from error
                await self._sleep_unless_stopped(backoff.failed())
            else:
                if stage.process is not None:
                    await stage.process.close()
                return

    async def _sleep_unless_stopped(self, seconds: float) -> None:
        ends = {asyncio.ensure_future(self._stop_wanted.wait()), asyncio.ensure_future(self.clock.sleep(seconds))}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    async def _until_stop(self) -> None:
        """Until a stop is wanted, every stage has ended by itself, or the pipeline has crashed."""
        stop = asyncio.ensure_future(self._stop_wanted.wait())
        try:
            while pending := self._pending():
                self._joined.clear()
                joined = asyncio.ensure_future(self._joined.wait())
                await asyncio.wait({*pending, stop, joined}, return_when=asyncio.FIRST_COMPLETED)
                joined.cancel()
                self._look_for_crash()
                if stop.done() or self.crash is not None:
                    return
                if self.stages.sources and all(source.ended for source in self.stages.sources):
                    self.draining = True
                    self.stages.submissions.stop()
        finally:
            stop.cancel()

    def _look_for_crash(self) -> None:
        for task, stage in self._tasks.items():
            if self.crash is None and task.done():
                self.crash = self._crash_of(task, stage)

    def _crash_of(self, task: asyncio.Task[None], stage: PipelineStage) -> PipelineCrashed | None:
        if task.cancelled():
            if stage.call.cut:
                return None
            return PipelineCrashed(f"pipeline {self.services.name!r}: {stage.layer} was cancelled from outside")
        error = task.exception()
        if error is None or isinstance(error, PipelineCrashed):
            return error
        crash = PipelineCrashed(f"pipeline {self.services.name!r}: {type(error).__name__} in {stage.layer}")
        crash.__cause__ = error
        return crash

    async def _drain(self) -> None:
        """Stop fetching, give back what was not started, let the rest finish: until the reserve begins."""
        self._stop_sources()
        for stage in self.stages.all():
            stage.wake.set()  # one that waits for a thread to return waits no longer
        # What waits at the sources first: a processor that gives something back asks for more, and would begin with it.
        unstarted = self.stages.take_unstarted()
        giving_back = asyncio.ensure_future(self.services.settler.give_back(unstarted))
        until = (self._deadline or 0.0) - self._reserve_s
        await self._wait({giving_back, *self._pending()}, until, or_given_up=True)
        if not giving_back.done():
            self._tasks[giving_back] = self.stages.submissions
        self._look_for_crash()

    async def _wait(self, tasks: Iterable[asyncio.Task[None]], until: float, *, or_given_up: bool = False) -> None:
        """Until *tasks* are done, the clock shows *until*, or (when asked) it is time to give up."""
        pending = {task for task in tasks if not task.done()}
        if not pending:
            return
        over = asyncio.Event()
        ends = {asyncio.ensure_future(over.wait())}
        if or_given_up:
            ends.add(asyncio.ensure_future(self._give_up.wait()))
        timer = self.clock.call_at(until, over.set)
        try:
            while pending and not any(end.done() for end in ends):
                await asyncio.wait({*pending, *ends}, return_when=asyncio.FIRST_COMPLETED)
                pending = {task for task in pending if not task.done()}
        finally:
            timer.cancel()
            for end in ends:
                end.cancel()

    async def _end(self) -> None:
        """Cut off what still runs, give everything back that has no outcome, close the sources."""
        self.draining = self.services.draining = True
        stages = self.stages.all()
        if self._pending():
            self.in_time = self.in_time and self.crash is not None
            names = sorted({stage.layer for task, stage in self._tasks.items() if not task.done()})
            if self.crash is None:
                self._log.warning("the drain ran out of time; cutting off what still runs", stages=names)
            for stage in stages:
                stage.call.cut_off()
            self._stop_sources()
        now = self.clock.monotonic()
        deadline = max(now + self._reserve_s if self._deadline is None else self._deadline, now + _LEAST_S)
        ending: asyncio.Future[None] | None = None
        try:
            await self._wait(self._pending(), now + (deadline - now) * 0.5)
            left = [(message, stage) for stage in stages for message in [*stage.held, *stage.take_all()]]
            ending = asyncio.ensure_future(self._give_back_and_close(left, stages))
            await self._wait({ending, *self._pending()}, deadline)
        finally:
            # Also when somebody cancels us in here: the books must be closed, and no task of ours left running.
            last: set[asyncio.Future[Any]] = {*self._pending(), *self.services.settler.aside}
            if ending is not None:
                last.add(ending)
            for task in last:
                task.cancel()
            try:
                if last:
                    await asyncio.wait(last, timeout=_LEAST_S)
            finally:
                self._close_books(stages)

    def _close_books(self, stages: Sequence[PipelineStage]) -> None:
        """Nobody settles any more: what has no outcome is unknown."""
        for stage in stages:
            if stage.process is not None:
                stage.process.kill()
        for task in self._pending():
            self._log.error("a callback ignored its cancellation and was left behind", stage=self._tasks[task].layer)
        for ledger in self.stages.ledgers:
            unknown = ledger.close()
            if unknown:
                self._log.error(
                    "some messages could not be settled by the deadline; their outcome is unknown",
                    producer=ledger.producer,
                    messages=unknown,
                )
        self.services.failures.close()

    async def _give_back_and_close(
        self, left: Sequence[tuple[Message[Any], PipelineStage]], stages: Sequence[PipelineStage]
    ) -> None:
        stopped = [(message, stage) for message, stage in left if will_be_stopped(message)]
        await self.services.settler.give_back([message for message, _ in left])
        await self.services.settler.finish()
        async with asyncio.TaskGroup() as group:
            for stage in stages:
                if isinstance(stage, Source):
                    group.create_task(stage.close())
                elif stage.process is not None:
                    group.create_task(stage.process.close())
        for message, stage in stopped:
            stage.conclusion.note_stopped(message)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def announce(services: Services, topology: Mapping[str, Any]) -> None:
    """Tell telemetry that the stages stand."""
    telemetry.execute(
        "broadway.topology.init",
        {"system_time": services.clock.wall(), "monotonic_time": services.clock.monotonic()},
        {"pipeline": services.name, "context": services.context, "topology": topology},
    )
