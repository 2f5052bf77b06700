"""The ways in which a flow is run and its results are taken, with each runner."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from typing import Any

from broadway_py.flow import Flow
from broadway_py.stage import ConsumerStage, ProducerConsumerStage, ProducerStage
from tests.flow.each_runner import each_runner
from tests.flow.processes import works
from tests.flow.support import leaves_nothing
from tests.stage.support import soon

NUMBERS = list(range(40))


def flow_of(runner: Any, source: Any = range(40), workers: int = 2) -> Flow[int]:
    """Two flows at once have a worker each: the cluster of the tests has room for two."""
    flow: Flow[int] = Flow.from_iterable(source, max_demand=4).map(works.same).partition(max_demand=4).map(works.same)
    return flow.using(runner, workers=workers)


@each_runner
def test_a_flow_is_run_anew_each_time_and_however_it_is_run(runner: Any) -> None:
    flow = flow_of(runner)

    with leaves_nothing(runner):
        assert sorted(flow) == NUMBERS
        assert sorted(flow.to_list()) == NUMBERS
        report = flow.run()
        assert (report.elements_in, report.elements_out) == (40, 40)
        assert len(list(islice(flow_of(runner, count()), 3))) == 3


@each_runner
async def test_a_flow_runs_in_the_loop_of_the_caller_and_in_plain_code_inside_it(runner: Any) -> None:
    flow = flow_of(runner)

    with leaves_nothing(runner):
        assert sorted([number async for number in flow]) == NUMBERS
        assert sorted(await soon(flow.to_list_async())) == NUMBERS
        report = await soon(flow.run_async())
        # The loop stands still meanwhile.
        assert sorted(flow.to_list()) == NUMBERS

    assert (report.elements_in, report.elements_out) == (40, 40)
    assert [(stage.layer, stage.index) for stage in report.stages] == [
        ("from_iterable", 0),
        ("from_iterable", 1),
        ("partition 2", 0),
        ("partition 2", 1),
    ]
    assert sum(stage.taken for stage in report.stages[2:]) == 40


@each_runner
async def test_a_flow_that_was_started_is_waited_for_or_stopped(runner: Any) -> None:
    with leaves_nothing(runner):
        running = await flow_of(runner).start()
        assert (await soon(running.wait())).elements_out == 40
        async with await flow_of(runner, count()).start() as endless:
            pass
        assert (await soon(endless.wait())).elements_in >= 0


class Collector(ConsumerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[int] = []

    async def handle_events(self, events: list[int]) -> None:
        self.events += events


@each_runner
async def test_running_stages_share_the_results_and_live_on(runner: Any) -> None:
    async with Collector() as one, Collector() as other:
        with leaves_nothing(runner):
            for _ in range(2):
                running = await flow_of(runner).into_stages([one, (other, {"max_demand": 1})])
                await soon(running.wait())

    assert sorted(one.events + other.events) == sorted(NUMBERS * 2)


class Counting(ProducerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.next = 0

    def handle_demand(self, demand: int) -> list[int]:
        numbers = list(range(self.next, self.next + demand))
        self.next += demand
        return numbers


@each_runner
async def test_a_flow_reads_a_running_stage_as_far_as_its_results_are_taken(runner: Any) -> None:
    async with Counting() as stage:
        flow: Flow[int] = Flow.from_stages([stage], max_demand=10).map(works.same)
        with leaves_nothing(runner):
            elements: Any = aiter(flow.partition(max_demand=10).map(works.same).using(runner, workers=2))
            found = [await soon(anext(elements)) for _ in range(100)]
            await soon(elements.aclose())

    assert len(set(found)) == 100
    assert max(found) < stage.next < 400


class Passing(ProducerConsumerStage[Any, Any]):
    def __init__(self) -> None:
        super().__init__()
        self.passed: list[Any] = []

    def handle_events(self, events: list[Any]) -> list[Any]:
        self.passed += events
        return events


@each_runner
async def test_a_flow_goes_on_behind_running_stages(runner: Any) -> None:
    async with Passing() as one, Passing() as other:
        flow = Flow.from_iterable(range(100), stages=2, max_demand=10).map(works.same)
        flow = flow.through_stages([one, other], stages=2).map(works.same).using(runner, workers=2)
        with leaves_nothing(runner):
            assert sorted(await soon(flow.to_list_async())) == list(range(100))

    assert sorted(one.passed + other.passed) == list(range(100))


@each_runner
async def test_two_flows_run_at_once_in_one_loop(runner: Any) -> None:
    with leaves_nothing(runner):
        flows = [flow_of(runner, source, workers=1) for source in (range(40), range(7))]
        found = await soon(asyncio.gather(*(flow.to_list_async() for flow in flows)))

    assert [sorted(each) for each in found] == [NUMBERS, list(range(7))]


@each_runner
def test_two_flows_run_at_once_in_two_threads(runner: Any) -> None:
    with leaves_nothing(runner), ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda source: flow_of(runner, source, workers=1).to_list(), [range(40), range(7)]))

    assert [sorted(each) for each in found] == [NUMBERS, list(range(7))]


@each_runner
def test_a_flow_that_has_not_ended_does_not_hold_another_one_up(runner: Any) -> None:
    with leaves_nothing(runner):
        elements: Any = iter(flow_of(runner, count(), workers=1))
        assert next(elements) >= 0
        assert sorted(flow_of(runner, workers=1)) == NUMBERS
        assert next(elements) >= 0
        elements.close()
