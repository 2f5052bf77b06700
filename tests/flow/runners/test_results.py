"""What a flow gives does not depend on its runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broadway_py.flow import Flow, Window
from tests.flow.each_runner import WITH_WORKERS, each_runner
from tests.flow.processes import works
from tests.flow.runners.flows import FLOWS, multiset
from tests.flow.support import leaves_nothing, report_of, results


@pytest.mark.parametrize("runner", ["threads", *WITH_WORKERS])
@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_gives_the_same_as_in_one_event_loop(name: str, runner: Any, tmp_path: Path) -> None:
    make = FLOWS[name]

    with leaves_nothing(runner):
        found = multiset(make(tmp_path).using(runner, workers=2))

    assert found == multiset(make(tmp_path).using("tasks", workers=2))


def plus_one(number: int) -> int:
    return number + 1


async def plus_one_later(number: int) -> int:
    return number + 1


@each_runner
@pytest.mark.parametrize("function", [plus_one, plus_one_later])
def test_one_stage_everywhere_keeps_the_order(runner: Any, function: Callable[[int], Any]) -> None:
    flow = Flow.from_iterable(range(2_000), stages=1).map(function).shuffle(stages=1).map(function)

    assert results(flow.using(runner, workers=2)) == list(range(2, 2_002))


@each_runner
def test_one_stage_gets_the_order_of_the_source_although_several_stages_have_worked_before(runner: Any) -> None:
    flow = Flow.from_iterable(range(2_000), max_demand=20).map(works.same).shuffle(stages=3, max_demand=7)
    tens = flow.map(works.same).partition(stages=1, window=Window.count(10)).reduce(list, works.follow).emit("state")

    assert results(tens.using(runner, workers=2)) == [*(list(range(n, n + 10)) for n in range(0, 2_000, 10)), []]


@each_runner
def test_files_in_order_are_read_in_order(runner: Any, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(map(str, range(3_000))))
    flow = Flow.from_files(path, range_bytes=1_000).map(int)
    thousands = flow.partition(stages=1, window=Window.count(1_000)).reduce(list, works.follow).emit("state")

    expected = [list(range(start, start + 1_000)) for start in range(0, 3_000, 1_000)]
    assert results(thousands.using(runner, workers=2)) == [*expected, []]


@each_runner
def test_all_stages_work_and_nothing_is_lost_or_repeated(runner: Any) -> None:
    flow = Flow.from_iterables([range(500), range(500, 1_000)], stages=3, max_demand=10).map(plus_one)
    flow = flow.partition(stages=4, max_demand=10).map(plus_one).shuffle(stages=2, max_demand=10).map(plus_one)

    report = report_of(flow.using(runner, workers=2))

    assert (report.elements_in, report.elements_out) == (1_000, 1_000)
    assert [stage.index for stage in report.stages] == [0, 1, 2, 0, 1, 2, 3, 0, 1]
    assert all(stage.taken == stage.given > 0 for stage in report.stages)
    assert sorted(results(flow.using(runner, workers=2))) == list(range(3, 1_003))
