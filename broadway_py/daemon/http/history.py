"""Keeps the figures of the last 30 minutes for the charts of the live page, in memory that does not grow."""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Any, Final

from broadway_py.daemon.http.view import View
from broadway_py.error_text import name_of
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.pipeline.stats import Distribution, PipelineStats, add_distributions

__all__ = ["EVERY_S", "FIGURES", "History", "quantile", "record"]

log = logger("broadway_py.daemon")

#: The seconds between two points, and how many are kept: half an hour.
EVERY_S: Final = 5.0
_MOST: Final = 360

#: The figures of a point: messages that were settled and that failed, for each second; in flight; the age at which half
#: and 99 % of the settled messages were settled; messages that wait in the sources.
FIGURES: Final = ("settled", "failed", "in_flight", "p50", "p99", "depth")
_WIDTH: Final = 1 + len(FIGURES)
#: A point that has no such figure.
_NONE: Final = math.nan


@dataclass(frozen=True, slots=True)
class _Counters:
    """What was counted until the last point."""

    at: float
    settled: int
    failed: int
    latency: Distribution | None


class History:
    """The points of each pipeline. A pipeline that is gone takes its points with it."""

    def __init__(self) -> None:
        #: When this history began, in seconds since 1970. It tells one process from the next.
        self.began = time.time()
        # The rows of each pipeline, one after the other: its time, then the figures.
        self._rows: dict[str, array[float]] = {}
        self._counters: dict[str, _Counters] = {}

    def add(self, pipelines: Sequence[PipelineStats], *, now: float, wall: float) -> None:
        """Adds one point for each of *pipelines*. The first point of a pipeline has no rates.

        Args:
            pipelines: the snapshots.
            now: monotonic seconds.
            wall: the same moment in seconds since 1970.
        """
        rows, counters = self._rows, self._counters
        self._rows = {one.name: rows.get(one.name, array("d")) for one in pipelines}
        self._counters = {one.name: _counters_of(one, now) for one in pipelines}
        for one in pipelines:
            kept = self._rows[one.name]
            kept.extend(_row(one, counters.get(one.name), self._counters[one.name], round(wall, 3)))
            del kept[: max(0, len(kept) - _MOST * _WIDTH)]

    def told(self, since: float = 0.0) -> dict[str, Any]:
        """Returns the points that are newer than *since*, by pipeline and figure, as JSON can represent them."""
        return {
            "began": self.began,
            "every_seconds": EVERY_S,
            "pipelines": {name: _columns(rows, since) for name, rows in self._rows.items()},
        }


async def record(history: History, view: View) -> None:
    """Adds a point to *history* every few seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        try:
            await view.refresh()
            history.add(view.stats(), now=loop.time(), wall=time.time())
        except foreign_errors() as error:
            # The producer of a user may raise when it is asked for its state.
            log.warning("the history of the live page lacks a point", exception=name_of(error))
        # After a blocked loop, or while the machine slept, the missing points are left out.
        due = max(due + EVERY_S, loop.time())
        await asyncio.sleep(due - loop.time())


def quantile(distribution: Distribution, part: float) -> float | None:
    """Returns the value below which *part* of the values are, or None if there are none.

    The values of a bucket count as spread evenly over it. For those above all bounds it is the highest bound.
    """
    wanted = distribution.count * part
    if not distribution.count:
        return None
    reached = accumulate(distribution.counts)
    for bound_below, bound, count, until in zip(
        (0.0, *distribution.bounds), distribution.bounds, distribution.counts, reached, strict=False
    ):
        if count and until >= wanted:
            return bound_below + (bound - bound_below) * (1.0 - (until - wanted) / count)
    return distribution.bounds[-1]


def _counters_of(one: PipelineStats, now: float) -> _Counters:
    latencies = [producer.latency for producer in one.producers]
    return _Counters(
        at=now,
        settled=sum(sum(producer.outcomes.values()) for producer in one.producers),
        failed=sum(sum(stage.failed.values()) for stage in one.stages),
        latency=reduce(add_distributions, latencies) if latencies else None,
    )


def _row(one: PipelineStats, before: _Counters | None, counters: _Counters, wall: float) -> Sequence[float]:
    in_flight = float(sum(producer.in_flight for producer in one.producers))
    ready = [producer.source.ready for producer in one.producers if producer.source is not None]
    known = [number for number in ready if number is not None]
    depth = float(sum(known)) if known else _NONE
    if before is None or counters.at <= before.at or counters.settled < before.settled:
        # There is no earlier point, or the pipeline was started anew and counts from zero.
        return wall, _NONE, _NONE, in_flight, _NONE, _NONE, depth
    seconds = counters.at - before.at
    latency = _since(before.latency, counters.latency)
    return (
        wall,
        (counters.settled - before.settled) / seconds,
        max(0, counters.failed - before.failed) / seconds,
        in_flight,
        _NONE if latency is None else _or_none(quantile(latency, 0.5)),
        _NONE if latency is None else _or_none(quantile(latency, 0.99)),
        depth,
    )


def _since(before: Distribution | None, now: Distribution | None) -> Distribution | None:
    if before is None or now is None or before.bounds != now.bounds:
        return now
    # A producer that is gone takes its counts with it.
    counts = tuple(max(0, new - old) for old, new in zip(before.counts, now.counts, strict=True))
    return Distribution(now.bounds, counts, max(0.0, now.total - before.total))


def _or_none(value: float | None) -> float:
    return _NONE if value is None else value


def _columns(rows: array[float], since: float) -> Mapping[str, Sequence[float | None]]:
    times = rows[::_WIDTH]
    first = next((number for number, at in enumerate(times) if at > since), len(times))
    told = {"time": [*times[first:]]}
    columns = {name: [*map(_json, rows[place::_WIDTH][first:])] for place, name in enumerate(FIGURES, start=1)}
    return {**told, **columns}


def _json(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")
