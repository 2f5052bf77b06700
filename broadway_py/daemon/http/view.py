"""Gives the HTTP port its data and carries out its commands, for pipelines in this process or in workers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py.daemon.logs.logs import dropped_lines
from broadway_py.daemon.pipelines.changes import BEFORE, Change, apply
from broadway_py.daemon.pipelines.owners import Owners, owners_of
from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.pipelines.shown_settings import shown_settings
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.reload.outcome import Reloaded, ReloadStatus
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.daemon.settings.settings import Settings
from broadway_py.errors import PipelineNotRunning
from broadway_py.metrics import log_metrics, pipeline_metrics, process_metrics, reload_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["LocalView", "Replaying", "Told", "View", "WorkerPhase", "WorkerState"]


@dataclass(frozen=True, slots=True)
class Told:
    """The workers that have carried out a command, and those that have not. A single process is worker 0."""

    heard: Sequence[int]
    #: The reason of each worker that has not.
    not_heard: Mapping[int, str] = field(default_factory=dict)


#: "silent": it runs and does not answer. "away": it does not run and is started again. "ended": its sources have ended,
#: so it does not run again.
WorkerPhase = Literal["starting", "running", "silent", "away", "ended"]


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One worker. A single process is worker 0."""

    index: int
    #: None while it does not run.
    pid: int | None
    state: WorkerPhase
    #: When it was started, or when it was last heard of if it does not run; in seconds since 1970.
    since: float
    #: How often it was started again.
    restarts: int
    #: Why it is silent or away.
    reason: str | None
    #: By pipeline: the share of the last seconds for which each of its processors was busy.
    processors_busy: Mapping[str, Sequence[float]]


class View(Protocol):
    """The data and commands of the HTTP port. All methods are called in the event loop."""

    async def refresh(self) -> None:
        """Updates the data of the other methods, within a fraction of a second."""

    def stats(self) -> Sequence[PipelineStats]:
        """Returns one snapshot per pipeline."""

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the stages of each pipeline."""

    def owners(self) -> Owners:
        """Returns which worker owns which partitions, of each pipeline whose sources are parted."""

    def workers(self) -> Sequence[WorkerState]:
        """Returns the state of each worker."""

    def settings(self) -> Mapping[str, Any]:
        """Returns all settings as they hold, without secrets, as JSON can represent them."""

    def metrics(self) -> Iterator[Metric]:
        """Yields all metrics for a scrape, including the users' own."""

    def not_alive(self) -> Sequence[str]:
        """Returns why the process should be restarted. It is empty if it should not."""

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """Returns, by pipeline, why it is not ready. The list of a pipeline is empty if it is ready."""

    async def pause(self, pipeline: str) -> Told:
        """Pauses *pipeline* in every process, within a deadline."""

    async def resume(self, pipeline: str) -> Told:
        """Resumes *pipeline* in every process, within a deadline."""

    def reload_status(self) -> ReloadStatus:
        """Returns what is known of the reloads so far."""

    async def reload_and_wait(self) -> Reloaded:
        """Reads the settings again, and applies what has changed. Returns when that is done."""

    async def change(self, pipeline: str, change: Change) -> Told:
        """Changes *pipeline* in every process, within a deadline.

        Raises:
            OptionsError: it cannot be changed in this way. Nothing is changed.
        """


class Replaying(Protocol):
    """Puts dead letters back."""

    async def replay(self, pipeline: str, producer: str | None, most: int) -> tuple[int, str | None]:
        """Puts back at most *most* dead letters of *pipeline*. Returns how many, and why others could not be.

        Raises:
            OptionsError: its dead letters cannot be put back from here.
        """


class LocalView:
    """The view of the pipelines of this process.

    Args:
        pipelines: the pipelines to show, or the roster that names them at each moment. The view notes in it which of
            them must be paused.
        lag: the meter of their event loop.
        reloads: the turns of the reloads.
        settings: returns the settings that hold now; None: the pipelines come from a program.
    """

    def __init__(
        self,
        pipelines: Iterable[Pipeline[Any]] | Roster,
        lag: LagMeter,
        reloads: ReloadTurns | None = None,
        settings: Callable[[], Settings] | None = None,
    ) -> None:
        #: The pipelines.
        self.roster = pipelines if isinstance(pipelines, Roster) else Roster(pipelines)
        self._paused = self.roster.paused
        self._pipelines = self.roster.pipelines
        self._lag = lag
        self._reloads = ReloadTurns() if reloads is None else reloads
        self._settings = settings
        self._started_at = time.time()

    @property
    def lag_seconds(self) -> float:
        """How late the event loop is, in seconds."""
        return self._lag.seconds

    async def refresh(self) -> None:
        """Does nothing: snapshots are taken when they are asked for."""

    def stats(self) -> Sequence[PipelineStats]:
        """Returns one snapshot per pipeline, taken now."""
        return self.roster.stats()

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the stages of each pipeline."""
        return {name: pipeline.topology() for name, pipeline in self._pipelines.items()}

    def owners(self) -> Owners:
        """Returns the partitions that this process owns, as those of worker 0."""
        return owners_of(self._pipelines.values(), 1)

    def workers(self) -> Sequence[WorkerState]:
        """Returns this process as worker 0."""
        busy = {one.name: one.processors_busy for one in self.stats()}
        return [WorkerState(0, os.getpid(), "running", self._started_at, 0, None, busy)]

    def settings(self) -> Mapping[str, Any]:
        """Returns the settings of the pipelines, and of the process if they come from a file."""
        return shown_settings(self._pipelines.values(), None if self._settings is None else self._settings())

    def metrics(self) -> Iterator[Metric]:
        """Yields our metrics, then everything in the default registry."""
        yield from pipeline_metrics(self.stats())
        yield from process_metrics({"0": self._lag.seconds}, 0)
        reloads = self.reload_status()
        yield from reload_metrics(reloads.counts, is_running=reloads.is_running)
        yield from log_metrics(dropped_lines())
        yield from REGISTRY.collect()

    def not_alive(self) -> Sequence[str]:
        """Returns nothing: that this runs shows that the loop answers."""
        return []

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """Returns, by pipeline, why it is not ready."""
        return self.roster.not_ready()

    async def pause(self, pipeline: str) -> Told:
        """Pauses *pipeline*. A pipeline that is starting will start paused."""
        self._paused.add(pipeline)
        return await self._carry_out(pipeline, is_pause=True)

    async def resume(self, pipeline: str) -> Told:
        """Resumes *pipeline*."""
        self._paused.discard(pipeline)
        return await self._carry_out(pipeline, is_pause=False)

    def reload_status(self) -> ReloadStatus:
        """Returns what is known of the reloads so far."""
        return self._reloads.status

    async def reload_and_wait(self) -> Reloaded:
        """Reads the settings again, and applies what has changed."""
        return await asyncio.shield(self._reloads.ask())

    async def change(self, pipeline: str, change: Change) -> Told:
        """Changes *pipeline*. One that is starting will start with the new value.

        Raises:
            OptionsError: it cannot be changed in this way.
        """
        if pipeline not in self._pipelines:
            return _REMOVED
        try:
            apply(self._pipelines[pipeline], change)
        except PipelineNotRunning as refused:
            return Told((), {0: str(refused)})
        return Told((0,))

    async def _carry_out(self, name: str, *, is_pause: bool) -> Told:
        if name not in self._pipelines:
            return _REMOVED
        pipeline = self._pipelines[name]
        # The code that starts it reads whether it must be paused.
        if pipeline.phase not in BEFORE:
            try:
                await (pipeline.pause() if is_pause else pipeline.resume())
            except PipelineNotRunning as refused:
                return Told((), {0: str(refused)})
        return Told((0,))


# A reload may remove a pipeline while a supervisor's command for it is on its way.
_REMOVED: Final = Told((), {0: "it does not have this pipeline"})
