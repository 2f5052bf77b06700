"""The events of stages as an async iterator: how it ends, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from broadway_py.errors import OptionsError, StageDown
from broadway_py.stage import PartitionDispatcher, from_iterable, stream
from tests.stage.support import Counter, Forwarder, run_until_idle, soon
from tests.support.conformance import conforms


async def first(count: int, events: Any) -> list[Any]:
    found: list[Any] = []
    async with aclosing(events):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def everything(events: Any) -> list[Any]:
    return [event async for event in events]


@conforms("G-102", "G-103")
@pytest.mark.parametrize(("count", "options"), [(10, {}), (300, {"max_demand": 100})])
async def test_as_many_as_wanted_are_taken_and_nothing_is_left_behind(count: int, options: dict[str, Any]) -> None:
    tasks = asyncio.all_tasks()
    async with Counter() as counter:
        assert await soon(first(count, stream([counter], **options))) == list(range(count))
        await run_until_idle()

        assert counter.told == ["consumer", ("cancel", None)]
        assert not counter.outlet.edges
    assert asyncio.all_tasks() == tasks


async def test_breaking_out_ends_the_subscription_soon() -> None:
    async with Counter() as counter:
        async for event in stream(counter):
            if event == 3:
                break
        await run_until_idle()

        assert counter.told == ["consumer", ("cancel", None)]


async def test_a_chunk_is_asked_for_again_when_the_next_event_is_taken() -> None:
    async with Counter() as counter:
        events = stream(counter, max_demand=2, min_demand=0)
        assert [await soon(anext(events)) for _ in range(2)] == [0, 1]
        await run_until_idle()
        assert counter.asked == [2]

        assert await soon(anext(events)) == 2
        assert counter.asked == [2, 2]
        await events.aclose()


async def test_several_stages_are_merged_and_each_may_have_options() -> None:
    dispatcher = PartitionDispatcher[Any, int](["even", "odd"], lambda event: ("even", "odd")[event % 2])
    async with Counter(most=6, ends=True, dispatcher=dispatcher) as numbers, from_iterable("abc") as letters:
        stages: list[Any] = [(numbers, {"partition": "odd", "max_demand": 10}), letters]
        events = stream(stages, max_demand=2)

        found = await soon(first(6, events))

    assert [event for event in found if isinstance(event, str)] == ["a", "b", "c"]
    assert [event for event in found if isinstance(event, int)] == [1, 3, 5]


async def test_it_ends_when_all_producers_have_ended() -> None:
    async with from_iterable([1, 2]) as one, from_iterable(range(0)) as other:
        assert await soon(everything(stream([one, other]))) == [1, 2]


async def test_a_permanent_one_raises_behind_the_last_event_of_a_finite_producer() -> None:
    async with from_iterable([1, 2]) as source:
        events = stream(source, cancel="permanent")
        assert [await soon(anext(events)) for _ in range(2)] == [1, 2]
        with pytest.raises(StageDown) as down:
            await soon(anext(events))

    assert str(down.value) == "stream: the producer from_iterable has ended"


@conforms("G-105", "G-106")
@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_producer_that_had_ended_is_an_error(cancel: Any) -> None:
    async with Forwarder() as source:
        pass

    with pytest.raises(StageDown) as down:
        await soon(everything(stream([source], cancel=cancel)))
    assert str(down.value) == "stream: the producer Forwarder had ended before the subscription"


@conforms("G-109", "G-110")
async def test_a_temporary_one_ends_without_a_producer_that_had_ended() -> None:
    async with Forwarder() as source:
        pass

    assert await soon(everything(stream([source], cancel="temporary"))) == []


class Refusing(Forwarder):
    """Refuses its consumers, and may die of it."""

    def __init__(self, *, dies: bool) -> None:
        super().__init__()
        self.dies = dies

    def handle_subscribe(self, other: str, subscription: Any) -> None:
        subscription.cancel("no thanks")
        if self.dies:
            self.stop()


@conforms("G-107", "G-108")
@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_producer_that_refuses_is_an_error(dies: bool, cancel: Any) -> None:
    async with Refusing(dies=dies) as source:
        with pytest.raises(StageDown) as down:
            await soon(everything(stream([source], cancel=cancel)))

    assert str(down.value) == "stream: the subscription to Refusing was cancelled: 'no thanks'"


@conforms("G-111", "G-112")
@pytest.mark.parametrize("dies", [True, False])
async def test_a_temporary_one_ends_when_its_producer_refuses(dies: bool) -> None:
    async with Refusing(dies=dies) as source:
        assert await soon(everything(stream([source], cancel="temporary"))) == []


@pytest.mark.parametrize("cancel", ["permanent", "transient"])
async def test_a_producer_that_dies_makes_it_raise_behind_its_events(cancel: Any) -> None:
    async def dying() -> Any:
        yield 1
        raise ValueError("the user's")

    async with from_iterable(dying()) as source:
        events = stream(source, cancel=cancel)
        assert await soon(anext(events)) == 1
        with pytest.raises(StageDown) as down:
            await soon(anext(events))

    assert str(down.value) == "stream: the producer from_iterable died of ValueError"
    assert isinstance(down.value.__cause__, ValueError)


@conforms("G-115")
@pytest.mark.parametrize(
    ("stages", "options", "sentence"),
    [
        ("one", {"max_demand": 0}, "max_demand: expected greater than or equal to 1, got 0"),
        ("pair", {}, "max_demand: expected greater than or equal to 1, got 0"),
        ("one", {"mode": "manual"}, "mode: expected 'automatic', because a stream asks by itself, got 'manual'"),
        (3, {}, "stages: expected stages that emit events, got an int"),
        ([3], {}, "stages: expected a stage that emits events, got an int"),
    ],
)
def test_wrong_options_are_refused_at_once(stages: Any, options: dict[str, Any], sentence: str) -> None:
    source = Forwarder()
    given: Any = {"one": source, "pair": [(source, {"max_demand": 0})]}.get(stages, stages) if stages != [3] else stages

    with pytest.raises(OptionsError) as refused:
        stream(given, **options)

    assert str(refused.value) == sentence
