"""The points of the last 30 minutes that the live page draws."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest

from broadway_py.daemon.http import history as history_module
from broadway_py.daemon.http.history import EVERY_S, FIGURES, History, quantile, record
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.pipeline.stats import Distribution, PipelineStats, SourceStats
from tests.daemon.snapshots import pipeline, producer, stage
from tests.support.eventually import eventually


def points(history: History, name: str = "orders", since: float = 0.0) -> dict[str, Any]:
    told: dict[str, Any] = history.told(since)["pipelines"][name]
    return told


def test_a_point_has_the_rates_since_the_one_before_and_the_state_of_now() -> None:
    history = History()
    history.add([pipeline()], now=10.0, wall=1000.0)
    later = pipeline(
        producers=(
            producer(
                outcomes={"acked": 26, "rejected": 1}, latency=Distribution((0.1, 1.0), (14, 2, 1), 4.0), in_flight=8
            ),
        ),
        stages=(stage(failed={"raised": 5}), stage("emitter:x", failed={"raised": 2})),
    )
    history.add([later], now=14.0, wall=1004.0)
    assert points(history) == {
        "time": [1000.0, 1004.0],
        "settled": [None, 5.0],
        "failed": [None, 1.25],
        "in_flight": [3.0, 8.0],
        "p50": [None, 0.05],
        "p99": [None, 0.099],
        "depth": [None, None],
    }


def test_the_depth_is_that_of_all_sources_that_tell_it() -> None:
    history = History()
    sources = (
        SourceStats(ready=40, delayed=3, dead=1, age_seconds=1.0, trouble=None),
        SourceStats(ready=None, delayed=None, dead=None, age_seconds=0.0, trouble="access refused"),
        None,
        SourceStats(ready=2, delayed=None, dead=None, age_seconds=9.0, trouble=None),
    )
    history.add([pipeline(producers=tuple(producer(source=source) for source in sources))], now=0.0, wall=1000.0)
    assert points(history)["depth"] == [42.0]


def test_only_newer_points_are_told() -> None:
    history = History()
    for number in range(4):
        history.add([pipeline()], now=float(number), wall=1000.0 + number)
    assert points(history, since=1001.0)["time"] == [1002.0, 1003.0]
    assert points(history, since=2000.0) == {"time": [], **{name: [] for name in FIGURES}}


def test_half_an_hour_is_kept_and_no_more() -> None:
    history = History()
    for number in range(1000):
        history.add([pipeline()], now=number * EVERY_S, wall=(number + 1) * EVERY_S)
    kept = points(history)["time"]
    assert (kept[-1] - kept[0] + EVERY_S, len(kept)) == (1800.0, 360)
    assert len(history._rows["orders"]) == 360 * 7


def test_a_pipeline_that_counts_from_zero_again_has_no_rates_at_that_point() -> None:
    history = History()
    history.add([pipeline()], now=0.0, wall=1000.0)
    history.add([pipeline(producers=(producer(outcomes={"acked": 1}),))], now=5.0, wall=1005.0)
    assert points(history)["settled"] == [None, None]


def test_a_pipeline_that_is_gone_takes_its_points_with_it() -> None:
    history = History()
    history.add([pipeline("orders"), pipeline("refunds")], now=0.0, wall=1000.0)
    history.add([pipeline("refunds")], now=5.0, wall=1005.0)
    assert list(history.told()["pipelines"]) == ["refunds"]
    history.add([pipeline("orders")], now=10.0, wall=1010.0)
    assert points(history)["settled"] == [None]


def test_a_pipeline_that_has_not_started_has_points() -> None:
    history = History()
    for now in (0.0, 5.0):
        history.add([pipeline(producers=(), stages=())], now=now, wall=1000.0 + now)
    assert points(history)["settled"] == [None, 0.0]
    assert points(history)["p99"] == [None, None]


@pytest.mark.parametrize(
    ("counts", "part", "value"),
    [
        ((10, 0, 0), 0.5, 0.05),
        ((10, 0, 0), 1.0, 0.1),
        ((5, 5, 0), 0.75, 0.55),
        ((0, 4, 0), 0.5, 0.55),
        ((0, 0, 3), 0.5, 1.0),
        ((1, 0, 99), 0.99, 1.0),
    ],
)
def test_percentiles_are_interpolated_within_their_bucket(counts: tuple[int, ...], part: float, value: float) -> None:
    found = quantile(Distribution((0.1, 1.0), counts, 0.0), part)
    assert found is not None
    assert math.isclose(found, value)


def test_nothing_observed_has_no_percentile() -> None:
    assert quantile(Distribution((0.1, 1.0), (0, 0, 0), 0.0), 0.5) is None


class _Faulty(LocalView):
    """Raises when it is asked for the second time, as the producer of a user may."""

    def __init__(self) -> None:
        super().__init__([], LagMeter())
        self.asked = 0

    def stats(self) -> Sequence[PipelineStats]:
        self.asked += 1
        if self.asked == 2:
            raise SystemExit("of a user")
        return [pipeline()]


async def test_an_error_of_one_point_is_logged_and_the_next_ones_follow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(history_module, "EVERY_S", 0.01)
    history, view = History(), _Faulty()
    recording = asyncio.create_task(record(history, view))
    await eventually(lambda: view.asked > 4, what="it goes on")
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    assert len(points(history)["time"]) >= 3
    (line,) = caplog.records
    assert isinstance(line.msg, dict)
    assert line.msg["event"] == "the history of the live page lacks a point"
    assert line.msg["exception"] == "SystemExit"
