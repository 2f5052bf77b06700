"""The worked examples of the contract, and each of its tests about windows, at any demand."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from broadway_py._core.window.firing import Firing
from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage
from tests.support.conformance import conforms

HUNDRED = list(range(1, 101))
RUNNING_SUMS = [sum(range(1, last + 1)) for last in range(10, 101, 10)]
SUMS_OF_TEN = [sum(range(first, first + 10)) for first in range(1, 101, 10)]
at_any_demand = pytest.mark.parametrize("demand", [1, 5, 7, 1_000])


def reset(state: Any, firing: Firing) -> tuple[list[Any], Any]:
    return [state], 0


def with_names(state: Any, firing: Firing) -> tuple[list[Any], Any]:
    return [(firing.trigger, state)], 0


def ordered(number: int) -> float:
    """Two windows of a second, one after the other."""
    return (number if number <= 50 else 1_000 + number) / 1_000


def unordered(number: int) -> float:
    """Twenty events of the first window come after those of the third one."""
    return 2.0 if 40 < number <= 80 else 0.0


def run(window: Window, events: list[Any] = HUNDRED, demand: int = 1_000, **more: Any) -> Stage:
    stage = Stage(window, **more)
    stage.give(events, demand=demand)
    stage.end("a")
    return stage


# --- the documentation ----------------------------------------------------------------------------------------------


@at_any_demand
@conforms("W-001", "W-007")
def test_a_global_window_fires_after_each_ten_events(demand: int) -> None:
    assert run(Window.global_().trigger_every(10), demand=demand).emitted == [*RUNNING_SUMS, 5050]


WORDS = [
    ("elixir", 0.0),
    ("elixir", 1.0),
    ("erlang", 60.0),
    ("concurrency", 3_200.0),
    ("elixir", 4_000.0),
    ("erlang", 5_000.0),
    ("erlang", 6_000.0),
]
FIRST_HOUR, SECOND_HOUR = {"elixir": 2, "erlang": 1, "concurrency": 1}, {"elixir": 1, "erlang": 2}


def counted(events: list[tuple[str, float]], demand: int, **settings: Any) -> Stage:
    def count(words: Counter[str], event: tuple[str, float]) -> Counter[str]:
        return words + Counter([event[0]])

    window = Window.fixed("1h", by=lambda event: event[1], **settings)
    return run(window, events, demand, init=Counter, reduce=count)


@at_any_demand
@conforms("W-002")
def test_words_are_counted_by_the_hour(demand: int) -> None:
    assert counted(WORDS, demand).emitted == [FIRST_HOUR, SECOND_HOUR]


@at_any_demand
@conforms("W-003")
def test_a_word_that_comes_an_hour_too_late_goes_to_the_side(demand: int) -> None:
    stage = counted([*WORDS[1:], WORDS[0]], demand)

    assert stage.emitted == [{**FIRST_HOUR, "elixir": 1}, SECOND_HOUR]
    assert [(side.event, side.time, side.cause) for side in stage.side] == [(("elixir", 0.0), 0.0, "late")]


@at_any_demand
@conforms("W-004")
def test_with_lateness_each_window_comes_once(demand: int) -> None:
    stage = counted([*WORDS[1:], WORDS[0]], demand, lateness="1h")

    assert stage.emitted == [FIRST_HOUR, SECOND_HOUR]
    assert stage.side == []


@at_any_demand
@conforms("W-005")
def test_count_windows_of_ten_and_the_open_one_at_the_end(demand: int) -> None:
    assert run(Window.count(10), demand=demand).emitted == [*SUMS_OF_TEN, 0]
    assert run(Window.count(10), list(range(1, 26)), demand).emitted == [55, 155, 115]
    assert run(Window.count(10), []).emitted == [0]


@at_any_demand
@conforms("W-006")
def test_sessions_of_a_key_end_with_a_gap(demand: int) -> None:
    logins = [
        ("elixir", 2_000_000),
        ("erlang", 3_100_000),
        ("elixir", 3_200_000),
        ("erlang", 4_000_000),
        ("elixir", 4_100_000),
        ("erlang", 4_150_000),
    ]
    window = Window.session(1_000_000, by=lambda event: event[1], longest=None)

    stage = run(
        window,
        logins,
        demand,
        init=lambda: (0, 0),
        reduce=lambda seen, event: (seen[0] + 1, event[1]),
        key=lambda event: event[0],
    )

    assert [(firing.key, seen) for firing, seen in zip(stage.firings, stage.emitted, strict=True)] == [
        ("elixir", (1, 2_000_000)),
        ("elixir", (2, 4_100_000)),
        ("erlang", (3, 4_150_000)),
    ]


# --- trigger functions ----------------------------------------------------------------------------------------------


def moving(instead: list[str]) -> Window:
    """Fires for each two neighbours."""

    def pairs(events: list[str], held: list[str]) -> tuple[Any, ...]:
        events = [*held, *events]
        if len(events) < 2:
            return "cont", instead, events
        return "trigger", "pair", events[:2], events[1:], []

    return Window.global_().trigger(list, pairs)


def pairs_of(window: Window) -> list[list[str]]:
    def only_pairs(state: list[str], firing: Firing) -> tuple[list[Any], list[str]]:
        return ([sorted(state)] if firing.trigger == "pair" else []), []

    return run(
        window, list("abcabc"), 3, init=list, reduce=lambda state, event: [*state, event], on_trigger=only_pairs
    ).emitted


@conforms("W-009")
def test_a_trigger_function_may_hold_events_back() -> None:
    assert pairs_of(moving([])) == [list("ab"), list("bc"), list("ac"), list("ab"), list("bc")]


@conforms("W-010")
def test_what_a_trigger_function_gives_instead_joins_the_next_state() -> None:
    assert pairs_of(moving(["elixir"])) == [list("ab"), list("bc"), ["a", "c", "elixir"], list("ab"), list("bc")]


def seen_raw(window: Window) -> tuple[list[int], list[Any]]:
    seen: list[int] = []

    def look(events: list[int], state: None) -> tuple[str, None]:
        seen.extend(events)
        return "cont", state

    reduce = lambda total, event: total + (event + 1) * 2  # noqa: E731  # a mapper and a reducer
    return seen, run(window.trigger(lambda: None, look), list(range(1, 11)), reduce=reduce).emitted


@conforms("W-016")
def test_the_trigger_function_of_a_count_window_sees_raw_events() -> None:
    assert seen_raw(Window.count(1_000)) == (list(range(1, 11)), [130])


@conforms("W-028")
def test_the_trigger_function_of_a_global_window_sees_raw_events() -> None:
    assert seen_raw(Window.global_()) == (list(range(1, 11)), [130])


@conforms("W-037")
def test_the_trigger_function_of_a_fixed_window_sees_raw_events() -> None:
    assert seen_raw(Window.fixed(1_000, by=float)) == (list(range(1, 11)), [130])


# --- count windows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [Window.count(1_000), Window.fixed(1_000, by=float)])
@conforms("W-011", "W-034")
def test_stages_add_up_to_the_whole(window: Window) -> None:
    stages = [Stage(window, upstreams=range(4)) for _ in range(4)]
    for number in HUNDRED:
        stages[number % 4].give([number], upstream=number // 25 % 4)
    for stage in stages:
        stage.end(*range(4))

    assert sum(sum(stage.emitted) for stage in stages) == 5050


@at_any_demand
@conforms("W-012", "W-013")
def test_a_trigger_of_a_count_window_keeps_the_state(demand: int) -> None:
    assert run(Window.count(1_000).trigger_every(10), demand=demand).emitted == [*RUNNING_SUMS, 5050]


@at_any_demand
@conforms("W-014", "W-015")
def test_a_trigger_of_a_count_window_may_reset_the_state(demand: int) -> None:
    stage = run(Window.count(1_000).trigger_every(10), demand=demand, on_trigger=reset)

    assert stage.emitted == [*SUMS_OF_TEN, 0]


@conforms("W-017")
def test_firings_of_a_count_window_have_names_and_numbers() -> None:
    stage = run(Window.count(1_000).trigger_every(10), on_trigger=with_names)

    assert stage.emitted == [*(("every", each) for each in SUMS_OF_TEN), ("done", 0)]
    assert [(firing.number, firing.final) for firing in stage.firings] == [
        *((number, False) for number in range(1, 11)),
        (11, True),
    ]
    assert {(firing.kind, firing.index, firing.start, firing.end, firing.key) for firing in stage.firings} == {
        ("count", 0, None, None, None)
    }
    assert [firing.count for firing in stage.firings] == [*range(10, 101, 10), 100]


def periodic_of(window: Window) -> list[Any]:
    stage = Stage(window.trigger_periodically("100ms"), on_trigger=lambda state, _: ([state * 2], state))
    stage.give(list(range(1, 11)))
    stage.pass_time(0.0999)
    assert stage.emitted == []
    stage.pass_time(10.0)
    return stage.emitted


@conforms("W-018")
def test_a_count_window_fires_periodically_if_it_changed() -> None:
    assert periodic_of(Window.count(1_000)) == [110]


def sampled(window: Window) -> list[tuple[Any, Firing]]:
    stage = Stage(window, on_trigger=lambda state, firing: ([(state * 2, firing)], state))
    stage.give(list(range(1, 11)))
    stage.carry_out(stage.engine.fire("sample", stage.now))
    return stage.emitted


@conforms("W-019")
def test_a_count_window_fires_when_it_is_told_to() -> None:
    assert sampled(Window.count(1_000)) == [
        (110, Firing("count", None, None, 0, None, "sample", 1, final=False, count=10))
    ]


@at_any_demand
@conforms("W-020", "W-022")
def test_two_full_count_windows_and_an_empty_one(demand: int) -> None:
    stage = run(Window.count(50), demand=demand)

    assert stage.emitted == [1275, 3775, 0]
    assert [(firing.index, firing.count) for firing in stage.firings] == [(0, 50), (1, 50), (2, 0)]


@at_any_demand
@conforms("W-021", "W-023")
def test_the_trigger_counts_each_count_window_anew(demand: int) -> None:
    stage = run(Window.count(50).trigger_every(12), demand=demand)

    assert [(firing.index, firing.trigger) for firing in stage.firings] == [
        *[(0, "every")] * 4,
        (0, "done"),
        *[(1, "every")] * 4,
        (1, "done"),
        (2, "done"),
    ]
    assert stage.emitted == [78, 300, 666, 1176, 1275, 678, 1500, 2466, 3576, 3775, 0]


# --- the global window ----------------------------------------------------------------------------------------------


@at_any_demand
@conforms("W-024", "W-025")
def test_a_trigger_of_the_global_window_keeps_the_state(demand: int) -> None:
    assert run(Window.global_().trigger_every(10), demand=demand).emitted == [*RUNNING_SUMS, 5050]


@at_any_demand
@conforms("W-026", "W-027")
def test_a_trigger_of_the_global_window_may_reset_the_state(demand: int) -> None:
    assert run(Window.global_().trigger_every(10), demand=demand, on_trigger=reset).emitted == [*SUMS_OF_TEN, 0]


@conforms("W-029")
def test_firings_of_the_global_window_have_names() -> None:
    stage = run(Window.global_().trigger_every(10), on_trigger=with_names)

    assert stage.emitted == [*(("every", each) for each in SUMS_OF_TEN), ("done", 0)]
    assert {(firing.kind, firing.index) for firing in stage.firings} == {("global", None)}


@conforms("W-030")
def test_the_global_window_fires_periodically_if_it_changed() -> None:
    assert periodic_of(Window.global_()) == [110]


@conforms("W-031")
def test_the_global_window_fires_when_it_is_told_to() -> None:
    assert sampled(Window.global_()) == [
        (110, Firing("global", None, None, None, None, "sample", 1, final=False, count=10))
    ]


# --- periodic windows -----------------------------------------------------------------------------------------------


@conforms("W-032")
def test_a_periodic_window_without_events_emits_an_empty_accumulator() -> None:
    stage = Stage(Window.periodic("100ms"))
    stage.give(list(range(1, 11)))

    stage.pass_time(0.2)

    assert stage.emitted == [55, 0]
    assert [(firing.index, firing.start, firing.end, firing.trigger) for firing in stage.firings] == [
        (0, 0.0, 0.1, "done"),
        (1, 0.1, 0.2, "done"),
    ]


@conforms("W-033")
def test_a_periodic_window_may_have_a_count_trigger() -> None:
    stage = run(Window.periodic("100ms").trigger_every(5), list(range(1, 11)))

    assert [(state, firing.trigger) for state, firing in zip(stage.emitted, stage.firings, strict=True)] == [
        (15, "every"),
        (55, "every"),
        (55, "done"),
    ]


# --- fixed windows --------------------------------------------------------------------------------------------------


@at_any_demand
@conforms("W-035", "W-036")
def test_a_trigger_of_a_fixed_window_keeps_the_state(demand: int) -> None:
    assert run(Window.fixed(1_000, by=float).trigger_every(10), demand=demand).emitted == [*RUNNING_SUMS, 5050]


@conforms("W-038")
def test_firings_of_a_fixed_window_have_names_and_bounds() -> None:
    stage = run(Window.fixed(1_000, by=float).trigger_every(10), on_trigger=with_names)

    assert stage.emitted == [*(("every", each) for each in SUMS_OF_TEN), ("done", 0)]
    assert {(firing.kind, firing.start, firing.end, firing.index) for firing in stage.firings} == {
        ("fixed", 0.0, 1_000.0, None)
    }


@conforms("W-039")
def test_a_fixed_window_fires_periodically_if_it_changed() -> None:
    assert periodic_of(Window.fixed(1_000, by=float)) == [110]


@conforms("W-040")
def test_a_fixed_window_fires_when_it_is_told_to() -> None:
    assert sampled(Window.fixed(1_000, by=float)) == [
        (110, Firing("fixed", 0.0, 1_000.0, None, None, "sample", 1, final=False, count=10))
    ]


@at_any_demand
@conforms("W-041", "W-043")
def test_two_fixed_windows_one_after_the_other(demand: int) -> None:
    assert run(Window.fixed(1, by=ordered), demand=demand).emitted == [1275, 3775]


@at_any_demand
@conforms("W-042", "W-044")
def test_what_happened_first_comes_out_first_at_any_demand(demand: int) -> None:
    stage = run(Window.fixed(1, by=ordered).trigger_every(12), demand=demand)

    assert stage.emitted == [78, 300, 666, 1176, 1275, 678, 1500, 2466, 3576, 3775]


@conforms("W-045")
def test_a_window_that_is_still_open_fires_periodically() -> None:
    stage = Stage(Window.fixed(1, by=ordered).trigger_periodically("100ms"))
    stage.give(HUNDRED)

    stage.pass_time(1.0)

    assert [
        (state, firing.start, firing.trigger) for state, firing in zip(stage.emitted, stage.firings, strict=True)
    ] == [
        (1275, 0.0, "done"),
        (3775, 1.0, "periodic"),
    ]


@at_any_demand
@conforms("W-046", "W-048")
def test_events_of_a_closed_window_are_late_at_any_demand(demand: int) -> None:
    stage = run(Window.fixed(1, by=unordered), demand=demand)

    assert stage.emitted == [820, 2420]
    assert [side.event for side in stage.side] == list(range(81, 101))
    assert stage.engine.late == 20


@at_any_demand
@conforms("W-047", "W-049")
def test_late_events_trigger_nothing_at_any_demand(demand: int) -> None:
    stage = run(Window.fixed(1, by=unordered).trigger_every(12), demand=demand)

    assert stage.emitted == [78, 300, 666, 820, 558, 1260, 2106, 2420]
    assert [firing.start for firing in stage.firings] == [0.0] * 4 + [2.0] * 4


@conforms("W-050")
def test_a_window_that_nobody_opened_does_not_fire_periodically() -> None:
    stage = Stage(Window.fixed(1, by=unordered).trigger_periodically("100ms"))
    stage.give(HUNDRED)

    stage.pass_time(1.0)

    assert [
        (state, firing.start, firing.trigger) for state, firing in zip(stage.emitted, stage.firings, strict=True)
    ] == [
        (820, 0.0, "done"),
        (2420, 2.0, "periodic"),
    ]


@pytest.mark.parametrize("trigger_every", [None, 12])
def test_with_enough_lateness_nobody_is_late(trigger_every: int | None) -> None:
    window = Window.fixed(1, by=unordered, lateness=2)

    stage = run(window if trigger_every is None else window.trigger_every(trigger_every))

    assert [state for state, firing in zip(stage.emitted, stage.firings, strict=True) if firing.final] == [2630, 2420]
    assert stage.side == []


def from_two_upstreams(window: Window, demand: int) -> Stage:
    """The events come from both in turn, in lists of *demand*."""
    stage = Stage(window, upstreams=("a", "b"))
    for number, begin in enumerate(range(0, 100, demand)):
        stage.give(HUNDRED[begin : begin + demand], upstream="ab"[number % 2])
    stage.end("a", "b")
    return stage


@conforms("W-051")
def test_an_upstream_that_has_shown_nothing_keeps_all_windows_open() -> None:
    assert from_two_upstreams(Window.fixed(1, by=unordered), 1_000).emitted == [2630, 2420]


@conforms("W-052")
def test_an_upstream_that_has_shown_nothing_holds_back_no_count_trigger() -> None:
    stage = from_two_upstreams(Window.fixed(1, by=unordered).trigger_every(12), 1_000)

    assert stage.emitted == [78, 300, 666, 558, 1260, 2106, 1496, 2630, 2630, 2420]


@conforms("W-053")
def test_the_end_of_an_upstream_no_longer_holds_windows_open() -> None:
    stage = Stage(Window.fixed(1, by=unordered), upstreams=("a", "b"))
    stage.give(HUNDRED[:80])
    stage.end("b")
    assert stage.emitted == [820]
    stage.give(HUNDRED[80:])
    stage.end("a")

    assert stage.emitted == [820, 2420]
    assert len(stage.side) == 20


@pytest.mark.parametrize("demand", [1, 5])
@conforms("W-054")
def test_the_watermark_is_that_of_the_slowest_upstream(demand: int) -> None:
    stage = from_two_upstreams(Window.fixed(1, by=unordered).trigger_every(12), demand)

    assert stage.emitted == [78, 300, 666, 820, 558, 1260, 2106, 2420]


@at_any_demand
@conforms("W-055", "W-057")
def test_a_window_fires_on_time_and_again_when_its_lateness_has_run(demand: int) -> None:
    stage = run(Window.fixed(1, by=unordered, lateness="1h").trigger_on_time(), demand=demand)

    assert [
        (state, firing.trigger, firing.number) for state, firing in zip(stage.emitted, stage.firings, strict=True)
    ] == [
        (820, "watermark", 1),
        (2630, "done", 2),
        (2420, "done", 1),
    ]
    assert stage.side == []


@at_any_demand
@conforms("W-056", "W-058")
def test_a_window_fires_on_time_between_its_count_triggers(demand: int) -> None:
    stage = run(Window.fixed(1, by=unordered, lateness="1h").trigger_on_time().trigger_every(12), demand=demand)

    assert stage.emitted == [78, 300, 666, 820, 558, 1260, 2106, 1496, 2630, 2630, 2420]
    assert [firing.trigger for firing in stage.firings] == [
        *["every"] * 3,
        "watermark",
        *["every"] * 5,
        "done",
        "done",
    ]


# --- defects of the original that are listed with these numbers -----------------------------------------------------


@at_any_demand
def test_the_first_event_does_not_decide_when_time_begins(demand: int) -> None:
    stage = run(Window.fixed(1, by=lambda event: event, lateness=3_600), [2.5, 1.5, 0.5, 3.5], demand)

    assert [firing.start for firing in stage.firings] == [0.0, 1.0, 2.0, 3.0]
    assert stage.side == []


@pytest.mark.parametrize("demand", [1, 2])
def test_windows_far_apart_cost_what_neighbours_cost(demand: int) -> None:
    # Between these, there are so many windows that one look at each would take seconds of processor time.
    begin = time.process_time()

    stage = run(Window.fixed(0.001, by=lambda event: event), [-5_000, 5_000], demand)

    assert time.process_time() - begin < 0.2
    assert stage.emitted == [-5_000, 5_000]


def test_no_distance_between_two_events_is_too_far() -> None:
    assert run(Window.fixed(0.001, by=lambda event: event), [-1e9, 1e9], 1).emitted == [-1e9, 1e9]


def test_datetimes_come_back_as_datetimes() -> None:
    stage = run(
        Window.fixed("1h", by=lambda event: event),
        [datetime(2024, 1, 1, 5, 30, tzinfo=UTC)],
        init=list,
        reduce=lambda *_: 1,
    )

    (firing,) = stage.firings
    assert (firing.start, firing.end) == (datetime(2024, 1, 1, 5, tzinfo=UTC), datetime(2024, 1, 1, 6, tzinfo=UTC))


def test_the_open_window_of_a_stage_without_input_comes_at_the_end() -> None:
    assert run(Window.global_(), []).emitted == [0]
    assert run(Window.periodic(1), []).emitted == [0]
    assert run(Window.fixed(1, by=float), []).emitted == []
