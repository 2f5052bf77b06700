"""What stages take from memory by themselves: which lists, how many at once, and that others get their turn."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.running import run as flow_run
from broadway_py.flow.stages.in_memory import InMemory
from broadway_py.testing import FakeClock
from tests.flow.each_runner import each_runner_in_program
from tests.flow.support import leaves_nothing, report_of, results
from tests.stage.support import run_until_idle, soon

ENDLESS = range(10**15)


def plus_one(number: int) -> int:
    return number + 1


async def plus_one_later(number: int) -> int:
    return number + 1


def lengths(elements: list[int]) -> list[int]:
    return [len(elements)]


# --- lists


@pytest.mark.parametrize("make", [range, lambda n: list(range(n)), lambda n: tuple(range(n)), lambda n: set(range(n))])
def test_lists_say_where_they_begin(make: Callable[[int], Any]) -> None:
    memory = InMemory(make(5), 7, 2)

    taken = [memory.take(2) for _ in range(4)]

    assert [frame and (list(frame.elements), frame.first) for frame in taken] == [
        ([0, 1], (7, 0)),
        ([2, 3], (7, 2)),
        ([4], (7, 4)),
        None,
    ]
    assert memory.given == 5


@pytest.mark.parametrize("items", [range(6), tuple(range(6)), list(range(6)), dict.fromkeys(range(6))])
def test_a_function_of_lists_gets_lists(items: Any) -> None:
    def kind(elements: Any) -> list[str]:
        return [f"{type(elements).__name__} of {len(elements)}"]

    flow = Flow.from_iterable(items, stages=1, max_demand=4, min_demand=0).map_batch(kind)

    assert results(flow) == ["list of 4", "list of 2"]


def test_a_list_that_grows_while_it_is_read_is_read_to_its_end() -> None:
    numbers = [0]

    def growing(number: int) -> int:
        if number < 9:
            numbers.append(number + 1)
        return number

    assert results(Flow.from_iterable(numbers, stages=1, max_demand=1).map(growing)) == list(range(10))


def refuse(number: int) -> int:
    return 1 // (number - 700)


@each_runner_in_program
@pytest.mark.parametrize("make", [range, lambda n: list(range(n)), lambda n: tuple(range(n)), lambda n: set(range(n))])
@pytest.mark.parametrize("run", [results, report_of])
def test_an_error_says_at_which_element(runner: Any, make: Callable[[int], Any], run: Callable[..., Any]) -> None:
    with leaves_nothing(), pytest.raises(FlowFailed) as raised:
        run(Flow.from_iterable(make(5_000), stages=1).map(plus_one).map(refuse).using(runner))

    assert str(raised.value) == ("map 2: refuse failed with ZeroDivisionError in stage 0 at element 699 of source 0")
    assert raised.value.element == 699


class FailingSized(list[int]):
    def __iter__(self) -> Iterator[int]:
        yield from range(3)
        raise LookupError


@each_runner_in_program
@pytest.mark.parametrize("demand", [1, 1_000])
def test_an_iterable_that_raises_ends_the_flow_and_says_where(runner: Any, demand: int) -> None:
    flow = Flow.from_iterable(FailingSized(), stages=1, max_demand=demand).map(plus_one)

    with leaves_nothing(), pytest.raises(FlowFailed) as raised:
        results(flow.using(runner))

    assert str(raised.value) == "from_iterable failed with LookupError in stage 0 at element 3 of source 0"


def test_what_was_done_before_an_error_reaches_the_reader() -> None:
    came: list[int] = []
    flow = Flow.from_iterable(range(5_000), stages=1, max_demand=2).map(plus_one).map(refuse)
    with pytest.raises(FlowFailed):
        # extend() keeps what came before the error.
        came.extend(flow)

    assert came == [refuse(number + 1) for number in range(699)]


# --- how many


@pytest.mark.parametrize("function", [plus_one, plus_one_later])
def test_each_stage_gets_about_as_many(function: Any) -> None:
    flow = Flow.from_iterable(range(6), stages=3, max_demand=1).map(function)

    assert [stage.taken for stage in report_of(flow).stages] == [2, 2, 2]


def test_stages_in_threads_take_lists_side_by_side() -> None:
    # Nobody goes on before all three have a list.
    together = threading.Barrier(3, timeout=30)

    def wait(number: int) -> int:
        together.wait()
        return number

    flow = Flow.from_iterable(range(6), stages=3, max_demand=1).map(wait).using("threads")

    assert [stage.taken for stage in report_of(flow).stages] == [2, 2, 2]


async def test_a_reader_is_not_run_ahead_of_by_more_than_the_demand() -> None:
    done: list[int] = []

    def is_odd(number: int) -> bool:
        done.append(number)
        return bool(number % 2)

    flow = Flow.from_iterable(ENDLESS, stages=1, max_demand=10, min_demand=5).filter(is_odd)
    elements = flow_run.aiterate(flow._layer, RunSettings())

    assert await soon(anext(elements)) == 1
    await run_until_idle()
    # Two lists of five: one is in the hand of the reader, and one is asked for.
    assert len(done) == 10
    await elements.aclose()


def test_an_endless_flow_is_left_when_the_reader_has_enough() -> None:
    with leaves_nothing():
        assert list(itertools.islice(Flow.from_iterable(ENDLESS).map(plus_one).filter(lambda n: n % 2), 5_000))


@pytest.mark.parametrize(("demand", "expected"), [(20, [10] * 100), (1_000, [500, 500]), (4_000, [500, 500])])
def test_the_next_layer_gets_the_lists_that_it_asks_for(demand: int, expected: list[int]) -> None:
    flow = Flow.from_iterable(range(1_000), stages=1).map(plus_one).shuffle(stages=1, max_demand=demand)

    assert results(flow.map_batch(lengths)) == expected


def test_windows_of_the_next_layer_get_all() -> None:
    flow = Flow.from_iterable(range(10_000), stages=1).filter(lambda n: n % 2).shuffle(stages=1)

    assert results(flow.reduce(lambda: 0, lambda acc, n: acc + n).emit("state")) == [25_000_000]


async def test_the_end_of_a_reduction_waits_until_somebody_wants_it() -> None:
    ended: list[int] = []

    def end(state: int) -> tuple[list[int], int]:
        ended.append(state)
        return [-1], state

    flow = Flow.from_iterable(range(1), stages=1, max_demand=1).emit_and_reduce(lambda: 0, lambda acc, n: ([n], acc))
    elements = flow_run.aiterate(flow.on_trigger(end)._layer, RunSettings())

    assert await soon(anext(elements)) == 0
    await run_until_idle()
    assert not ended
    assert [element async for element in elements] == [-1]


# --- turns


class WorkingClock(FakeClock):
    """Its time passes while functions work."""

    worked = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.worked


class Turns:
    """Another task of the loop. It notes after each of its turns how many elements were worked on meanwhile."""

    def __init__(self) -> None:
        self.done = 0
        self.meanwhile: list[int] = []

    def note(self, element: int) -> int:
        self.done += 1
        return element

    async def take(self, count: int) -> None:
        while len(self.meanwhile) < count:
            before = self.done
            await asyncio.sleep(0)
            if self.done > before:
                self.meanwhile.append(self.done - before)

    async def during(self, flow: Flow[Any], clock: FakeClock) -> None:
        """Takes some turns while *flow* runs, and then cancels it."""
        with leaves_nothing():
            running = asyncio.create_task(flow_run.run_async(flow._layer, RunSettings(), clock))
            await soon(self.take(20))
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await soon(running)
            done = self.done
            await run_until_idle()
        assert self.done == done


@pytest.mark.parametrize(
    "flow",
    [
        lambda flow: flow,
        lambda flow: flow.reduce(lambda: 0, lambda acc, n: acc + n),
        lambda flow: flow.filter(lambda _: False),
        lambda flow: flow.shuffle(stages=2).map(plus_one),
        lambda flow: flow.count_by(lambda n: n % 2),
    ],
)
async def test_others_get_their_turn_after_some_lists_also_if_no_time_passes(flow: Callable[..., Flow[Any]]) -> None:
    turns = Turns()

    await turns.during(flow(Flow.from_iterable(ENDLESS, stages=1).map(turns.note)), FakeClock())

    assert max(turns.meanwhile) <= 32_000


@pytest.mark.parametrize("stages", [1, 2])
async def test_others_get_their_turn_when_time_has_passed(stages: int) -> None:
    turns, clock = Turns(), WorkingClock()

    def slow(element: int) -> int:
        clock.worked += 0.0002
        return turns.note(element)

    await turns.during(Flow.from_iterable(ENDLESS, stages=stages, max_demand=1).map(slow), clock)

    # A turn ends when half a millisecond has passed.
    assert max(turns.meanwhile) == 3 * stages


async def test_slow_functions_get_few_elements_at_a_time_if_nobody_sees_the_lists() -> None:
    turns, clock = Turns(), WorkingClock()

    def slow(element: int) -> int:
        clock.worked += 0.01 if element >= 1_000 else 0.0
        return turns.note(element)

    await turns.during(Flow.from_iterable(ENDLESS, stages=1).map(slow), clock)

    # The first list with slow elements has been taken when the others were quick.
    assert turns.meanwhile[0] <= 1_000 + 2_000
    assert turns.meanwhile[1:] == [1] * 19


async def test_others_get_their_turn_while_async_functions_do_not_wait() -> None:
    turns = Turns()

    async def note(element: int) -> int:
        return turns.note(element)

    await turns.during(Flow.from_iterable(ENDLESS, stages=1, max_demand=1).map(note), FakeClock())

    assert max(turns.meanwhile) == 1
