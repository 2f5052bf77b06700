"""Random chains give the same with each runner as with lists and loops.

Several chains run side by side in one flow, because each start of worker processes takes some tenths of a second.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py.flow import Flow, Window
from tests.flow.chains import ENDS, MAPPERS, Step, late_one, partitioned, shuffled, text, third
from tests.flow.each_runner import each_runner
from tests.flow.processes import works


class Chain(NamedTuple):
    """A flow, and what it gives."""

    flow: Flow[Any]
    expected: list[Any]
    #: Whether the order is promised.
    is_ordered: bool


def tagged(number: int, element: Any) -> tuple[int, Any]:
    return number, element


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Operators and exchanges, and a reduction at the end."""
    lists = draw(st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=3))
    stages, most = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    flow: Flow[Any] = Flow.from_iterables(lists, stages=stages, max_demand=most)
    expected: list[Any] = [number for numbers in lists for number in numbers]
    is_ordered = stages == 1 and len(lists) == 1
    for _ in range(draw(st.integers(0, 5))):
        step: Step
        if draw(st.booleans()):
            step = draw(st.sampled_from(MAPPERS))
        else:
            stages, most = draw(st.integers(1, 3)), draw(st.integers(1, 6))
            is_ordered = is_ordered and stages == 1
            by_key = partitioned(stages, most, draw(st.sampled_from([None, third])))
            step = draw(st.sampled_from([shuffled(stages, most), by_key]))
        flow, expected = step.chain(flow), list(step.model(expected))
    end = draw(st.sampled_from(ENDS))
    return Chain(end.chain(flow), list(end.model(expected)), is_ordered and end.name == "nothing")


@st.composite
def counted(draw: st.DrawFn) -> Chain:
    """Count windows of one stage, behind mappers in several."""
    numbers = draw(st.lists(st.integers(0, 9), max_size=20))
    size, most, later = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    flow = Flow.from_iterable(numbers, stages=1, max_demand=most)
    flow = flow.shuffle(stages=draw(st.integers(1, 3)), max_demand=later).map(works.same)
    window = Window.count(size)
    windowed = flow.partition(stages=1, max_demand=most, window=window).reduce(list, works.follow).emit("state")
    lists = [numbers[first : first + size] for first in range(0, len(numbers) + 1, size)]
    return Chain(windowed, lists, is_ordered=True)


@st.composite
def timed(draw: st.DrawFn) -> Chain:
    """Windows of event time of one stage, behind mappers in several: the same elements are late."""
    times = draw(st.lists(st.integers(0, 40), max_size=20))
    most, later = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    highest, expected = -1, []
    for time in times:
        expected.append(("late", time) if time // 10 * 10 + 10 <= highest else time)
        highest = max(highest, time)
    flow = Flow.from_iterable(times, stages=1, max_demand=most)
    flow = flow.shuffle(stages=draw(st.integers(1, 3)), max_demand=later).map(works.same)
    kept = flow.partition(stages=1, max_demand=later, window=Window.fixed(10, by=float)).reduce(list, works.follow)
    return Chain(kept.on_late(late_one), expected, is_ordered=False)


def check(several: list[Chain], runner: Any) -> None:
    merged = Flow.merge(*(chain.flow.shuffle(stages=1).map(partial(tagged, n)) for n, chain in enumerate(several)))
    found: dict[int, list[Any]] = defaultdict(list)
    for number, element in merged.using(runner, workers=2):
        found[number].append(element)
    for number, chain in enumerate(several):
        assert text(found[number]) == text(chain.expected), (runner, chain.flow.explain())
        if chain.is_ordered:
            assert found[number] == chain.expected, (runner, chain.flow.explain())


several = st.lists(chains() | counted() | timed(), min_size=8, max_size=12)


@each_runner
@settings(max_examples=4, deadline=None)
@given(several=several)
def test_random_chains_give_the_same_in_each_runner(several: list[Chain], runner: Any) -> None:
    check(several, runner)


@pytest.mark.soak
@pytest.mark.timeout(0)
@each_runner
@settings(max_examples=200, deadline=None)
@given(several=several)
def test_many_random_flow_chains_give_the_same_in_each_runner(several: list[Chain], runner: Any) -> None:
    check(several, runner)
