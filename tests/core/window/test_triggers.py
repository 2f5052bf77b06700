"""Triggers: functions that decide, what they may return, and what is independent of how events are cut."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.window.effects import Add
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage


def by_function(function: Any) -> Stage:
    return Stage(Window.global_().trigger(int, function), init=list, reduce=lambda state, event: [*state, event])


@pytest.mark.parametrize(
    ("returned", "came"),
    [
        (None, "a NoneType"),
        (("cont",), "a tuple of 1"),
        (("go on", 1), "a tuple of 2"),
        (("cont", 5, 1), "a tuple of 3"),
        (("trigger", 5, [], [], 1), "a tuple of 5"),
        (("trigger", "name", [], 1), "a tuple of 4"),
        (["cont"], "a list"),
    ],
)
def test_what_a_trigger_function_may_not_return_is_refused(returned: Any, came: str) -> None:
    stage = by_function(lambda *_: returned)

    with pytest.raises(ValueError, match="trigger function") as refused:
        stage.give([1])

    assert str(refused.value) == (
        "expected ('cont', state), ('cont', events, state) or ('trigger', name, before, after, state) "
        f"from the trigger function, got {came}"
    )


def test_a_function_that_takes_nothing_twice_in_a_row_is_stopped() -> None:
    stage = by_function(lambda events, state: ("trigger", "again", [], events, state))

    with pytest.raises(ValueError, match="twice") as refused:
        stage.give([1, 2])

    assert str(refused.value) == "the trigger function took no event twice in a row; it would go on for ever"


def test_a_function_may_take_nothing_every_other_time() -> None:
    def alternate(events: list[int], state: int) -> tuple[Any, ...]:
        taken = state % 2
        return "trigger", f"{state}", events[:taken], events[taken:], state + 1

    stage = by_function(alternate)
    stage.give([1, 2, 3])

    assert [firing.trigger for firing in stage.firings] == ["0", "1", "2", "3", "4", "5"]
    assert stage.emitted == [[], [1], [1], [1, 2], [1, 2], [1, 2, 3]]


def test_a_function_is_not_called_again_when_nothing_is_left() -> None:
    calls = []

    def all_at_once(events: list[int], state: int) -> tuple[Any, ...]:
        calls.append(list(events))
        return "trigger", "all", events, [], state + len(events)

    stage = by_function(all_at_once)
    stage.give([1, 2])
    stage.give([3])

    assert calls == [[1, 2], [3]]
    assert stage.emitted == [[1, 2], [1, 2, 3]]


def test_a_function_may_drop_events() -> None:
    stage = by_function(lambda events, state: ("cont", [event for event in events if event % 2], state))
    stage.give([1, 2, 3, 4])
    stage.end("a")

    assert stage.emitted == [[1, 3]]
    assert stage.firings[0].count == 2


def test_each_window_has_a_state_of_its_own() -> None:
    window = Window.sliding(2, 1, by=lambda event: event).trigger(list, lambda events, seen: ("cont", [*seen, *events]))
    stage = Stage(window)
    stage.give([0, 1, 1])

    assert {each.start: each.trigger_state for each in stage.engine.open_windows()} == {
        0: [0, 1, 1],
        1_000_000: [1, 1],
    }


def test_a_count_window_counts_what_it_was_given_and_not_what_a_function_let_through() -> None:
    window = Window.count(3).trigger(int, lambda events, state: ("cont", events[:1], state))
    stage = Stage(window)
    stage.give([1, 2, 3, 4], demand=3)
    stage.end("a")

    assert stage.emitted == [1, 4]


@pytest.mark.parametrize(
    "window",
    [Window.count(3), Window.count(3).trigger_every(2), Window.global_(), Window.fixed(2, by=lambda event: event)],
)
def test_keys_stay_with_their_events_where_a_list_is_cut(window: Window) -> None:
    engine = Engine(window, 0.0)
    engine.join("a", 0.0)
    stamped = engine.read([0, 1, 2, 3, 4, 5, 6])
    stamped.keys = [f"key {event}" for event in stamped.events]

    added = [effect for effect in engine.feed(stamped, 0.0, upstream="a") if isinstance(effect, Add)]

    assert [event for effect in added for event in effect.events] == [0, 1, 2, 3, 4, 5, 6]
    assert [key for effect in added for key in effect.keys or ()] == stamped.keys


@pytest.mark.parametrize("demand", [1, 2, 3, 100])
def test_sliding_windows_fire_after_the_event_that_is_their_nth(demand: int) -> None:
    stage = Stage(Window.sliding(4, 2, by=lambda event: event).trigger_every(2))
    stage.give([0, 2, 3, 5], demand=demand)

    assert stage.story[:9] == [
        ("add", 0),
        ("add", 0),
        ("add", 2),
        ("add", 2),
        ("fire", "every", 1, False, None, 2),
        ("fire", "done", 1, True, None, 0),
        ("add", 3),
        ("add", 3),
        ("fire", "every", 1, False, None, 5),
    ]


def test_numbers_go_on_over_all_triggers_and_the_last_one_is_final() -> None:
    window = Window.fixed(10, by=float, lateness=5).trigger_every(2).trigger_on_time().trigger_periodically(1)
    stage = Stage(window)
    stage.give([1, 2, 3])
    stage.pass_time(1)
    stage.give([12])
    stage.give([20])

    assert [(firing.trigger, firing.number, firing.final) for firing in stage.firings if firing.start == 0.0] == [
        ("every", 1, False),
        ("periodic", 2, False),
        ("watermark", 3, False),
        ("done", 4, True),
    ]
