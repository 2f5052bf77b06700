"""What one stage of a layer does with windows and triggers, at any size of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py._core.window.effects import SideOutput
from broadway_py._core.window.firing import Firing
from broadway_py._core.window.spec import Window
from broadway_py._core.window.times import EventTimes
from broadway_py.flow.description.layers import ByKey, FromIterable, Layer
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorError
from broadway_py.flow.work.work import Work
from tests.flow.works import (
    chain,
    count_by,
    elements_of,
    emit,
    layer,
    on_trigger,
    reduce,
    result,
    run,
    total,
)
from tests.support.conformance import conforms

sizes = pytest.mark.parametrize("sizes", [(1,), (5,), (1_000,), (2, 7)])
HUNDRED = range(1, 101)
RUNNING_SUMS = [sum(range(1, last + 1)) for last in range(10, 101, 10)]
SUMS_OF_TEN = [sum(range(first, first + 10)) for first in range(1, 101, 10)]
COUNTS = [Window.global_(), Window.count(1_000), Window.fixed(1, by=lambda _: 0)]


def sums(window: Window, elements: Sequence[Any] = HUNDRED, sizes: Sequence[int] = (3,), **described: Any) -> list[Any]:
    return result(elements, sizes, window=window, reduction=total(), emission=emit("state"), **described)


def reset(state: int) -> tuple[list[int], int]:
    return [state], 0


def named(state: int, partition: int, firing: Firing) -> tuple[list[Any], int]:
    return [(firing.trigger, firing.index, state)], 0


@sizes
@conforms("W-005")
def test_count_windows(sizes: Any) -> None:
    assert sums(Window.count(10), HUNDRED, sizes) == [*SUMS_OF_TEN, 0]
    assert sums(Window.count(10), range(1, 26), sizes) == [55, 155, 115]
    assert sums(Window.count(10), [], sizes) == [0]


@sizes
@pytest.mark.parametrize("window", COUNTS)
@conforms("W-001", "W-012", "W-024")
def test_a_trigger_keeps_the_accumulator(sizes: Any, window: Window) -> None:
    assert sums(window.trigger_every(10), HUNDRED, sizes) == [*RUNNING_SUMS, 5_050]


@sizes
@pytest.mark.parametrize("window", COUNTS)
@conforms("W-014", "W-026", "W-038")
def test_a_trigger_resets_the_accumulator(sizes: Any, window: Window) -> None:
    described: dict[str, Any] = {"window": window.trigger_every(10), "reduction": total()}
    assert result(HUNDRED, sizes, **described, emission=on_trigger(reset)) == [*SUMS_OF_TEN, 0]
    triggers = result(HUNDRED, sizes, **described, emission=on_trigger(named, 3))
    assert [trigger for trigger, _, _ in triggers] == ["every"] * 10 + ["done"]


@sizes
@pytest.mark.parametrize("window", COUNTS)
@conforms("W-016", "W-028", "W-037")
def test_a_trigger_function_sees_what_came_in(sizes: Any, window: Window) -> None:
    seen: list[int] = []

    def goes_on(events: list[int], state: int) -> tuple[str, int]:
        seen.extend(events)
        return "cont", state

    mappers = chain(("map", lambda number: number + 1), ("map", lambda number: number * 2))
    assert sums(window.trigger(int, goes_on), range(1, 11), sizes, mappers=mappers) == [130]
    assert seen == list(range(1, 11))


@conforms("W-021")
def test_a_trigger_begins_anew_with_each_window() -> None:
    fired = result(
        HUNDRED, window=Window.count(50).trigger_every(12), reduction=total(), emission=on_trigger(seen_by, 3)
    )
    assert fired == [
        ("every", 0, 78),
        ("every", 0, 300),
        ("every", 0, 666),
        ("every", 0, 1_176),
        ("done", 0, 1_275),
        ("every", 1, 678),
        ("every", 1, 1_500),
        ("every", 1, 2_466),
        ("every", 1, 3_576),
        ("done", 1, 3_775),
        ("done", 2, 0),
    ]


def seen_by(state: int, partition: int, firing: Firing) -> tuple[list[Any], int]:
    return [(firing.trigger, firing.index, state)], state


@sizes
def test_what_is_emitted_at_once_comes_before_the_firing_that_follows(sizes: Any) -> None:
    def each(total: int, number: int) -> tuple[list[int], int]:
        return [number], total + number

    emitted = result(
        range(1, 6),
        sizes,
        window=Window.count(3).trigger_every(2),
        reduction=reduce(int, each, emits=True),
        emission=on_trigger(lambda state: ([("sum", state)], state)),
    )
    assert emitted == [1, 2, ("sum", 3), 3, ("sum", 6), 4, 5, ("sum", 9), ("sum", 9)]


@sizes
def test_uniq_forgets_with_its_window(sizes: Any) -> None:
    assert result([1, 1, 2, 1, 2, 2, 3], sizes, window=Window.count(3), mappers=chain(("uniq", None))) == [
        1,
        2,
        1,
        2,
        3,
    ]


def test_a_state_that_was_emitted_does_not_change_later() -> None:
    def add(found: list[int], number: int) -> list[int]:
        found.append(number)
        return found

    emitted = result(
        [1, 2, 3], window=Window.global_().trigger_every(1), reduction=reduce(list, add), emission=emit("state")
    )
    assert emitted == [[1], [1, 2], [1, 2, 3], [1, 2, 3]]


# --- event time -------------------------------------------------------------------------------------------------------


def second(number: int) -> float:
    return 0.0 if number <= 50 else 1.0


@sizes
@conforms("W-041", "W-043")
def test_ordered_windows(sizes: Any) -> None:
    assert sums(Window.fixed(1, by=second), HUNDRED, sizes) == [1_275, 3_775]
    assert sums(Window.fixed(1, by=lambda _: 0), HUNDRED, sizes) == [5_050]
    assert sums(Window.fixed(1, by=second), [], sizes) == []


@sizes
def test_elements_are_in_each_of_their_sliding_windows(sizes: Any) -> None:
    calls: list[int] = []

    def noted(number: int) -> int:
        calls.append(number)
        return number

    window = Window.sliding(4, 2, by=float)
    described: dict[str, Any] = {"window": window, "mappers": chain(("map", noted)), "reduction": total()}
    assert result(range(6), sizes, **described, emission=emit("state")) == [1, 6, 14, 9]
    assert calls == list(range(6))


@sizes
def test_elements_of_sliding_windows_are_emitted_in_their_order(sizes: Any) -> None:
    def each(kept: int, number: int) -> tuple[list[int], int]:
        return [number], kept

    described: dict[str, Any] = {"reduction": reduce(int, each, emits=True), "emission": emit("nothing")}
    window = Window.sliding(4, 2, by=float)
    assert result(range(4), sizes, window=window, **described) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result(range(4), sizes, window=window, mappers=chain(("uniq", None))) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result(range(4), sizes, window=window, mappers=chain(("map", str))) == ["0", "1", "2", "3"]


@sizes
def test_late_elements_are_counted(sizes: Any) -> None:
    work = Work(layer(window=Window.fixed(10, by=float), reduction=total(), emission=emit("state")))
    assert run(work, [1, 12, 2, 13, 25, 14], sizes) == [1, 25, 25]
    assert (work.late, work.windows_opened, work.windows_closed) == (2, 3, 3)


@sizes
def test_late_elements_leave_a_stage_without_reduction_out(sizes: Any) -> None:
    work = Work(layer(window=Window.fixed(10, by=float), mappers=chain(("map", str))))
    assert run(work, [1, 12, 2, 13], sizes) == ["1", "12", "13"]
    assert work.late == 1


@sizes
def test_on_late_emits_something_in_their_place(sizes: Any) -> None:
    def noted(number: int, info: SideOutput) -> list[Any]:
        return [(info.cause, info.time, number)]

    async def noted_later(number: int, info: SideOutput) -> list[Any]:
        return noted(number, info)

    for fn in (noted, noted_later):
        described: dict[str, Any] = {"window": Window.fixed(10, by=float), "reduction": total(), "on_late": fn}
        emitted = result([1, 12, 2, 25], sizes, **described, emission=emit("state"), after=chain(("map", str)))
        assert emitted == ["1", "('late', 2.0, 2)", "12", "25"]


def test_an_element_too_far_ahead_is_put_aside() -> None:
    window = Window.fixed(10, by=float, max_ahead=60)
    work = Work(layer(window=window, reduction=total(), emission=emit("state"), on_late=lambda _, info: [info.cause]))
    elements_of(work.start(0.0))
    assert elements_of(work.feed(Frame([1, 200]), 0.0, 100.0)) == ["future_event_time"]
    assert elements_of(work.end(0.0)) == [1]
    assert (work.late, work.ahead) == (0, 1)


def test_an_error_of_on_late_leaves_the_element_out() -> None:
    def fails(number: int, info: SideOutput) -> list[Any]:
        raise StopIteration

    described: dict[str, Any] = {"window": Window.fixed(10, by=float), "on_late": fails, "mappers": chain(("map", str))}
    work = Work(layer(**described), on_error="skip")
    assert run(work, [1, 12, 2, 25]) == ["1", "12", "25"]
    assert work.errors.skipped == {"layer, on_late: fails": 1}
    with pytest.raises(OperatorError) as caught:
        result([1, 12, 2], **described)
    assert (caught.value.failed.operator, caught.value.failed.element) == ("layer, on_late: fails", 2)


def test_an_element_without_a_time_is_an_error() -> None:
    described: dict[str, Any] = {"window": Window.fixed(10, by=len), "mappers": chain(("map", str))}
    with pytest.raises(OperatorError) as caught:
        result(["a", 5], **described)
    assert (caught.value.failed.operator, caught.value.failed.element) == ("layer, window: len", 5)
    work = Work(layer(**described), on_error="skip")
    assert run(work, ["a", 5, "bb"]) == ["a", "bb"]
    assert work.errors.skipped == {"layer, window: len": 1}


def test_the_place_of_an_element_in_a_window_is_not_known() -> None:
    def fails(number: int) -> float:
        return 1 / (number - 7)

    with pytest.raises(OperatorError) as caught:
        result(range(10), (10,), window=Window.count(5), mappers=chain(("map", fails)))
    assert (caught.value.failed.element, caught.value.failed.index) == (7, None)


def test_an_error_of_the_trigger_function_ends_the_flow() -> None:
    def wrong(events: list[int], state: int) -> Any:
        return 1 // state

    work = Work(layer(window=Window.count(3).trigger(int, wrong), reduction=total()), on_error="skip")
    with pytest.raises(OperatorError) as caught:
        run(work, [1])
    assert caught.value.failed.operator == "layer, trigger: wrong"
    assert isinstance(caught.value.failed.error, ZeroDivisionError)


def test_times_that_were_read_before_are_used() -> None:
    stage = Work(
        layer(window=Window.fixed(10, by=fails_if_called), reduction=total(), emission=emit("state")), sources=[3, 4]
    )
    assert elements_of(stage.start(0.0)) == []

    def feed(elements: list[Any], source: int, number: int, high: int | None) -> list[Any]:
        stamped = times.read(elements)
        stamped_high = None if high is None else high * 1_000_000
        frame = Frame(elements, origin=Origin(source, number), stamped=stamped, high=stamped_high)
        return elements_of(stage.feed(frame, 0.0))

    times = EventTimes(float)
    assert feed([1, 2], 3, 0, 12) == []
    assert feed([], 4, 0, 9) == []
    assert feed([], 4, 1, 10) == [3]
    assert feed([9, 11], 3, 1, 11) == []
    assert stage.late == 1
    assert elements_of(stage.source_ended(4, 0.0)) == []
    assert feed([], 3, 2, 20) == [11]
    assert feed([21], 3, 3, 21) == []
    assert elements_of(stage.source_ended(3, 0.0)) == [21]
    assert elements_of(stage.end(0.0)) == []
    assert (stage.windows_opened, stage.windows_closed) == (3, 3)


def fails_if_called(element: Any) -> float:
    raise LookupError


# --- the clock --------------------------------------------------------------------------------------------------------


@conforms("W-032", "W-033")
def test_periodic_windows_close_by_the_clock() -> None:
    work = Work(layer(window=Window.periodic(0.1).trigger_every(5), reduction=total(), emission=on_trigger(seen_by, 3)))
    elements_of(work.start(50.0))
    assert work.next_timer() == pytest.approx(50.1)
    assert elements_of(work.feed(Frame(list(range(1, 11))), 50.05)) == [("every", 0, 15), ("every", 0, 55)]
    assert elements_of(work.tick(50.1)) == [("done", 0, 55)]
    assert elements_of(work.tick(50.2)) == [("done", 1, 0)]
    assert elements_of(work.end(50.25)) == [("done", 2, 0)]
    assert work.next_timer() is None


@conforms("W-018", "W-030", "W-039")
def test_periodic_triggers_fire_what_has_changed() -> None:
    for window in COUNTS:
        work = Work(layer(window=window.trigger_periodically(0.1), reduction=total(), emission=emit("state")))
        elements_of(work.start(0.0))
        assert elements_of(work.feed(Frame(list(range(1, 11))), 0.0)) == []
        assert elements_of(work.tick(0.1)) == [55]
        assert elements_of(work.tick(0.2)) == []


def test_a_silent_source_counts_as_idle_only_while_it_is_asked() -> None:
    window = Window.fixed(10, by=float, idle_timeout=60)
    work = Work(layer(window=window, reduction=total(), emission=emit("state")), sources=[0, 1])
    elements_of(work.start(0.0))
    elements_of(work.feed(Frame([5], origin=Origin(1, 0)), 0.0))
    elements_of(work.feed(Frame([1, 20], origin=Origin(0, 0)), 1.0))
    assert elements_of(work.pause(10.0)) == []
    assert elements_of(work.resume(1_000.0)) == []
    assert elements_of(work.feed(Frame([21], origin=Origin(0, 1)), 1_040.0)) == []
    assert work.next_timer() == 1_050.0
    assert elements_of(work.tick(1_050.0)) == [6]


# --- sessions ---------------------------------------------------------------------------------------------------------


def sessions(mappers: Any = (), emission: Any = None, gap: float = 10, **settings: Any) -> Layer:
    window = Window.session(gap, by=lambda event: event[1], delay=100)
    window = settings.pop("window", window)
    reduction = settings.pop("reduction", reduce(list, lambda kept, event: [*kept, event[1]]))
    return Layer(
        (FromIterable([]),),
        ByKey(lambda event: event[0]),
        window=window,
        mappers=mappers,
        reduction=reduction,
        emission=emission or emit("state"),
        **settings,
    )


EVENTS = [("a", 1.0), ("b", 2.0), ("a", 5.0), ("a", 16.0), ("a", 10.0), ("b", 50.0)]


@sizes
def test_sessions_of_a_key_become_one(sizes: Any) -> None:
    assert run(Work(sessions()), EVENTS, sizes) == [[2.0], [1.0, 5.0, 16.0, 10.0], [50.0]]


@sizes
@pytest.mark.parametrize("reset", [True, False])
def test_sessions_become_one_after_an_early_result(sizes: Any, reset: bool) -> None:
    def emits(state: int) -> tuple[list[int], int]:
        return [state], 0 if reset else state

    window = Window.session(10, by=lambda event: event[1], delay=100).trigger_every(2)
    counts = reduce(int, lambda count, _: count + 1)
    work = Work(sessions(reduction=counts, emission=on_trigger(emits), window=window))
    late = [("a", 1.0), ("a", 2.0), ("a", 21.0), ("a", 22.0), ("a", 23.0), ("a", 11.5)]
    expected = [2, 2, 2, 0] if reset else [2, 2, 6, 6]
    assert run(work, late, sizes) == expected


@sizes
def test_the_accumulators_of_sessions_are_combined(sizes: Any) -> None:
    def combine(one: list[float], other: list[float]) -> list[float]:
        return ["combined", *one, *other]  # type: ignore[list-item]

    kept = reduce(list, lambda kept, event: [*kept, event[1]], combine=combine)
    combined = run(Work(sessions(reduction=kept)), EVENTS, sizes)
    assert combined == [[2.0], ["combined", 1.0, 5.0, 16.0, 10.0], [50.0]]


@sizes
def test_uniq_in_sessions_that_become_one(sizes: Any) -> None:
    mappers = chain(("map", lambda event: event[1]), ("uniq", lambda time: time % 5))
    numbers = reduce(list, lambda kept, time: [*kept, time])
    assert run(Work(sessions(mappers, reduction=numbers)), EVENTS, sizes) == [[2.0], [1.0, 5.0], [50.0]]


def test_count_by_in_sessions_that_become_one() -> None:
    assert run(Work(sessions(reduction=count_by(lambda event: event[0])), on_error="raise"), EVENTS) == [
        {"b": 1},
        {"a": 4},
        {"b": 1},
    ]


def test_the_key_of_a_session_must_be_hashable() -> None:
    work = Work(sessions(), on_error="skip")
    assert run(work, [(["a"], 1.0), ("b", 2.0)]) == [[2.0]]
    assert work.errors.skipped == {"layer, key: <lambda>": 1}


def model_of_sessions(events: list[tuple[str, int]], gap: int) -> list[tuple[str, list[int]]]:
    """Returns the key and the times of each session, by its end."""
    found: list[tuple[str, list[int]]] = []
    for key in sorted({key for key, _ in events}):
        times = sorted(time for each, time in events if each == key)
        for place, time in enumerate(times):
            if place and time < times[place - 1] + gap:
                found[-1][1].append(time)
            else:
                found.append((key, [time]))
    return sorted(found, key=lambda session: (session[1][-1] + gap, session[1][0]))


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 40)), max_size=14),
    gap=st.integers(1, 8),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    is_combined=st.booleans(),
    every=st.none() | st.integers(1, 3),
)
def test_sessions_have_the_elements_that_are_near_each_other(
    events: list[tuple[str, int]], gap: int, sizes: list[int], is_combined: bool, every: int | None
) -> None:
    def taken(state: list[int]) -> tuple[list[Any], list[int]]:
        return state, []

    window = Window.session(gap, by=lambda event: event[1], delay=1_000)
    window = window if every is None else window.trigger_every(every)
    combine = (lambda one, other: [*one, *other]) if is_combined else None
    kept = reduce(list, lambda kept, event: [*kept, event[1]], combine=combine)
    # What was emitted early is not emitted again: so all is emitted once.
    emission = emit("state") if every is None else on_trigger(taken)
    out = run(Work(sessions(reduction=kept, window=window, emission=emission)), events, sizes)
    expected = [times for _, times in model_of_sessions(events, gap)]
    if every is None:
        assert sorted(map(sorted, out)) == sorted(expected)
        assert [max(each) for each in out] == [each[-1] for each in expected]
    else:
        assert sorted(out) == sorted(time for times in expected for time in times)
