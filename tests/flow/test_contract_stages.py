"""The contract's tests of running stages before, between and behind flows: which lists they get, and when they end.

The original has each of them twice: with stages that run already, and with stages that the flow starts. Here, whoever
runs the flow starts a stage with ``async with``, whether its block is longer than the flow or not.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from broadway_py.errors import FlowFailed, StageDown
from broadway_py.flow import Flow
from broadway_py.stage import ConsumerStage, ProducerConsumerStage, ProducerStage
from tests.flow.support import by_phash2
from tests.stage.support import Counter, Recorder, run_until_idle, soon
from tests.support.conformance import conforms

Lists = list[list[int]]


def is_even(number: int) -> bool:
    return number % 2 == 0


class Noted(ConsumerStage[int]):
    def __init__(self) -> None:
        super().__init__()
        self.lists: Lists = []

    def handle_events(self, events: list[int]) -> None:
        self.lists.append(events)


class Failing(ConsumerStage[int]):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.came: list[int] = []

    def handle_events(self, events: list[int]) -> None:
        self.came += events
        if len(self.came) >= self.after:
            raise LookupError


class Passed(ProducerConsumerStage[int, int]):
    def __init__(self) -> None:
        super().__init__()
        self.lists: Lists = []

    def handle_events(self, events: list[int]) -> list[int]:
        self.lists.append(events)
        return events


def shared(stages: int) -> Flow[int]:
    return Flow.from_iterables([[1, 2, 3], [4, 5, 6]], stages=stages)


def partitioned() -> Flow[int]:
    flow = Flow.from_iterables([[1, 2, 3], [4, 5, 6], range(7, 11)], stages=4)
    return flow.partition(stages=4, hash=by_phash2(4))


ALL: Lists = [[1, 2, 3], [4, 5, 6]]
EVEN: Lists = [[2], [4, 6]]
ALL_APART: Lists = [[1], [2], [3], [4], [5], [6], [7, 9], [8], [10]]
EVEN_APART: Lists = [[2], [4], [6], [8], [10]]


def three(*numbers: tuple[str, str]) -> pytest.MarkDecorator:
    """The three groups of the contract: two stages, four stages, a partition; each with all lists and the even ones."""
    flows: list[tuple[Callable[[], Flow[int]], Lists, Lists]] = [
        (lambda: shared(2), ALL, EVEN),
        (lambda: shared(4), ALL, EVEN),
        (partitioned, ALL_APART, EVEN_APART),
    ]
    return pytest.mark.parametrize(
        ("make", "all_lists", "even_lists"),
        [pytest.param(*flow, marks=conforms(*found)) for flow, found in zip(flows, numbers, strict=True)],
    )


@three(("F-047", "F-051"), ("F-071", "F-075"), ("F-092", "F-096"))
async def test_lists_reach_a_running_consumer(
    make: Callable[[], Flow[int]], all_lists: Lists, even_lists: Lists
) -> None:
    async with Noted() as noted:
        running = await make().filter(is_even).into_stages([noted])
        await soon(running.wait())

        assert sorted(noted.lists) == even_lists


@three(("F-049", "F-053"), ("F-073", "F-077"), ("F-094", "F-098"))
async def test_lists_go_through_running_stages(
    make: Callable[[], Flow[int]], all_lists: Lists, even_lists: Lists
) -> None:
    async with Passed() as first, Passed() as second:
        flow = make().through_stages([first]).filter(is_even).through_stages([second])

        assert sorted(await soon(flow.to_list_async())) == [number for each in even_lists for number in each]
        assert (sorted(first.lists), sorted(second.lists)) == (all_lists, even_lists)


@three(("F-050", "F-054"), ("F-074", "F-078"), ("F-095", "F-099"))
async def test_lists_go_through_a_running_stage_to_another_one(
    make: Callable[[], Flow[int]], all_lists: Lists, even_lists: Lists
) -> None:
    async with Passed() as through, Noted() as noted:
        running = await make().through_stages([through]).filter(is_even).into_stages([noted])
        await soon(running.wait())

        assert (sorted(through.lists), sorted(noted.lists)) == (all_lists, even_lists)


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        pytest.param(lambda flow: flow, [0, 1, 2, 3, 4], marks=conforms("F-106")),
        pytest.param(lambda flow: flow.filter(is_even), [0, 2, 4, 6, 8], marks=conforms("F-107")),
        pytest.param(lambda flow: flow.flat_map(lambda n: [n, n]), [0, 0, 1, 1, 2], marks=conforms("F-108")),
        pytest.param(lambda flow: flow.map(lambda n: n * 2), [0, 2, 4, 6, 8], marks=conforms("F-109")),
        pytest.param(lambda flow: flow.reject(is_even), [1, 3, 5, 7, 9], marks=conforms("F-111")),
        pytest.param(
            lambda flow: flow.filter(is_even).map(lambda n: n + 1).map(lambda n: n * 2),
            [2, 6, 10, 14, 18],
            marks=conforms("F-112"),
        ),
    ],
)
async def test_the_events_of_a_producer_that_is_started_for_the_flow(
    chain: Callable[[Flow[Any]], Flow[Any]], expected: list[int]
) -> None:
    came: list[int] = []
    async with Counter() as numbers:
        async for number in chain(Flow.from_stages([numbers], stages=1)):
            came.append(number)
            if len(came) == 5:
                break

    assert came == expected


class Dying(ProducerStage[int]):
    def handle_demand(self, demand: int) -> list[int]:
        raise LookupError


@conforms("F-148")
async def test_the_death_of_a_producer_ends_the_flow_but_not_the_consumers() -> None:
    async with Dying() as producer, Noted() as noted:
        running = await Flow.from_stages([producer]).filter(is_even).into_stages([noted])

        with pytest.raises(FlowFailed) as raised:
            await soon(running.wait())

        assert isinstance(raised.value.__cause__, StageDown)
        assert repr(noted) == "<Noted running>"
        with pytest.raises(LookupError):
            await producer.wait()


@conforms("F-146")
async def test_a_consumer_that_asks_for_one_event_gets_one_at_a_time() -> None:
    async with Noted() as noted:
        running = await shared(2).filter(is_even).into_stages([(noted, {"max_demand": 1})])
        await soon(running.wait())

        assert sorted(noted.lists) == [[2], [4], [6]]


@conforms("F-147")
async def test_another_consumer_gets_what_one_that_hangs_has_not_asked_for() -> None:
    hanging = Recorder(most=0)
    async with hanging, Noted() as noted:
        # The one that was named first is served first.
        consumers = [(hanging, {"max_demand": 1}), (noted, {"max_demand": 1})]
        running = await Flow.from_iterable([0, 2, 4, 6], stages=1).into_stages(consumers)
        await run_until_idle()

        assert noted.lists == [[2], [4], [6]]
        hanging.may_go_on.set()
        await soon(running.wait())
        assert hanging.batches == [[0]]


@conforms("F-149")
async def test_a_flow_goes_on_while_one_of_its_consumers_lives_and_ends_with_the_last_one() -> None:
    first, second = Failing(after=1), Failing(after=3)
    async with first, second:
        consumers = [(first, {"max_demand": 1}), (second, {"max_demand": 1})]
        running = await Flow.from_iterable(range(10**9), stages=1).into_stages(consumers)

        report = await soon(running.wait())

        assert (len(first.came), len(second.came)) == (1, 3)
        assert report.elements_in < 10**9
        for consumer in (first, second):
            with pytest.raises(LookupError):
                await consumer.wait()


@conforms("F-151")
async def test_a_flow_without_end_is_read_as_far_as_its_reader_wants() -> None:
    came: list[int] = []

    async for number in Flow.from_iterable(count(), stages=1).reject(is_even):
        came.append(number)
        if len(came) == 5:
            break

    assert came == [1, 3, 5, 7, 9]


@conforms("F-152")
async def test_a_producer_that_holds_demand_back_holds_the_flow_back() -> None:
    async with Counter(most=1, demand="accumulate") as numbers, Noted() as noted:
        running = await Flow.from_stages([numbers], stages=1).map(lambda number: number + 1).into_stages([noted])
        await run_until_idle()
        assert noted.lists == []

        numbers.demand = "forward"
        await run_until_idle()

        assert noted.lists == [[1]]
        await running.stop()
