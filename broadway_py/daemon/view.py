"""What the HTTP port shows and does, whether the pipelines run in this process or in workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py.daemon.lag import LagMeter
from broadway_py.metrics import pipeline_metrics, process_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["LocalView", "View"]


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

    async def pause(self, pipeline: str) -> None:
        """Pause it, in every process."""

    async def resume(self, pipeline: str) -> None:
        """Resume it, in every process."""


class LocalView:
    """Pipelines of this process."""

    def __init__(self, pipelines: Iterable[Pipeline[Any]], lag: LagMeter) -> None:
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
        yield from REGISTRY.collect()

    def not_alive(self) -> Sequence[str]:
        """Nothing: that this runs shows that the loop answers."""
        return []

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """By pipeline, why it is not ready."""
        return {one.name: [one.trouble] if one.trouble is not None else [] for one in self.stats()}

    async def pause(self, pipeline: str) -> None:
        """Pause it."""
        await self._pipelines[pipeline].pause()

    async def resume(self, pipeline: str) -> None:
        """Resume it."""
        await self._pipelines[pipeline].resume()
