"""What telemetry hears of a run of a flow, in each runner."""

from __future__ import annotations

import asyncio
from itertools import count as endless
from typing import Any

import pytest

from broadway_py import telemetry
from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow, FlowReport
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.report import StageReport
from broadway_py.flow.running import run as flow_run
from broadway_py.testing import FakeClock
from tests.flow.each_runner import each_runner, each_runner_with_workers
from tests.flow.processes import works
from tests.flow.support import report_of
from tests.pipeline.support import telemetry_events

START, STOP, STAGE_STOP = "broadway.flow.start", "broadway.flow.stop", "broadway.flow.stage.stop"

Told = list[tuple[str, dict[str, Any], dict[str, Any]]]


def of(event: str, told: Told) -> list[dict[str, Any]]:
    return [metadata for each, _, metadata in told if each == event]


@each_runner
def test_a_run_tells_its_start_each_stage_and_its_end(runner: Any) -> None:
    flow: Flow[Any] = Flow.from_iterable(range(10), stages=1).map(works.same).partition(stages=2).map(works.same)

    with telemetry_events(START, STOP, STAGE_STOP) as told:
        report = report_of(flow.using(runner, workers=2))

    assert [event for event, _, _ in told] == [START, *[STAGE_STOP] * 3, STOP]
    (started,), (stopped,) = of(START, told), of(STOP, told)
    assert started == {
        "flow": started["flow"],
        "runner": runner,
        "layers": (("from_iterable", 1), ("partition 2", 2)),
    }
    stages = of(STAGE_STOP, told)
    assert sorted((each["layer"], each["index"]) for each in stages) == [
        ("from_iterable", 0),
        ("partition 2", 0),
        ("partition 2", 1),
    ]
    assert all(isinstance(each["report"], StageReport) for each in stages)
    assert max(each["report"].taken for each in stages) == 10
    assert {(each["flow"], each["runner"]) for each in [*stages, stopped]} == {(started["flow"], runner)}
    assert stopped["exception"] is None
    assert isinstance(stopped["report"], FlowReport)
    assert stopped["report"].stages == report.stages


def test_each_run_has_another_number() -> None:
    flow = Flow.from_iterable([1]).map(works.same)

    with telemetry_events(START) as told:
        flow.run()
        flow.run()

    first, second = (metadata["flow"] for _, _, metadata in told)
    assert second == first + 1


@each_runner
def test_a_run_that_fails_tells_the_error_behind_the_ends_of_its_stages(runner: Any) -> None:
    flow = Flow.from_iterable(endless(), stages=2, max_demand=1).map(works.refuse).using(runner, workers=2)

    with telemetry_events(STOP, STAGE_STOP) as told, pytest.raises(FlowFailed) as raised:
        report_of(flow)

    assert [event for event, _, _ in told] == [STAGE_STOP, STAGE_STOP, STOP]
    assert of(STOP, told)[0]["exception"] is raised.value


@each_runner
def test_a_run_that_is_broken_out_of_tells_that_it_was_cancelled(runner: Any) -> None:
    flow = Flow.from_iterable(endless(), stages=1).map(works.same).using(runner, workers=1)

    with telemetry_events(STOP, STAGE_STOP) as told:
        for _ in flow:
            break

    assert [event for event, _, _ in told] == [STAGE_STOP, STOP]
    stopped = of(STOP, told)[0]
    assert isinstance(stopped["exception"], asyncio.CancelledError)
    assert stopped["report"].elements_in > 0


async def test_times_are_measured_by_the_clock_of_the_run() -> None:
    clock, inside, go_on = FakeClock(), asyncio.Event(), asyncio.Event()

    async def wait(number: int) -> int:
        inside.set()
        await go_on.wait()
        return number

    flow = Flow.from_iterable([1], stages=1).map(wait)
    with telemetry_events(START, STOP, STAGE_STOP) as told:
        running = asyncio.create_task(flow_run.run_async(flow._layer, RunSettings(), clock))
        await inside.wait()
        await clock.advance(3)
        go_on.set()
        await running

    assert [(event, measured) for event, measured, _ in told] == [
        (START, {"system_time": 1_700_000_000.0, "monotonic_time": 1_000.0}),
        (STAGE_STOP, {"duration": 3.0, "monotonic_time": 1_003.0}),
        (STOP, {"duration": 3.0, "monotonic_time": 1_003.0}),
    ]


@each_runner
def test_a_handler_that_raises_does_not_disturb_the_run(runner: Any) -> None:
    def refuse(*_: object) -> None:
        raise ValueError

    telemetry.attach("refuses", [START, STOP, STAGE_STOP], refuse)
    try:
        report = report_of(Flow.from_iterable([1], stages=1).map(works.same).using(runner, workers=1))
    finally:
        telemetry.detach("refuses")

    assert report.elements_out == 1


@each_runner_with_workers
def test_a_file_that_is_gone_is_told(runner: Any, tmp_path: Any) -> None:
    path = tmp_path / "lines.txt"
    path.touch()
    flow = Flow.from_files(path).map(works.same).using(runner, workers=1)
    path.unlink()

    with telemetry_events(START, STOP) as told, pytest.raises(FlowFailed) as raised:
        flow.run()

    assert [event for event, _, _ in told] == [START, STOP]
    assert of(STOP, told)[0]["exception"] is raised.value
