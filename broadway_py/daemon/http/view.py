"""Gives the HTTP port its data and carries out its commands, for pipelines in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py.daemon.logs.logs import dropped_lines
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.errors import PipelineNotRunning
from broadway_py.metrics import log_metrics, pipeline_metrics, process_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["LocalView", "Told", "View"]


@dataclass(frozen=True, slots=True)
class Told:
    """Which workers have carried out what they were asked for; one process alone is worker 0."""

    heard: Sequence[int]
    #: Why each of the others has not.
    not_heard: Mapping[int, str] = field(default_factory=dict)


class View(Protocol):
    """The daemon as seen from its HTTP port. All methods are called in the event loop."""

    async def refresh(self) -> None:
        """Make what follows up to date, within a fraction of a second."""

    def stats(self) -> Sequence[PipelineStats]:
        """One snapshot per pipeline."""

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """The stages of each pipeline."""

    def metrics(self) -> Iterator[Metric]:
        """Everything for a scrape, users' own metrics included."""

    def not_alive(self) -> Sequence[str]:
        """Why the process should be restarted; empty when it should not."""

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """By pipeline, why it is not ready; empty when it is."""

    async def pause(self, pipeline: str) -> Told:
        """Pause it, in every process, within a deadline."""

    async def resume(self, pipeline: str) -> Told:
        """Resume it, in every process, within a deadline."""


class LocalView:
    """Pipelines of this process.

    Args:
        pipelines: what is shown.
        lag: of their event loop.
        paused: names of those that are to be paused as soon as they run; kept up to date for whoever starts them.
    """

    def __init__(
        self, pipelines: Iterable[Pipeline[Any]], lag: LagMeter, paused: MutableSet[str] | None = None
    ) -> None:
        self._paused = set() if paused is None else paused
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._lag = lag

    @property
    def lag_seconds(self) -> float:
        """How late the event loop is."""
        return self._lag.seconds

    async def refresh(self) -> None:
        """Nothing to do: snapshots are taken when asked for."""

    def stats(self) -> Sequence[PipelineStats]:
        """One snapshot per pipeline, taken now."""
        return [pipeline.stats() for pipeline in self._pipelines.values()]

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """The stages of each pipeline."""
        return {name: pipeline.topology() for name, pipeline in self._pipelines.items()}

    def metrics(self) -> Iterator[Metric]:
        """Ours, then everything in the default registry."""
        yield from pipeline_metrics(self.stats())
        yield from process_metrics({"0": self._lag.seconds}, 0)
        yield from log_metrics(dropped_lines())
        yield from REGISTRY.collect()

    def not_alive(self) -> Sequence[str]:
        """Nothing: that this runs shows that the loop answers."""
        return []

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """By pipeline, why it is not ready."""
        return {one.name: [one.trouble] if one.trouble is not None else [] for one in self.stats()}

    async def pause(self, pipeline: str) -> Told:
        """Pause it; one that is starting begins paused."""
        self._paused.add(pipeline)
        return await self._carry_out(pipeline, is_pause=True)

    async def resume(self, pipeline: str) -> Told:
        """Resume it."""
        self._paused.discard(pipeline)
        return await self._carry_out(pipeline, is_pause=False)

    async def _carry_out(self, name: str, *, is_pause: bool) -> Told:
        pipeline = self._pipelines[name]
        if pipeline.state not in _BEFORE:
            try:
                await (pipeline.pause() if is_pause else pipeline.resume())
            except PipelineNotRunning as refused:
                return Told((), {0: str(refused)})
        return Told((0,))


# States of a pipeline whose sources are not open yet: whoever starts it looks at what was wished for.
_BEFORE: Final = ("new", "starting")
