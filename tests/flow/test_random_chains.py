"""Random chains of operators, layers and reductions give what the same chain gives with lists and loops."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from broadway_py.flow import Flow, Window
from tests.flow.chains import ENDS, MAPPERS, Step, add, late_one, partitioned, shuffled, text, third


@st.composite
def layers(draw: st.DrawFn) -> Step:
    stages, most = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    if draw(st.booleans()):
        return shuffled(stages, most)
    return partitioned(stages, most, draw(st.sampled_from([None, third])))


@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=3),
    stages=st.integers(1, 3),
    most=st.integers(1, 6),
    steps=st.lists(st.sampled_from(MAPPERS) | layers(), max_size=5),
    end=st.sampled_from(ENDS),
    runner=st.sampled_from(["tasks", "tasks", "threads"]),
)
def test_a_chain_gives_what_loops_give(
    *, lists: list[list[int]], stages: int, most: int, steps: list[Step], end: Step, runner: Any
) -> None:
    flow: Flow[Any] = Flow.from_iterables(lists, stages=stages, max_demand=most).using(runner, workers=2)
    expected: list[Any] = [number for numbers in lists for number in numbers]
    for step in [*steps, end]:
        flow, expected = step.chain(flow), list(step.model(expected))

    assert text(flow) == text(expected)


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 9), max_size=20),
    most=st.integers(1, 6),
    later=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    mappers=st.lists(st.sampled_from(MAPPERS), max_size=3),
    size=st.integers(1, 5),
    every=st.none() | st.integers(1, 4),
)
@example(numbers=list(range(40)), most=40, later=[3, 6, 2], mappers=MAPPERS[:1], size=2, every=None)
def test_count_windows_of_one_stage_are_those_of_loops(
    *, numbers: list[int], most: int, later: list[int], mappers: list[Step], size: int, every: int | None
) -> None:
    window = Window.count(size) if every is None else Window.count(size).trigger_every(every)
    flow: Flow[int] = Flow.from_iterable(numbers, stages=1, max_demand=most)
    expected = numbers
    for step in mappers:
        flow, expected = step.chain(flow), list(step.model(expected))

    for demand in later[1:]:
        # Their lists are cut, also into pieces of pieces, and go through several stages.
        flow = flow.shuffle(stages=2, max_demand=demand).map(int)

    found = flow.partition(stages=1, window=window, max_demand=later[0]).reduce(int, add).emit("state").to_list()

    sums_so_far = []
    for first in range(0, len(expected) + 1, size):
        *_, last = totals = list(accumulate(expected[first : first + size], initial=0))
        sums_so_far += [*(totals[at] for at in range(every, len(totals), every)), last] if every else [last]
    assert found == sums_so_far


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.integers(0, 40), max_size=20),
    most=st.integers(1, 6),
    later=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    stages=st.integers(1, 3),
    sources=st.integers(1, 3),
    has_keys=st.booleans(),
)
def test_an_element_is_late_only_if_it_would_be_in_one_stage(
    *, times: list[int], most: int, later: list[int], stages: int, sources: int, has_keys: bool
) -> None:
    late: list[int] = []
    window = Window.fixed(10, by=float)
    highest = -1
    for time in times:
        if time // 10 * 10 + 10 <= highest:
            late.append(time)
        highest = max(highest, time)
    flow: Flow[int] = Flow.from_iterable(times, stages=sources, max_demand=most).map(lambda time: time)

    for demand in later[1:]:
        layer = flow.partition if has_keys else flow.shuffle
        flow = layer(stages=2, max_demand=demand).map(int)

    kept = flow.partition(stages=stages, max_demand=later[0], window=window).reduce(list, lambda all_, n: [*all_, n])
    found = kept.on_late(late_one).to_list()

    found_late = Counter(each[1] for each in found if isinstance(each, tuple))
    assert found_late + Counter(each for each in found if not isinstance(each, tuple)) == Counter(times)
    # In several stages, an element is not late because of one before it in the same list that went to another stage.
    assert found_late <= Counter(late)
    # Where a list comes together from parts, these are put in the order of their times first.
    has_parts = len(later) > 1 and (has_keys or len(later) > 2 or sources > 1)
    assert stages > 1 or has_parts or found_late == Counter(late)
