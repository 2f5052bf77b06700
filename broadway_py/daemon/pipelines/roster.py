"""The pipelines of one process by name, with the figures of those that a reload has replaced."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from broadway_py.daemon.pipelines.merged_stats import merge_stats, retire
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["Roster"]


class Roster:
    """Who runs, or will run, under each name.

    Counters never go down: what a pipeline has counted is kept when another one takes its name, also later.

    Args:
        pipelines: the first ones.
    """

    def __init__(self, pipelines: Iterable[Pipeline[Any]] = ()) -> None:
        #: By name. It changes with each reload.
        self.pipelines: dict[str, Pipeline[Any]] = {pipeline.name: pipeline for pipeline in pipelines}
        #: The names of pipelines that must be paused as soon as they run.
        self.paused: set[str] = set()
        #: The names of pipelines that a reload is about to replace, to start or to remove.
        self.reloading: set[str] = set()
        #: Why pipelines that a reload was to add do not run, by name.
        self.absent: dict[str, str] = {}
        self._kept: dict[str, PipelineStats] = {}

    def put(self, pipeline: Pipeline[Any]) -> None:
        """Puts *pipeline* in the place of the one of its name, if there is one, which must have ended."""
        self._retire(pipeline.name)
        self.absent.pop(pipeline.name, None)
        self.pipelines[pipeline.name] = pipeline

    def remove(self, name: str) -> None:
        """Removes the pipeline *name*, which must have ended."""
        self._retire(name)
        del self.pipelines[name]
        self.paused.discard(name)
        self.absent.pop(name, None)

    def stats(self) -> list[PipelineStats]:
        """Returns one snapshot for each pipeline, taken now, with what was counted under its name before."""
        return [self._with_kept(name, pipeline.stats()) for name, pipeline in self.pipelines.items()]

    def stats_of_all(self) -> list[PipelineStats]:
        """Returns what :meth:`stats` does, and what is kept of pipelines that were removed."""
        return [*self.stats(), *(kept for name, kept in self._kept.items() if name not in self.pipelines)]

    def not_ready(self) -> Mapping[str, list[str]]:
        """Returns, by pipeline, why it is not ready. The list of a pipeline is empty if it is ready."""
        return {one.name: self._reasons(one) for one in self.stats()}

    def _reasons(self, one: PipelineStats) -> list[str]:
        if one.name in self.absent:
            return [self.absent[one.name]]
        if one.trouble is None:
            return []
        return [f"reloading: {one.trouble}" if one.name in self.reloading else one.trouble]

    def _retire(self, name: str) -> None:
        if name in self.pipelines:
            self._kept[name] = self._with_kept(name, retire(self.pipelines[name].stats(), state="stopped"))

    def _with_kept(self, name: str, now: PipelineStats) -> PipelineStats:
        kept = self._kept.get(name)
        return now if kept is None else merge_stats([now], [kept])
