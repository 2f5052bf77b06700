"""What a flow tells about what it has done, in each runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count as endless
from typing import Any

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow, FlowReport, Window
from broadway_py.flow.report import StageReport
from tests.flow.each_runner import IN_PROGRAM, each_runner
from tests.flow.processes import works
from tests.pipeline.support import telemetry_events

#: The third click is late, and the fourth one has no time.
CLICKS: list[Any] = [("ann", 1), ("bob", 70), ("ann", 2), ("eve", None), ("bob", 130)]


def minutes() -> Flow[Any]:
    clicks = Flow.from_iterable(CLICKS, stages=1).map(works.same)
    windowed = clicks.partition(stages=1, max_demand=1, window=Window.fixed("1m", by=works.by_time))
    return windowed.reduce(list, works.follow).emit("state")


@each_runner
def test_a_report_has_what_each_stage_has_done(runner: Any) -> None:
    report = minutes().using(runner, workers=1, on_error="skip").run()

    assert (report.elements_in, report.elements_out, report.late, report.ahead) == (5, 3, 1, 0)
    assert report.skipped == {"partition 2, window: by_time": 1}
    assert [(stage.layer, stage.index, stage.taken, stage.given, stage.late) for stage in report.stages] == [
        ("from_iterable", 0, 5, 5, 0),
        ("partition 2", 0, 4, 3, 1),
    ]
    assert [(stage.windows_opened, stage.windows_closed) for stage in report.stages] == [(1, 1), (3, 3)]
    assert all(stage.busy_seconds > 0 for stage in report.stages)


@each_runner
def test_only_what_goes_to_another_process_counts_as_sent(runner: Any) -> None:
    elements = Flow.from_iterable([b"x" * 100] * 40).partition(stages=2, hash=to_the_first).map(works.same)
    flow: Flow[Any] = elements.partition(stages=2, hash=to_the_second).filter(works.nothing)

    report = flow.using(runner, workers=2).run()

    assert [stage.taken for stage in report.stages] == [40, 0, 0, 40]
    sent = [stage.sent_bytes for stage in report.stages]
    if runner not in IN_PROGRAM:
        # The first stage of each layer is in one worker process, and the second one in the other.
        assert sent[0] > 40
        assert sent[1:] == [0, 0, 0]
        # The source is in this process, and nothing leaves the flow.
        assert report.sent_bytes > sent[0] + 40
    else:
        assert [report.sent_bytes, *sent] == [0] * 5


def to_the_first(element: bytes) -> tuple[bytes, int]:
    return element, 0


def to_the_second(element: bytes) -> tuple[bytes, int]:
    return element, 1


@each_runner
async def test_a_flow_that_is_stopped_says_what_it_has_done(runner: Any) -> None:
    taken = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal taken
        for taken in endless(1):
            yield taken

    flow = Flow.from_iterable(numbers(), max_demand=10).map(works.same)
    running = await flow.using(runner, workers=2).start()
    while taken < 1_000:
        await asyncio.sleep(0)
    await running.stop()
    report = await running.wait()

    assert report.elements_in >= 900
    assert [stage.index for stage in report.stages] == [0, 1]
    assert sum(stage.taken for stage in report.stages) >= 900


@each_runner
def test_stages_tell_what_they_have_done_also_when_the_flow_fails(runner: Any) -> None:
    numbers = Flow.from_iterable(range(100), stages=2, max_demand=1).map(works.refuse)

    with telemetry_events("broadway.flow.stop") as told, pytest.raises(FlowFailed):
        numbers.using(runner, workers=2).run()

    ((_, _, stopped),) = told
    assert [stage.index for stage in stopped["report"].stages] == [0, 1]
    assert sum(stage.taken for stage in stopped["report"].stages) > 0


STAGE = StageReport("from_iterable", 0, 1_000, 900, 0, 0.0234, 0, 1, 1)


def report(*stages: StageReport, **others: Any) -> FlowReport:
    usual: dict[str, Any] = {"late": 0, "ahead": 0, "skipped": {}, "errors": (), "seconds": 1.5, "sent_bytes": 0}
    return FlowReport(1_000, 12, **(usual | others), stages=stages)


def test_a_report_as_text_is_a_table() -> None:
    other = StageReport("partition 2", 10, 900, 12, 3, 1.2, 12_345, 4, 3)

    assert str(report(STAGE, other, late=3, skipped={"map 1: int": 97}, sent_bytes=50_000)).splitlines() == [
        "elements in 1,000, out 12, late 3, too far ahead 0, bytes sent 50,000, seconds 1.500",
        "left out because of errors of map 1: int: 97",
        "layer          stage     in  out  late  busy s  sent bytes  windows opened  closed",
        "from_iterable      0  1,000  900     0   0.023           0               1       1",
        "partition 2       10    900   12     3   1.200      12,345               4       3",
    ]


def test_a_report_of_ray_names_the_nodes() -> None:
    first, second = "10.0.0.2 (6d2c81)", "10.0.0.3 (37916a)"
    many = [StageReport("shuffle 2", index, 2, 1, 0, 0.5, 10, 1, 1, (first, second)[index % 2]) for index in range(18)]

    assert str(report(replace(STAGE, node=first), *many)).splitlines()[1:] == [
        "layer           stage     in  out  late  busy s  sent bytes  windows opened  closed  node",
        "from_iterable       0  1,000  900     0   0.023           0               1       1  10.0.0.2 (6d2c81)",
        f"shuffle 2      all 18     36   18     0   9.000         180              18      18  {first}, {second}",
    ]


def test_many_stages_of_a_layer_share_a_line_of_the_table() -> None:
    many = [StageReport("shuffle 2", index, 2, 1, 0, 0.5, 10, 1, 1) for index in range(1_200)]

    assert str(report(STAGE, *many)).splitlines()[2:] == [
        "from_iterable          0  1,000    900     0    0.023           0               1       1",
        "shuffle 2      all 1,200  2,400  1,200     0  600.000      12,000           1,200   1,200",
    ]


def test_a_flow_without_stages_has_no_table() -> None:
    assert str(report()) == "elements in 1,000, out 12, late 0, too far ahead 0, bytes sent 0, seconds 1.500"
