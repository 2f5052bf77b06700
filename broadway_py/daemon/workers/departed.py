"""The figures of workers that are gone. Counters never go down when a worker ends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.core import Metric

from broadway_py.daemon.pipelines.merged_stats import merge_stats, retire
from broadway_py.daemon.workers.merge_metrics import depart_metrics, merge_metrics
from broadway_py.daemon.workers.messages import Report
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineState, PipelineStats

__all__ = ["Departed"]


class Departed:
    """What is kept of workers that are gone. It begins with zeros, so that every series exists from the start.

    Args:
        pipelines: the pipelines that the workers run.
    """

    def __init__(self, pipelines: Iterable[Pipeline[Any]]) -> None:
        self._stats: dict[str, PipelineStats] = {}
        #: The users' own metrics that only grow.
        self.metrics: list[Metric] = []
        self.expect(pipelines)

    def expect(self, pipelines: Iterable[Pipeline[Any]]) -> None:
        """Begins with zeros for those *pipelines* that are new. What was counted under a name before goes on."""
        for pipeline in pipelines:
            self._stats.setdefault(pipeline.name, retire(pipeline.stats(), state="starting"))

    def of(self, name: str) -> PipelineStats:
        """Returns what is kept of the pipeline *name*."""
        return self._stats[name]

    def add(self, last: Report, *, state: PipelineState) -> None:
        """Adds the last report of a worker. *state* is that of its pipelines from now on."""
        for name, stats in last.pipelines.items():
            kept = [self._stats[name]] if name in self._stats else []
            self._stats[name] = merge_stats([], [retire(stats, state=state), *kept])
        self.metrics = merge_metrics([self.metrics, depart_metrics(last.metrics)])
