"""Flows in one process: who works on what, how far ahead, in which order, and what is said when something fails."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import FlowFailed
from broadway_py.flow import Flow, Window
from broadway_py.flow.description.settings import RunSettings
from broadway_py.flow.running import run as flow_run
from broadway_py.flow.running.one_run import FlowRun, end_task
from broadway_py.flow.stages.subscribed_stage import SubscribedStage
from tests.flow.each_runner import each_runner, each_runner_in_program
from tests.flow.support import results, results_async
from tests.stage.support import run_until_idle, soon


def plus_one(number: int) -> int:
    return number + 1


async def plus_one_later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


@pytest.mark.parametrize("sources", [([1, 2], [3]), ([1, 2, 3],)])
def test_every_stage_gets_what_is_merged_for_all(sources: tuple[list[int], ...]) -> None:
    flow = Flow.merge(map(Flow.from_iterable, sources), to_all=True, stages=3).map(plus_one)

    assert sorted(results(flow)) == sorted([2, 3, 4] * 3)


@each_runner_in_program
def test_a_stage_learns_which_one_it_is(runner: Any) -> None:
    begun: list[tuple[int, int]] = []
    flow = Flow.from_iterable([1], stages=2, on_init=lambda index, count: begun.append((index, count))).map(plus_one)

    assert results(flow.using(runner)) == [2]
    assert sorted(begun) == [(0, 2), (1, 2)]


@each_runner_in_program
def test_functions_see_the_context_of_the_caller(runner: Any) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    name.set("caller")
    flow = Flow.from_iterable(name.get() for _ in range(1)).map(lambda given: (given, name.get()))

    assert results(flow.using(runner)) == [("caller", "caller")]


# --- threads


def test_functions_that_block_do_so_side_by_side_in_a_thread_for_each_stage() -> None:
    stages = 20
    all_are_inside = threading.Barrier(stages, timeout=20)
    seen: set[str] = set()

    def block(number: int) -> int:
        seen.add(threading.current_thread().name)
        all_are_inside.wait()
        return number

    flow = Flow.from_iterable(range(2 * stages), stages=stages, max_demand=1).map(block).using("threads")

    assert sorted(results(flow)) == list(range(2 * stages))
    assert seen == {f"flow.0.{index}" for index in range(stages)}


def test_without_threads_functions_run_in_the_loop() -> None:
    seen: set[str] = set()

    def note(number: int) -> int:
        seen.add(threading.current_thread().name)
        return number

    results(Flow.from_iterable(range(10), stages=4, max_demand=1).map(note))

    assert seen == {"flow"}


async def test_async_functions_wait_side_by_side() -> None:
    stages = 50
    inside = 0
    all_are_inside = asyncio.Event()

    async def wait(number: int) -> int:
        nonlocal inside
        inside += 1
        if inside == stages:
            all_are_inside.set()
        await all_are_inside.wait()
        return number

    flow = Flow.from_iterable(range(stages), stages=stages, max_demand=1).map(wait)

    assert sorted(await soon(results_async(flow))) == list(range(stages))


@each_runner_in_program
async def test_a_function_that_cancels_its_own_task_ends_the_flow_with_an_error(runner: Any) -> None:
    async def cancel_itself(number: int) -> int:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return number

    flow = Flow.from_iterable(range(3), stages=2).map(plus_one).shuffle(stages=2).map(cancel_itself).using(runner)

    with pytest.raises(FlowFailed) as raised:
        await soon(results_async(flow))

    assert raised.value.operator == "shuffle 2"
    assert str(raised.value.__cause__) == "a function has cancelled the task that it runs in"
    assert isinstance(getattr(raised.value.__cause__, "__cause__", None), asyncio.CancelledError)


@each_runner_in_program
async def test_a_layer_may_have_plain_and_async_functions(runner: Any) -> None:
    flow = Flow.from_iterable(range(5), stages=1).map(plus_one).map(plus_one_later).filter(bool).map(plus_one)

    assert await soon(results_async(flow.using(runner))) == [3, 4, 5, 6, 7]


# --- demand


async def numbered(read: list[int]) -> AsyncIterator[int]:
    for number in itertools.count():
        read.append(number)
        yield number


@pytest.mark.parametrize(("demand", "least"), [(1, 0), (4, 3), (10, 5), (1_000, 500)])
async def test_nothing_runs_ahead_of_a_reader_by_more_than_the_demand_of_each_edge(demand: int, least: int) -> None:
    read: list[int] = []
    flow = Flow.from_iterable(numbered(read), stages=1, max_demand=demand, min_demand=least).map(plus_one)
    flow = flow.shuffle(stages=1, max_demand=demand, min_demand=least).map(plus_one)
    elements = flow_run.aiterate(flow._layer, RunSettings())

    assert await soon(anext(elements)) == 2
    await run_until_idle()
    # Three edges: source, first layer, second layer, reader; and one list in the hand of each stage.
    assert len(read) <= 1 + 3 * demand + 2 * (demand - least)
    await elements.aclose()


def lengths(elements: list[int]) -> list[int]:
    return [len(elements)]


def rest(number: int) -> int:
    return number % 3


@pytest.mark.parametrize(
    "layer",
    [
        lambda flow, **options: flow.shuffle(**options),
        lambda flow, **options: flow.partition(**options),
        lambda flow, **options: flow.partition(key=rest, **options),
        lambda flow, **options: Flow.merge(flow, to_all=True, **options),
    ],
)
def test_the_demand_of_a_layer_is_the_most_that_its_lists_have(layer: Callable[..., Flow[int]]) -> None:
    flow = layer(Flow.from_iterable(range(1_000), stages=1).map(plus_one), stages=1, max_demand=10)

    found = results(flow.map_batch(lengths))

    assert (max(found), sum(found)) == (5, 1_000)


async def test_few_slow_elements_are_shared_by_all_stages_of_a_later_layer() -> None:
    stages = 50
    inside = 0
    all_are_inside = asyncio.Event()

    async def wait(number: int) -> int:
        nonlocal inside
        inside += 1
        if inside == stages:
            all_are_inside.set()
        await all_are_inside.wait()
        return number

    flow = Flow.from_iterable(range(2 * stages), stages=1).map(int).shuffle(stages=stages, max_demand=1).map(wait)

    assert sorted(await soon(results_async(flow))) == list(range(2 * stages))


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize(("demand", "least"), [(1, 0), (4, 2), (7, 4)])
async def test_what_waits_for_a_stage_is_no_more_than_it_has_asked_for(demand: int, least: int, by_key: bool) -> None:
    taken: list[int] = []
    never = asyncio.Event()

    async def wait(number: int) -> int:
        taken.append(number)
        await never.wait()
        return number

    flow: Flow[int] = Flow.from_iterable([100], stages=1).flat_map(range)
    layer = flow.partition if by_key else flow.shuffle
    flow = layer(stages=2, max_demand=demand, min_demand=least).map(wait)
    run = FlowRun(flow._layer, RunSettings(), SYSTEM_CLOCK)
    task = asyncio.create_task(run.main())

    await run_until_idle()

    assert run._hosted is not None
    stages = [stage for stage in run._hosted._stages.values() if isinstance(stage, SubscribedStage)]
    slow = [stage for stage in stages if stage.planned.number == 1]
    waiting = [sum(len(frame.elements) for frame in stage._intake._inlet.waiting()) for stage in slow]
    assert len(taken) == len(slow) == 2
    # The list in the hand of the stage is outstanding too.
    full = demand // (demand - least) * (demand - least)
    assert waiting == [full - (demand - least)] * 2
    await end_task(task)


async def test_a_stage_takes_no_list_while_nobody_wants_one() -> None:
    calls: list[int] = []

    def note(number: int) -> int:
        calls.append(number)
        return number

    flow = Flow.from_iterable(range(100), stages=1, max_demand=1).map(note)
    elements = flow_run.aiterate(flow._layer, RunSettings())

    await soon(anext(elements))
    await run_until_idle()

    # The reader still has the first one in its hand, and has not asked for another one.
    assert calls == [0]
    await elements.aclose()


def test_what_waits_for_a_busy_stage_is_not_lost_at_the_end() -> None:
    async def wait(number: int) -> int:
        for _ in range(20):
            await asyncio.sleep(0)
        return number

    flow = Flow.from_iterable(range(30)).partition(stages=3, hash=lambda number: (number, 1), max_demand=1).map(wait)

    assert results(flow) == list(range(30))


# --- errors


def refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError(number)
    return number


def contexts_of(error: BaseException | None) -> list[type[BaseException]]:
    return [] if error is None else [type(error), *contexts_of(error.__context__)]


@each_runner
async def test_no_group_of_errors_is_behind_an_error_because_notebooks_do_not_format_groups(runner: Any) -> None:
    flow = Flow.from_iterable(range(4), stages=1).map(refuse_three).using(runner, workers=1)

    for ends in (flow.to_list, flow.run, lambda: list(flow)):
        with pytest.raises(FlowFailed) as raised:
            ends()
        assert ExceptionGroup not in contexts_of(raised.value)
    with pytest.raises(FlowFailed) as raised:
        await flow.run_async()
    assert ExceptionGroup not in contexts_of(raised.value)


@each_runner_in_program
def test_the_traceback_of_an_error_is_short_and_that_of_its_cause_leads_to_the_function(runner: Any) -> None:
    with pytest.raises(FlowFailed) as raised:
        Flow.from_iterable(range(4), stages=1).map(refuse_three).using(runner).to_list()

    assert raised.traceback[-1].name == "next"
    assert len(raised.traceback) <= 5
    assert raised.value.__cause__ is not None
    innermost = traceback.extract_tb(raised.value.__cause__.__traceback__)[-1]
    assert innermost.name == "refuse_three"


def test_the_stage_of_an_error_is_its_index_in_its_layer() -> None:
    flow = Flow.from_iterable(range(4), stages=4, max_demand=1).map(refuse_three)

    with pytest.raises(FlowFailed, match="in stage 3 at element 3 of source 0"):
        results(flow)


@pytest.mark.parametrize("side", ["left_key", "right_key"])
def test_the_key_of_a_join_that_fails_says_which_one_it_is(side: str) -> None:
    keys: Any = {"left_key": int, "right_key": int, side: refuse_three}
    numbers = Flow.from_iterable(range(4)).map(plus_one)

    with pytest.raises(FlowFailed) as raised:
        results(Flow.bounded_join("inner", numbers, numbers, **keys, join=max, stages=2))

    assert raised.value.operator == f"bounded_join 2, {side}: refuse_three"


def refuse(*_: Any) -> Any:
    raise LookupError


@pytest.mark.parametrize(
    ("chain", "operator"),
    [
        (lambda flow: flow.reduce(refuse, max), "reduce 1, init: refuse"),
        (lambda flow: flow.reduce(int, max, combine=refuse), "reduce 1, combine: refuse"),
        (lambda flow: flow.reduce(int, max).departition(refuse, max, str), "departition 2, init: refuse"),
        (
            lambda flow: flow.reduce(int, max).departition(int, refuse, str),
            "departition 2, merge: refuse",
        ),
        (lambda flow: flow.reduce(int, max).departition(int, max, refuse), "departition 2, done: refuse"),
        (lambda flow: flow.group_by(str).take_sort(2, key=refuse), "take_sort 2: refuse"),
        (
            lambda flow: flow.partition(stages=1, window=Window.fixed(1, by=lambda n: -n)).count_by().on_late(refuse),
            "partition 1, on_late: refuse",
        ),
    ],
)
def test_a_function_that_fails_is_named_by_the_method_and_the_argument(chain: Any, operator: str) -> None:
    flow: Flow[Any] = chain(Flow.from_iterable(range(4), stages=2, max_demand=1))

    with pytest.raises(FlowFailed, match=f"^{operator} failed with LookupError in stage") as raised:
        results(flow)

    assert raised.value.operator == operator


def test_take_sort_names_itself_when_elements_cannot_be_sorted() -> None:
    flow: Flow[Any] = Flow.from_iterable([1, "one"], stages=1).reduce(list, lambda kept, each: [*kept, each])

    with pytest.raises(FlowFailed, match=r"^take_sort 2 failed with TypeError in stage 0$"):
        flow.take_sort(2).to_list()


# --- the order of lists


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.integers(1, 4),
    st.integers(1, 2),
)
def test_lists_are_put_in_order_whoever_works_on_them_and_however_long(
    seed: int, stages: list[int], demand: int, sources: int
) -> None:
    """Each list waits for a random number of rounds of the loop in each layer of mappers."""
    count, random = 60, Random(seed)

    async def wait(element: tuple[int, int]) -> tuple[int, int]:
        for _ in range(random.randrange(12)):
            await asyncio.sleep(0)
        return element

    elements = [[(source, number) for number in range(count)] for source in range(sources)]
    flow: Flow[Any] = Flow.from_iterables(elements, stages=stages[0], max_demand=demand).map(wait)
    for several in stages[1:]:
        flow = flow.shuffle(stages=several, max_demand=demand).map(wait)
    # In windows of event time, the order of lists matters.
    window = Window.fixed(10**6, by=lambda element: float(element[1]))
    windowed = flow.partition(stages=1, max_demand=demand, window=window)
    emitted = windowed.emit_and_reduce(lambda: None, lambda state, element: ([element], state)).emit("nothing")
    came = results(emitted)

    assert len(came) == sources * count
    for source in range(sources):
        assert [number for origin, number in came if origin == source] == list(range(count))
