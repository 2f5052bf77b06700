"""One stage gathers what the windows of many emit: departition, and reductions with ``combine``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py._core.window.effects import SideOutput
from broadway_py._core.window.firing import Firing
from broadway_py._core.window.spec import Window
from broadway_py._core.window.times import EventTimes
from broadway_py.flow.description.layers import ByKey, FromIterable, Gather, Layer
from broadway_py.flow.description.operators import Departition, Operator
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorError
from broadway_py.flow.work.layer_functions import Part
from broadway_py.flow.work.work import Work
from tests.flow.works import by_key, chain, elements_of, emit, frames_of, layer, on_trigger, reduce, run, total
from tests.support.conformance import conforms

#: The stage of each of 1 to 10, in the contract's example.
STAGES = [2, 0, 3, 3, 2, 0, 2, 0, 2, 1]


def departition(fn: Callable[..., Any] = sorted, takes: int = 1, **settings: Any) -> Layer:
    made = Departition("departition", list, lambda merged, emitted: [*merged, emitted], fn, takes, 7)
    return replace(layer(**settings), route=Gather(), departition=made)


class Stages:
    """Some stages, and one that gathers what their windows emit.

    Args:
        before: the layer of the stages.
        behind: the layer of the stage that gathers.
        count: how many stages there are.
    """

    def __init__(self, before: Layer, behind: Layer, count: int, *, is_combined: bool = False, **settings: Any) -> None:
        parts: tuple[Part, Part] = ("partial", "merged") if is_combined else ("whole", "whole")
        self.stages = [
            Work(before, index=index, copies=count, is_gathered=True, part=parts[0], **settings)
            for index in range(count)
        ]
        self.gatherer = Work(behind, partitions=count, part=parts[1])
        self.now = 0.0
        self.out = elements_of(self.gatherer.start(0.0))
        for index, stage in enumerate(self.stages):
            self._gather(index, stage.start(0.0))

    def _gather(self, index: int, reply: Any) -> None:
        for frame in frames_of(reply):
            self.out += elements_of(self.gatherer.feed(frame, self.now))

    def give(self, index: int, elements: Sequence[Any], **frame: Any) -> None:
        self._gather(index, self.stages[index].feed(Frame(list(elements), **frame), self.now))

    def pass_time(self, until: float) -> None:
        self.now = until
        for index, stage in enumerate(self.stages):
            self._gather(index, stage.tick(until))

    def end_stage(self, index: int) -> None:
        self._gather(index, self.stages[index].end(self.now))
        self.out += elements_of(self.gatherer.partition_ended(index, self.now))

    def end(self, order: Sequence[int] | None = None) -> list[Any]:
        for index in order or range(len(self.stages)):
            self.end_stage(index)
        self.out += elements_of(self.gatherer.end(self.now))
        return self.out

    def give_all(self, elements: Sequence[int], partitions: Sequence[int], size: int = 1_000) -> None:
        for place in range(0, len(elements), size):
            for index in range(len(self.stages)):
                own = [each for each, of in zip(elements, partitions, strict=True) if of == index]
                if part := own[place : place + size]:
                    self.give(index, part)


@conforms("F-122", "F-126")
def test_the_states_of_all_stages_are_merged() -> None:
    stages = Stages(layer(reduction=total()), departition(), 4)
    stages.give_all(range(1, 11), STAGES)
    assert stages.out == []
    assert stages.end([2, 0, 3, 1]) == [[7, 10, 16, 22]]
    mapped = Stages(layer(reduction=total()), departition(mappers=chain(("map", len))), 4)
    assert mapped.end() == [4]


@conforms("F-123")
def test_done_may_take_the_firing() -> None:
    def done(merged: list[int], firing: Firing) -> Any:
        return firing, sorted(merged)

    stages = Stages(layer(reduction=total()), departition(done, 2), 4)
    stages.give_all(range(1, 11), STAGES)
    firing = Firing("global", None, None, None, None, "done", 1, final=True, count=10)
    assert stages.end() == [(firing, [7, 10, 16, 22])]


@pytest.mark.parametrize("size", [1, 4, 1_000])
@conforms("F-124")
def test_uneven_count_windows_are_completed_in_their_order(size: int) -> None:
    stages = Stages(layer(window=Window.count(3), reduction=total()), departition(mappers=chain(("map", tuple))), 2)
    stages.give_all(range(1, 11), [1] * 10, size)
    assert stages.out == []
    assert stages.end() == [(0, 6), (15,), (24,), (10,)]
    stages = Stages(layer(window=Window.count(3), reduction=total()), departition(), 2)
    stages.give_all(range(1, 11), [1] * 10, size)
    assert stages.end([1, 0]) == [[0, 6], [15], [24], [10]]


@conforms("F-125")
def test_each_firing_is_merged() -> None:
    before = layer(window=Window.global_().trigger_every(2), reduction=total())
    stages = Stages(before, departition(), 4)
    stages.give_all(range(1, 11), STAGES)
    assert stages.end() == [[6, 7, 7, 8, 10, 16, 22, 22]]


@conforms("F-127")
def test_a_reduction_may_follow() -> None:
    before = layer(
        window=Window.global_().trigger_every(2),
        reduction=total(),
        emission=on_trigger(lambda state: ([state], 0)),
    )
    summed = departition(sum, mappers=(), reduction=total(), emission=emit("state"))
    stages = Stages(before, summed, 4)
    stages.give_all(range(1, 11), STAGES)
    assert stages.end() == [55]


@pytest.mark.parametrize("emitted", [0, 1, 2])
def test_the_number_of_emitted_elements_does_not_matter(emitted: int) -> None:
    before = layer(window=Window.count(2), reduction=total(), emission=on_trigger(lambda state: ([state] * emitted, 0)))
    stages = Stages(before, departition(), 2)
    stages.give_all(range(4), [0, 1, 0, 1])
    assert stages.end() == [sorted([2, 4] * emitted), [0, 0] * emitted]


def test_windows_of_event_time_are_complete_when_each_stage_has_passed_them() -> None:
    before = layer(window=Window.fixed(10, by=fails_if_called), reduction=total())
    stages = Stages(before, departition(), 3, sources=[0])
    times = EventTimes(float)

    def give(index: int, elements: list[Any], high: int, number: int) -> list[Any]:
        stages.out.clear()
        stamped = times.read(elements)
        stages.give(index, elements, origin=Origin(0, number), stamped=stamped, high=high * 1_000_000)
        return list(stages.out)

    assert give(0, [1, 12], 25, 0) == []
    assert give(1, [2, 25], 25, 0) == []
    assert give(2, [], 25, 0) == [[1, 2], [12]]  # a stage without events passes them, too
    assert give(0, [], 41, 1) == []
    assert give(1, [40], 41, 1) == []
    stages.out.clear()
    stages.end_stage(2)
    assert stages.out == [[25]]
    assert stages.end([1, 0]) == [[25], [40]]


def fails_if_called(element: Any) -> float:
    raise LookupError


def test_periodic_windows_are_complete_when_each_stage_has_closed_them() -> None:
    stages = Stages(layer(window=Window.periodic(1), reduction=total()), departition(), 2)
    stages.give(0, [1, 2])
    stages.give(1, [3])
    stages.pass_time(1.0)
    assert stages.out == [[3, 3]]
    stages.give(1, [4])
    stages.pass_time(5.0)
    assert stages.out == [[3, 3], [0, 4]]
    assert stages.end() == [[3, 3], [0, 4], [0, 0]]


def test_mappers_behind_a_reduction_work_on_each_firing() -> None:
    def first_two(elements: list[int]) -> list[list[int]]:
        return [sorted(elements)[:2]]

    after = (*chain(("map", abs)), Operator("map_batch", first_two, 3))
    before = layer(
        window=Window.count(3),
        reduction=reduce(list, lambda kept, each: [*kept, each]),
        emission=emit("events"),
        after=after,
    )
    merged = Departition("take_sort", list, lambda one, other: sorted([*one, *other])[:2], lambda found: found, 1, 7)
    stages = Stages(before, replace(layer(), route=Gather(), departition=merged), 2)
    stages.give_all([-5, 4, 3, -2, 9, 1], [0, 0, 0, 1, 1, 1])
    assert stages.end() == [[1, 2], []]


def test_what_stands_for_a_late_element_goes_through() -> None:
    def late(number: int, info: SideOutput) -> list[str]:
        return [f"late {number}"]

    before = layer(window=Window.fixed(10, by=float), reduction=total(), on_late=late, after=chain(("map", str)))
    stages = Stages(before, departition(), 1)
    stages.give(0, [1, 12, 2])
    assert stages.end() == ["late 2", ["1"], ["12"]]


def test_an_error_of_merge_ends_the_flow() -> None:
    made = Departition("departition", int, lambda merged, emitted: merged + emitted, lambda found: found, 1, 7)
    stages = Stages(
        layer(reduction=reduce(list, lambda kept, _: kept)), replace(layer(), route=Gather(), departition=made), 1
    )
    with pytest.raises(OperatorError) as caught:
        stages.end()
    assert caught.value.failed.operator == "departition 7, merge: <lambda>"


# --- sessions ---------------------------------------------------------------------------------------------------------


def session_layer(window: Window, **settings: Any) -> Layer:
    return Layer((FromIterable([]),), ByKey(lambda event: event[0]), window=window, **settings)


SESSIONS = Window.session(10, by=lambda event: event[1], delay=1_000)


def test_a_session_is_complete_when_its_stage_has_closed_it() -> None:
    before = session_layer(SESSIONS, reduction=reduce(int, lambda count, _: count + 1))
    stages = Stages(before, departition(), 2)
    stages.give(0, [("a", 1.0), ("a", 5.0)])
    stages.give(1, [("b", 2.0), ("b", 30.0)])
    stages.end_stage(1)
    assert stages.out == [[1], [1]]
    assert stages.end([0]) == [[1], [1], [2]]


def test_early_results_of_sessions_that_become_one_are_merged_together() -> None:
    before = session_layer(
        SESSIONS.trigger_every(1),
        reduction=reduce(list, lambda kept, event: [*kept, event[1]]),
        emission=on_trigger(lambda state: (state, [])),
    )
    stages = Stages(before, departition(list), 1)
    stages.give(0, [("a", 20.0), ("a", 1.0)])
    stages.give(0, [("a", 10.5)])
    assert stages.end() == [[20.0, 1.0, 10.5]]


def test_a_session_takes_over_the_early_results_of_one_that_has_become_a_part_of_it() -> None:
    events = [("a", 20.0), ("a", 21.0), ("a", 1.0), ("a", 10.5)]
    reduction = reduce(int, lambda count, _: count + 1, combine=lambda one, other: one + other)
    described = session_layer(SESSIONS.trigger_every(2), reduction=reduction, emission=emit("state"))
    stages = combine_stages(described, 1)
    stages.give(0, events)
    assert stages.end() == [2, 4, 4]


# --- accumulators are combined ----------------------------------------------------------------------------------------


def combined(**settings: Any) -> Layer:
    return layer(reduction=total(combine=lambda one, other: one + other), **settings)


def combine_stages(described: Layer, count: int, **settings: Any) -> Stages:
    return Stages(described, described, count, is_combined=True, **settings)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_there_is_one_accumulator_for_all_stages(count: int) -> None:
    stages = combine_stages(combined(emission=emit("state"), after=chain(("map", str))), count)
    stages.give_all(range(1, 11), [each % count for each in range(10)])
    assert stages.end() == ["55"]
    assert combine_stages(combined(emission=emit("state")), count).end() == [0]


def test_each_window_is_combined() -> None:
    stages = combine_stages(combined(window=Window.count(3), emission=on_trigger(described, 3)), 2)
    stages.give_all(range(1, 11), [0, 1] * 5)
    assert stages.end() == [(0, "done", 1, 6, 21), (1, "done", 1, 4, 34)]


def described(state: int, partition: int, firing: Firing) -> tuple[list[Any], int]:
    return [(firing.index, firing.trigger, firing.number, firing.count, state)], state


def test_each_early_firing_of_a_stage_is_one_of_the_window() -> None:
    window = Window.global_().trigger_every(2)
    stages = combine_stages(combined(window=window, emission=on_trigger(described, 3)), 2)
    stages.give(0, [1, 2, 3])
    stages.give(1, [4, 5])
    assert stages.out == [(None, "every", 1, 2, 3), (None, "every", 2, 4, 12)]
    assert stages.end() == [(None, "every", 1, 2, 3), (None, "every", 2, 4, 12), (None, "done", 3, 5, 15)]


def test_on_trigger_may_reset_the_accumulator_of_all() -> None:
    window = Window.global_().trigger_every(2)
    stages = combine_stages(combined(window=window, emission=on_trigger(lambda state: ([state], 0))), 2)
    stages.give(0, [1, 2, 3])
    stages.give(1, [4, 5])
    assert stages.end() == [3, 9, 3]


def test_accumulators_that_change_in_place_are_combined_once() -> None:
    def count(found: dict[str, int], letter: str) -> dict[str, int]:
        found[letter] = found.get(letter, 0) + 1
        return found

    def merge(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
        for letter, number in other.items():
            one[letter] = one.get(letter, 0) + number
        return one

    window = Window.global_().trigger_every(2)
    stages = combine_stages(
        layer(window=window, reduction=reduce(dict, count, combine=merge), emission=emit("state")), 2
    )
    stages.give(0, "aab")
    stages.give(1, "bc")
    assert stages.end() == [{"a": 2}, {"a": 2, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 1}]


def test_a_combine_without_a_return_ends_the_flow() -> None:
    described = layer(reduction=total(combine=lambda *_: None), emission=emit("state"))
    stages = combine_stages(described, 2)
    with pytest.raises(OperatorError) as caught:
        stages.end()
    assert str(caught.value.failed.error) == "expected an accumulator from combine, got None: return the combined one"
    assert caught.value.failed.operator == "reduce 5, combine: <lambda>"


def test_what_is_combined_may_be_gathered_again() -> None:
    described = combined(window=Window.count(3))
    first = combine_stages(described, 2)
    first.gatherer = Work(described, partitions=2, part="merged", is_gathered=True)
    elements_of(first.gatherer.start(0.0))
    last = Work(departition())
    elements_of(last.start(0.0))
    first.give_all(range(1, 11), [0, 1] * 5)
    out = elements_of(last.feed(Frame(first.out), 0.0))
    assert out == [[21]]
    first.out.clear()
    out += elements_of(last.feed(Frame(first.end()), 0.0)) + elements_of(last.partition_ended(0, 0.0))
    assert out + elements_of(last.end(0.0)) == [[21], [34]]


def test_sessions_that_become_one_are_combined() -> None:
    reduction = reduce(int, lambda count, _: count + 1, combine=lambda one, other: one + other)
    described = session_layer(SESSIONS.trigger_every(1), reduction=reduction, emission=emit("state"))
    stages = combine_stages(described, 1)
    stages.give(0, [("a", 20.0), ("a", 1.0), ("b", 1.0)])
    stages.give(0, [("a", 10.5)])
    assert stages.end() == [1, 1, 1, 3, 1, 3]


@settings(max_examples=30, deadline=None)
@given(
    lists=st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), max_size=6), max_size=8),
    is_combined=st.booleans(),
    early=st.sets(st.integers(0, 1)),
)
def test_windows_of_many_stages_are_those_of_one(lists: Any, is_combined: bool, early: set[int]) -> None:
    """Each element is how much later it is than the one before, and its stage. Some stages end before the others."""
    window = Window.fixed(10, by=fails_if_called)
    if is_combined:
        described = combined(window=window, emission=emit("state"))
        stages = combine_stages(described, 3, sources=[0])
    else:
        stages = Stages(layer(window=window, reduction=total()), departition(sum), 3, sources=[0])
    times, time = EventTimes(float), 0
    sums: dict[int, int] = {}
    for number, elements in enumerate(lists):
        placed = []
        for step, partition in elements:
            time += step
            placed.append((time, partition))
            sums[time // 10] = sums.get(time // 10, 0) + time
        for index in range(3):
            own = [each for each, partition in placed if partition == index]
            stages.give(
                index,
                own,
                origin=Origin(0, number),
                stamped=times.read(own),
                high=placed[-1][0] * 1_000_000 if placed else None,
            )
        # A window is complete as soon as its end has passed.
        assert stages.out == [sums[each] for each in sorted(sums) if (each + 1) * 10 <= time]
    assert stages.end([*early, *{0, 1, 2} - early]) == [sums[each] for each in sorted(sums)]


# --- accumulators by key ----------------------------------------------------------------------------------------------


def keyed(most_keys: int | None = None, **settings: Any) -> Work:
    work = Work(layer(**settings), part="partial")
    if most_keys is not None:
        work._windows._most_keys = most_keys  # type: ignore[attr-defined]
    return work


BY_PARITY = by_key(lambda number: number % 2, combine=lambda one, other: one + other)


def test_a_stage_sends_its_accumulators_at_the_end() -> None:
    assert run(keyed(reduction=BY_PARITY, emission=emit("state")), range(10)) == [(0, 20), (1, 25)]


def test_a_stage_sends_its_accumulators_when_it_has_many() -> None:
    work = keyed(4, reduction=by_key(combine=max))
    elements_of(work.start(0.0))
    assert elements_of(work.feed(Frame([1, 2, 1, 2, 3, 3]), 0.0)) == []
    assert elements_of(work.feed(Frame([1, 5, 1]), 0.0)) == [(1, 4), (2, 4), (3, 6), (5, 5)]
    assert elements_of(work.end(0.0)) == []


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_stage_that_saves_nothing_sends_at_once(on_error: Any) -> None:
    words = chain(("flat_map", str.split))
    count = by_key(None, combine=max)
    for reduction in (count, count._replace(kind="count_by")):
        work = Work(
            layer(reduction=reduction if reduction.kind == "count_by" else count._replace(fn=one_more), mappers=words),
            part="partial",
            on_error=on_error,
        )
        work._windows._most_keys = 3  # type: ignore[attr-defined]
        elements_of(work.start(0.0))
        assert elements_of(work.feed(Frame(["a b", "c b"]), 0.0)) == [("a", 1), ("b", 2), ("c", 1)]
        assert elements_of(work.feed(Frame(["x"]), 0.0)) == [("x", 1)]
        assert elements_of(work.feed(Frame([]), 0.0)) == []
        assert elements_of(work.feed(Frame(["a a"]), 0.0)) == [("a", 2)]  # now it saves something
        assert elements_of(work.feed(Frame(["a b"]), 0.0)) == []
        assert elements_of(work.end(0.0)) == [("a", 1), ("b", 1)]


def one_more(count: int, _: str) -> int:
    return count + 1


def test_the_owner_of_a_key_combines_the_accumulators() -> None:
    owner = Work(layer(reduction=BY_PARITY, mappers=chain(("map", str)), after=chain(("map", list))), part="merged")
    assert run(owner, [(0, 1), (1, 2), (0, 4)]) == [[0, 5], [1, 2]]
    owner = Work(layer(reduction=BY_PARITY, emission=emit("state")), part="merged")
    assert run(owner, [(0, 1), (1, 2), (0, 4)]) == [{0: 5, 1: 2}]


def test_an_element_that_cannot_be_counted_is_found() -> None:
    for mappers, index in ((), 1), (chain(("map", lambda each: each)), None):
        work = Work(layer(reduction=by_key(combine=max)._replace(kind="count_by"), mappers=mappers), part="partial")
        with pytest.raises(OperatorError) as caught:
            run(work, ["a", ["b"], "c"])
        assert (caught.value.failed.element, caught.value.failed.index) == (["b"], index)
        assert caught.value.failed.operator == "count_by 5"
        assert str(caught.value.failed.error) == "unhashable type: 'list'"


@settings(max_examples=20, deadline=None)
@given(
    lists=st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 30), max_size=8)), max_size=12),
    most_keys=st.integers(1, 20),
)
def test_combined_counts_are_those_of_one_loop(lists: list[tuple[int, list[int]]], most_keys: int) -> None:
    reduction = by_key(combine=lambda one, other: one + other)._replace(kind="count_by")
    stages = [keyed(most_keys, reduction=reduction) for _ in range(3)]
    owner = Work(layer(reduction=reduction, emission=emit("state")), part="merged")
    pairs: list[Any] = []
    expected: dict[int, int] = {}
    for stage in stages:
        elements_of(stage.start(0.0))
    for index, elements in lists:
        pairs += elements_of(stages[index].feed(Frame(elements), 0.0))
        for element in elements:
            expected[element] = expected.get(element, 0) + 1
    for stage in stages:
        pairs += elements_of(stage.end(0.0))
    assert run(owner, pairs) == [expected]
