"""The ways in which a flow is run and its results are taken."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, islice
from typing import Any

import pytest

from broadway_py.errors import DefinitionError, OptionsError
from broadway_py.flow import Flow, FlowReport, RunningFlow, Window
from broadway_py.stage import ConsumerStage

NUMBERS = Flow.from_iterable([1, 2, 3], stages=1).map(lambda number: number * 2)


class Collector(ConsumerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[int] = []

    async def handle_events(self, events: list[int]) -> None:
        self.events += events


def test_a_flow_is_run_anew_each_time() -> None:
    assert list(NUMBERS) == NUMBERS.to_list() == [2, 4, 6]


def test_an_endless_flow_gives_as_much_as_is_taken() -> None:
    assert list(islice(Flow.from_iterable(count(), stages=1), 3)) == [0, 1, 2]


def test_run_counts_what_comes_in_and_goes_out() -> None:
    seen: list[int] = []

    report = NUMBERS.map(seen.append).run()

    assert isinstance(report, FlowReport)
    assert (seen, report.elements_in, report.elements_out) == ([2, 4, 6], 3, 3)


async def test_a_flow_runs_in_the_loop_of_the_caller_and_in_plain_code_inside_it() -> None:
    assert [number async for number in NUMBERS] == await NUMBERS.to_list_async() == [2, 4, 6]
    assert NUMBERS.to_list() == [2, 4, 6]
    assert (await NUMBERS.run_async()).elements_out == 3


async def test_a_flow_that_was_started_is_waited_for() -> None:
    seen: list[int] = []

    running = await NUMBERS.map(seen.append).start()

    assert isinstance(running, RunningFlow)
    assert (await running.wait()).elements_in == 3
    assert seen == [2, 4, 6]


async def test_running_stages_share_the_elements_and_live_on() -> None:
    async with Collector() as one, Collector() as other:
        for _ in range(2):
            running = await NUMBERS.into_stages([one, (other, {"max_demand": 1})])
            await running.wait()

        assert sorted(one.events + other.events) == [2, 2, 4, 4, 6, 6]


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(DefinitionError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (3, "into_stages: expected a list of stages, got an int"),
        ([3], "into_stages: expected stages that take events, got an int"),
        ([], "into_stages: expected at least one stage, got none"),
    ],
)
async def test_what_is_no_running_stage_is_refused(stages: Any, sentence: str) -> None:
    with pytest.raises(DefinitionError) as refused_:
        await NUMBERS.into_stages(stages)

    assert str(refused_.value) == sentence


async def test_a_wrong_option_of_a_subscription_is_refused() -> None:
    async with Collector() as stage:
        with pytest.raises(OptionsError) as caught:
            await NUMBERS.into_stages([(stage, {"max_demand": 0})])

    assert str(caught.value).startswith("max_demand: ")


def test_a_flow_that_is_not_complete_is_not_run() -> None:
    flow = NUMBERS.partition(window=Window.count(3))
    sentence = (
        "partition 2: nothing is collected in its count window; "
        "write .reduce(init, fn), or another reduction, behind it, or leave the window out"
    )

    for make in (flow.__iter__, flow.to_list, flow.run, flow.__aiter__):
        assert refused(make) == sentence


async def test_a_flow_that_is_not_complete_is_not_run_in_the_loop_of_the_caller() -> None:
    flow = NUMBERS.partition(window=Window.count(3))

    for make in (flow.to_list_async, flow.run_async, flow.start, lambda: flow.into_stages([Collector()])):
        with pytest.raises(DefinitionError, match=r"^partition 2: nothing is collected in its count window; "):
            await make()
