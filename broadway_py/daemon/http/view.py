"""Gives the HTTP port its data and carries out its commands, for pipelines in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py.daemon.logs.logs import dropped_lines
from broadway_py.daemon.pipelines.owners import Owners, owners_of
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.errors import PipelineNotRunning
from broadway_py.metrics import log_metrics, pipeline_metrics, process_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["LocalView", "Told", "View"]


@dataclass(frozen=True, slots=True)
class Told:
    """The workers that have carried out a command, and those that have not. A single process is worker 0."""

    heard: Sequence[int]
    #: The reason of each worker that has not.
    not_heard: Mapping[int, str] = field(default_factory=dict)


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


class LocalView:
    """The view of the pipelines of this process.

    Args:
        pipelines: the pipelines to show.
        lag: the meter of their event loop.
        paused: names of the pipelines that must be paused as soon as they run. The view updates it for the code that
            starts them.
    """

    def __init__(
        self, pipelines: Iterable[Pipeline[Any]], lag: LagMeter, paused: MutableSet[str] | None = None
    ) -> None:
        self._paused = set() if paused is None else paused
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._owners = owners_of(self._pipelines.values(), 1)
        self._lag = lag

    @property
    def lag_seconds(self) -> float:
        """How late the event loop is, in seconds."""
        return self._lag.seconds

    async def refresh(self) -> None:
        """Does nothing: snapshots are taken when they are asked for."""

    def stats(self) -> Sequence[PipelineStats]:
        """Returns one snapshot per pipeline, taken now."""
        return [pipeline.stats() for pipeline in self._pipelines.values()]

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the stages of each pipeline."""
        return {name: pipeline.topology() for name, pipeline in self._pipelines.items()}

    def owners(self) -> Owners:
        """Returns the partitions that this process owns, as those of worker 0."""
        return self._owners

    def metrics(self) -> Iterator[Metric]:
        """Yields our metrics, then everything in the default registry."""
        yield from pipeline_metrics(self.stats())
        yield from process_metrics({"0": self._lag.seconds}, 0)
        yield from log_metrics(dropped_lines())
        yield from REGISTRY.collect()

    def not_alive(self) -> Sequence[str]:
        """Returns nothing: that this runs shows that the loop answers."""
        return []

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """Returns, by pipeline, why it is not ready."""
        return {one.name: [one.trouble] if one.trouble is not None else [] for one in self.stats()}

    async def pause(self, pipeline: str) -> Told:
        """Pauses *pipeline*. A pipeline that is starting will start paused."""
        self._paused.add(pipeline)
        return await self._carry_out(pipeline, is_pause=True)

    async def resume(self, pipeline: str) -> Told:
        """Resumes *pipeline*."""
        self._paused.discard(pipeline)
        return await self._carry_out(pipeline, is_pause=False)

    async def _carry_out(self, name: str, *, is_pause: bool) -> Told:
        pipeline = self._pipelines[name]
        if pipeline.phase not in _BEFORE:
            try:
                await (pipeline.pause() if is_pause else pipeline.resume())
            except PipelineNotRunning as refused:
                return Told((), {0: str(refused)})
        return Told((0,))


# States of a pipeline whose sources are not open yet. The code that starts it reads whether it must be paused.
_BEFORE: Final = ("new", "starting")
