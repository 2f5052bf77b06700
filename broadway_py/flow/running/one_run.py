"""One run of a flow in the running event loop, whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.errors import FlowFailed
from broadway_py.flow.counts import Counts
from broadway_py.flow.counts import summed as counted
from broadway_py.flow.description.layers import (
    DEFAULT_DEMAND,
    DEMAND_ACROSS_PROCESSES,
    DEMAND_ON_RAY,
    FromStage,
    Layer,
)
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.plan import Plan, plan_of
from broadway_py.flow.progress import Progress, expected_of
from broadway_py.flow.report import FlowReport
from broadway_py.flow.running.flow_events import FlowEvents
from broadway_py.flow.running.placement import Placement
from broadway_py.flow.running.runners.processes import ProcessWorkers
from broadway_py.flow.running.runners.tasks import HostedPlan, HostReport, summed
from broadway_py.flow.running.runners.threads import StageThread
from broadway_py.flow.running.runners.workers import Workers
from broadway_py.flow.stages.flow_exit import FlowExit
from broadway_py.flow.stages.giving import give
from broadway_py.machine import usable_processors
from broadway_py.stage.consuming import ConsumingStage
from broadway_py.stage.settings import SubscriptionOptions

__all__ = ["Consumers", "FlowRun", "end_task"]

#: The demand where a flow says nothing.
_DEMANDS: Final = {"processes": DEMAND_ACROSS_PROCESSES, "ray": DEMAND_ON_RAY}

#: Running stages that get the results, each with the options of its subscription.
Consumers = Iterable[tuple[ConsumingStage[Any], SubscriptionOptions]]


class FlowRun:
    """One run of a flow.

    Args:
        layer: the last layer.
        settings: how it is run.
        clock: for timers and waits.
    """

    def __init__(self, layer: Layer, settings: RunSettings, clock: Clock) -> None:
        workers = settings.workers or usable_processors().times(1)
        plan = plan_of(layer, workers, _DEMANDS.get(settings.runner, DEFAULT_DEMAND))
        self._plan = plan
        self._settings = settings
        self._clock = clock
        self._started_at = clock.monotonic()
        self._fed: dict[int, list[Any]] = {}
        for source in plan.sources:
            if source.fed_by is not None and isinstance(source.source, FromStage):
                self._fed.setdefault(source.fed_by, []).append(source.source.stage)
        #: Where the results leave.
        self.result = FlowExit()
        self._exits = [self.result, *(FlowExit() for _ in self._fed)]
        self._events = FlowEvents(plan, settings, clock)
        self._workers = self._workers_of(plan, workers) if settings.has_workers else None
        self._hosted: HostedPlan | None = None
        self._progress: Progress | None = None

    def _workers_of(self, plan: Plan, most: int) -> Workers:
        settings, stopped = self._settings, self._events.stage_stopped
        if settings.ray is None:
            return ProcessWorkers(plan, most, on_error=settings.on_error, clock=self._clock, stopped=stopped)
        from broadway_py.flow.running.runners.ray import RayWorkers  # noqa: PLC0415  # nobody else needs Ray

        return RayWorkers(
            plan,
            most,
            settings.ray,
            flow=self._events.number,
            on_error=settings.on_error,
            clock=self._clock,
            stopped=stopped,
        )

    async def main(self, consumers: Consumers | None = None) -> FlowReport:
        """Runs to the end.

        Args:
            consumers: who gets the results; None: the caller takes them from :attr:`result`.

        Raises:
            FlowFailed: the first error.
        """
        self._events.start()
        try:
            await self._main(consumers)
        except BaseException as error:
            self._events.stop(self.report, error)
            raise
        done = self._summed()
        report = self._reported(done)
        self._events.stop(lambda: report)
        if done.lost_by_time:
            _warn_of_lost(done.lost_by_time)
        return report

    async def _main(self, consumers: Consumers | None) -> None:
        workers = self._workers
        if self._settings.progress:
            self._progress = Progress(self._count, expected_of(self._plan), self._clock)
        has_failed = False
        try:
            await self._run(await self._host(workers), consumers)
        except FlowFailed:
            has_failed = True
            raise
        finally:
            try:
                if workers is not None:
                    await workers.close()
            except asyncio.CancelledError:
                # The error must not be lost: from Python 3.13 on, a group that fails while it is cancelled cancels its
                # task again.
                if not has_failed:
                    raise
            finally:
                self.end_progress()

    def end_progress(self) -> None:
        """Leaves what was shown of the progress as it is. It may be called by another thread."""
        if self._progress is not None:
            self._progress.close()

    def _count(self) -> Counts:
        """Returns what was done so far. Worker processes say it for the next time."""
        here = () if self._hosted is None else (self._hosted.counts(),)
        if self._workers is None:
            return counted(here)
        self._workers.ask_for_counts()
        return counted([*here, *self._workers.heard.counts.values()])

    async def _host(self, workers: Workers | None) -> HostedPlan:
        make_hop = partial(StageThread, clock=self._clock) if self._settings.runner == "threads" else None
        edges = None if workers is None else await workers.start()
        self._hosted = HostedPlan(
            self._plan,
            self._exits,
            on_error=self._settings.on_error,
            clock=self._clock,
            make_hop=make_hop,
            placement=Placement() if workers is None else workers.placement,
            remote=edges,
        )
        if edges is not None:
            edges.open()
        return self._hosted

    async def _run(self, hosted: HostedPlan, consumers: Consumers | None) -> None:
        error: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                hosted.start(group, self._events.stage_stopped)
                if self._workers is not None:
                    group.create_task(self._workers.run(), name="flow.workers")
                for number, stages in self._fed.items():
                    fed = [(stage, SubscriptionOptions()) for stage in stages]
                    group.create_task(give(self._exits[number], fed, operator="through_stages"))
                if consumers is not None:
                    group.create_task(give(self.result, consumers, operator="into_stages"))
        except BaseExceptionGroup as failed:
            error = failed.exceptions[0]
        if error is not None:
            try:
                # Raised in the handler, it would have the group as its context, and IPython formats no groups.
                raise error
            finally:
                del error

    async def consume(self, give: Callable[[list[Any]], object]) -> FlowReport:
        """Runs to the end, and calls *give* with each list of results.

        Raises:
            FlowFailed: the first error.
        """
        result = self.result
        result.takes_at_once = True
        task = asyncio.create_task(self.main(), name="flow")
        task.add_done_callback(lambda _: result.wake.set())
        try:
            while not (task.done() and (result.has_ended or task.exception() is not None)):
                if (taken := result.take()) is None:
                    await result.wake.wait()
                else:
                    elements, edge = taken
                    give(elements)
                    # The next list gets the memory of this one, which the processor has at hand.
                    del taken, elements
                    edge.ask(1)
        finally:
            await end_task(task)
        return task.result()

    def report(self) -> FlowReport:
        """Returns what was done so far."""
        return self._reported(self._summed())

    def _reported(self, done: HostReport) -> FlowReport:
        return FlowReport(
            done.elements_in,
            self.result.taken,
            done.late,
            done.ahead,
            done.skipped,
            done.errors,
            self._clock.monotonic() - self._started_at,
            done.sent_bytes,
            tuple(done.stages.values()),
        )

    def _summed(self) -> HostReport:
        here = () if self._hosted is None else (self._hosted.report(),)
        return summed([*here, *(() if self._workers is None else self._workers.heard.reports.values())])


def _warn_of_lost(count: int) -> None:
    from broadway_py.log import logger  # noqa: PLC0415  # it loads what most flows do not need

    logger("broadway_py.flow").warning(
        "elements were left out, because they were late for their windows, or too far ahead of the clock: "
        "see on_late, and the window's delay, lateness and max_ahead",
        elements=count,
    )


def _warn_of_error(error: BaseException) -> None:
    from broadway_py.log import logger  # noqa: PLC0415  # as above

    logger("broadway_py.flow").warning("a flow has failed while it was ended", error=str(error))


async def end_task(task: asyncio.Task[Any]) -> None:
    """Ends *task* and waits for it, also if this call is cancelled meanwhile. What it raises then is logged."""
    cancelled: asyncio.CancelledError | None = None
    must_end = task.cancel()
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as again:
            cancelled = again
            task.cancel()
    error = None if task.cancelled() else task.exception()
    if must_end and error is not None:
        _warn_of_error(error)
    if cancelled is not None:
        raise cancelled
