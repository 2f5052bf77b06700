"""Runs several worker processes as one: starts, restarts, asks and drains them under one deadline."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py.daemon.dead_letters.replays import Replays
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import Told, WorkerPhase, WorkerState
from broadway_py.daemon.logs.logs import dropped_lines
from broadway_py.daemon.pipelines.changes import Change, RateChange
from broadway_py.daemon.pipelines.merged_stats import merge_stats
from broadway_py.daemon.pipelines.owners import Owners, owners_of, partitions_text
from broadway_py.daemon.pipelines.shown_settings import shown_settings
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.process.service_manager import service_manager, status_of
from broadway_py.daemon.reload.outcome import Reloaded, ReloadStatus
from broadway_py.daemon.reload.resolved import Resolved
from broadway_py.daemon.workers.departed import Departed
from broadway_py.daemon.workers.fleet import Fleet
from broadway_py.daemon.workers.merge_metrics import label_worker, merge_metrics, speaks_of_process
from broadway_py.daemon.workers.messages import Assignment, Command, Control
from broadway_py.daemon.workers.rollout import Workers
from broadway_py.daemon.workers.shared_changes import SharedChanges
from broadway_py.daemon.workers.worker_handle import WorkerHandle
from broadway_py.log import ALL, logger
from broadway_py.metrics import log_metrics, pipeline_metrics, process_metrics, reload_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.runtime.topology import topology_of
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["GRACE", "Supervisor"]

log = logger("broadway_py.daemon")

#: Seconds after the deadline at which the supervisor itself ends. Workers end or are killed before that.
GRACE: Final = 1.8

# In seconds: how long a scrape waits for new numbers, and how long a command may take.
_FRESH: Final = 0.3
_CARRIED_OUT: Final = 10.0
# Seconds of silence after which a scrape does not wait for a worker any more. Each worker reports every second.
_LATE: Final = 2.5
# How a worker starts after a control.
_STARTS: Final[Mapping[Control, str]] = {"pause": "paused", "resume": "running"}


class Supervisor(Fleet):
    """The body of a process whose pipelines run in workers. It is also the view for the HTTP port.

    Args:
        settings: the checked settings.
        pipelines: built from *settings* and never started. Only their names, stages and timeouts are used.
        rollout: carries out a reload.
    """

    def __init__(
        self, settings: Resolved, pipelines: Sequence[Pipeline[Any]], rollout: Callable[[Workers], Awaitable[Reloaded]]
    ) -> None:
        self._settings = settings.settings
        super().__init__(settings)
        self._rollout = rollout
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._owners = owners_of(pipelines, self._count)
        # The pipelines that a reload changes.
        self._reloading: set[str] = set()
        self._paused: set[str] = set()
        self._changes = SharedChanges(pipelines, self._count)
        self._lag = LagMeter()
        self._gone = Departed(pipelines)

    @property
    def shutdown_timeout(self) -> float:
        """The longest timeout of the pipelines."""
        return max(pipeline.shutdown_timeout for pipeline in list(self._pipelines.values()))

    async def run(self) -> int:
        """Keeps the workers running until all have ended by themselves or on request. Returns the worst exit code.

        Raises:
            OptionsError: a worker or the HTTP port found a setting that is wrong. No worker runs any more.
        """
        self._lag.start()
        try:
            async with AsyncExitStack() as stack:
                # A worker that does not answer is restarted together with the others, as /livez asks for.
                stack.enter_context(
                    service_manager().watchdog(lambda: status_of(self.stats()), lambda: not self.not_alive())
                )
                if self._settings.http is not None:
                    await stack.enter_async_context(serve(self._settings.http, self, Replays(lambda: self._settings)))
                async with asyncio.TaskGroup() as self._tasks:
                    for index in range(self._count):
                        self._spawn(index)
                    self._reloads.begin(lambda: self._rollout(self), self._tasks.create_task)
        finally:
            self._reloads.end()
            self._lag.stop()
            for handle in self._handles.values():
                handle.kill()
            self._verdicts.close()
        if self._wrong is not None:
            raise self._wrong
        return self._code

    def reload(self) -> None:
        """Reads the settings again, and applies what has changed."""
        self._reloads.ask()

    def reload_status(self) -> ReloadStatus:
        """Returns what is known of the reloads so far."""
        return self._reloads.status

    def log_state(self) -> None:
        """Logs one line per worker and per pipeline. The workers add their own lines."""
        for index, handle in self._handles.items():
            log.warning("state: worker", index=index, pid=handle.pid, **{ALL: True})
        for one in self.stats():
            log.warning("state: pipeline", pipeline=one.name, stats=repr(one), **{ALL: True})
        self._ask_all("dump")

    # --- what workers get and leave

    def _assignment(self, index: int) -> Assignment:
        return Assignment(
            settings=self._settings_of[index],
            index=index,
            paused=frozenset(self._paused),
            search_path=tuple(sys.path),
            changes=self._changes.of(index),
        )

    def _keep_numbers(self, handle: WorkerHandle, *, restarts: bool) -> None:
        if handle.report is None:
            return
        self._gone.add(handle.report, state="starting" if restarts and not self.stopping.is_set() else "stopped")

    # --- for reloads

    def expect(self, pipelines: Sequence[Pipeline[Any]], changed: Sequence[str], workers: int) -> None:
        """From now on, workers may run these *pipelines*, besides those of before."""
        self._pipelines.update({pipeline.name: pipeline for pipeline in pipelines})
        self._gone.expect(pipelines)
        self._changes.reload(pipelines, changed, workers)
        self._verdicts.grow(workers)
        self._reloading.update(changed)

    def settle(self, pipelines: Sequence[Pipeline[Any]], workers: int) -> None:
        """From now on, there are these pipelines, and no others, and so many workers."""
        self._reloading.clear()
        self._settings = self._settings_of[0].settings
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._owners = owners_of(pipelines, workers)
        self._paused.intersection_update(self._pipelines)

    # --- what the HTTP port shows and does

    async def refresh(self) -> None:
        """Asks every worker for a report. A report that does not come in time is at most a second old.

        A silent worker is not waited for.
        """
        number = next(self._numbers)
        for handle in self._handles.values():
            handle.ask_for_report(number)
        await self._until(lambda handle: handle.has_reported(number) or self._silence(handle) > _LATE, _FRESH)

    def stats(self) -> Sequence[PipelineStats]:
        """Returns one merged snapshot per pipeline."""
        return [
            merge_stats(
                [
                    handle.report.pipelines[name]
                    for handle in self._handles.values()
                    if handle.report and name in handle.report.pipelines
                ],
                [self._gone.of(name)],
            )
            for name in self._pipelines
        ]

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the stages of each pipeline as a worker has them, with the readers of all workers."""
        return {
            name: topology_of(
                name,
                pipeline._sources.producers_of_daemon,
                pipeline.processors,
                pipeline.batchers,
                aggregators=pipeline.aggregators,
                publishers=pipeline.publishers,
            )
            for name, pipeline in self._pipelines.items()
        }

    def owners(self) -> Owners:
        """Returns which worker owns which partitions, of each pipeline whose sources are parted."""
        return self._owners

    def workers(self) -> Sequence[WorkerState]:
        """Returns the state of each worker, also of those that do not run."""
        return [self._state_of(index) for index in range(self._count)]

    def _state_of(self, index: int) -> WorkerState:
        loop_time, handle, reason = asyncio.get_running_loop().time(), self._handles.get(index), None
        state: WorkerPhase = "starting"
        since = self._last_words.get(index, loop_time)
        if handle is not None:
            since = handle.started_at
            if self._is_silent(handle):
                state, reason = "silent", f"it has not answered for {self._silence(handle):.0f} s"
            elif handle.report is not None:
                state = "running"
        elif index in self._ended:
            state = "ended"
        elif index in self._absent:
            state, reason = "away", self._absent[index]
        pipelines = {} if handle is None or handle.report is None else handle.report.pipelines
        return WorkerState(
            index=index,
            pid=None if handle is None else handle.pid,
            state=state,
            since=time.time() - (loop_time - since),
            restarts=self._restarts[index],
            reason=reason,
            processors_busy={name: one.processors_busy for name, one in pipelines.items()},
        )

    def settings(self) -> Mapping[str, Any]:
        """Returns the settings of the process and of the pipelines."""
        return shown_settings(self._pipelines.values(), self._settings)

    def metrics(self) -> Iterator[Metric]:
        """Yields our metrics, then the workers' default registries added up, with a label on metrics of one process."""
        reports = {str(index): handle.report for index, handle in self._handles.items() if handle.report is not None}
        yield from pipeline_metrics(self.stats())
        lags = {"supervisor": self._lag.seconds, **{index: one.lag_seconds for index, one in reports.items()}}
        yield from process_metrics(lags, self._restarts.total(), self._silences())
        reloads = self.reload_status()
        yield from reload_metrics(reloads.counts, is_running=reloads.is_running)
        own = [label_worker(family, "supervisor") for family in REGISTRY.collect() if speaks_of_process(family)]
        own += log_metrics(dropped_lines())
        theirs = [[label_worker(family, index) for family in one.metrics] for index, one in reports.items()]
        yield from merge_metrics([own, self._gone.metrics, *theirs])

    def _silences(self) -> dict[str, float]:
        """Returns the seconds since each worker was heard of, without workers whose sources have ended."""
        now = asyncio.get_running_loop().time()
        heard = {**self._last_words, **{index: handle.heard_at for index, handle in self._handles.items()}}
        return {str(index): now - heard[index] for index in sorted(heard) if index not in self._ended}

    def not_alive(self) -> Sequence[str]:
        """Returns the workers that are silent for ten seconds, or for sixty if they have sent no report yet."""
        return [
            f"worker {index} has not answered for {self._silence(handle):.0f} s"
            for index, handle in self._handles.items()
            if self._is_silent(handle)
        ]

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """Returns, by pipeline, the reasons of each worker that is not ready."""
        return {name: [*self._reasons(name)] for name in self._pipelines}

    def _reasons(self, name: str) -> Iterator[str]:
        for index in range(self._count):
            handle = self._handles.get(index)
            worker = f"worker {index}"
            if name in self._owners:
                # Nobody else takes them over.
                worker += f" ({partitions_text(self._owners[name][index])})"
            if handle is None and index in self._absent:
                yield f"{worker}: {self._absent[index]}"
            elif handle is not None and self._is_silent(handle):
                yield f"{worker}: it has not answered for {self._silence(handle):.0f} s"
            elif handle is None or handle.report is None:
                yield f"{worker}: {self._gone.of(name).state}"
            elif (stats := handle.report.pipelines.get(name)) is None:
                yield f"{worker}: {'reloading' if name in self._reloading else 'it does not have this pipeline'}"
            elif stats.trouble is not None:
                yield f"{worker}: {'reloading: ' if name in self._reloading else ''}{stats.trouble}"

    async def pause(self, pipeline: str) -> Told:
        """Pauses *pipeline* in every worker, also in those that start later."""
        self._paused.add(pipeline)
        return await self._carry_out("pause", pipeline)

    async def resume(self, pipeline: str) -> Told:
        """Resumes *pipeline* in every worker."""
        self._paused.discard(pipeline)
        return await self._carry_out("resume", pipeline)

    async def reload_and_wait(self) -> Reloaded:
        """Reads the settings again, and applies what has changed. Returns when that is done."""
        return await asyncio.shield(self._reloads.ask())

    async def change(self, pipeline: str, change: Change) -> Told:
        """Changes *pipeline* in every worker, also in those that start later.

        Raises:
            OptionsError: it cannot be changed in this way. Nothing is changed.
        """
        share = self._changes.note(pipeline, change)
        return await self._carry_out("rate_limit" if isinstance(change, RateChange) else "concurrency", pipeline, share)

    async def _carry_out(
        self, act: Control, pipeline: str, share: Callable[[int], Change | None] = lambda _index: None
    ) -> Told:
        number = next(self._numbers)
        handles = dict(self._handles)
        for index, handle in handles.items():
            handle.control(Command(act, number, pipeline, share(index)))
        await self._until(lambda handle: handle.has_answered(number) or self._is_silent(handle), _CARRIED_OUT)
        not_heard: dict[int, str] = {}
        for index in range(self._count):
            reason = None if index in self._ended else self._why_not(handles.get(index), number, act)
            if reason is not None:
                not_heard[index] = reason
        await self.refresh()
        return Told([index for index in range(self._count) if index not in not_heard], not_heard)

    def _why_not(self, handle: WorkerHandle | None, number: int, act: Control) -> str | None:
        """Returns why *handle* has not carried out the control of *number*, or None if it has."""
        will_start = f"it will start {_STARTS.get(act, 'with it')}"
        if handle is None:
            return f"it does not run now; {will_start}"
        if handle.has_answered(number):
            refusal = handle.refusal(number)
            return f"{refusal}; {will_start}" if refusal is not None and handle.has_ended else refusal
        if handle.report is None:
            return "it is still starting; it will do so once it runs"
        return f"it has not answered for {self._silence(handle):.0f} s; it will do so once it answers"
