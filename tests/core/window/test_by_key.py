"""The rules of aggregators: each firing is for a key, the watermark comes from outside, and late events fire again."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.window.effects import Merge
from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage

SECOND = 1_000_000


def stage_of(window: Window) -> Stage:
    return Stage(
        window, init=list, reduce=lambda times, event: [*times, event[0]], key=lambda event: event[1], by_key=True
    )


def fixed(**more: Any) -> Window:
    return Window.fixed(10, by=lambda event: event[0], **{"delay": 0, "max_ahead": None, **more})


def advance(stage: Stage, seconds: float) -> None:
    stage.carry_out(stage.engine.advance(round(seconds * SECOND), stage.now))


def told(stage: Stage) -> list[tuple[Any, ...]]:
    """Key, trigger, number, final, times of each firing since the last look."""
    found = [
        (firing.key, firing.trigger, firing.number, firing.final, times)
        for firing, times in zip(stage.firings, stage.emitted, strict=True)
    ]
    assert [firing.count for firing in stage.firings] == [len(times) for times in stage.emitted]
    stage.firings.clear()
    stage.emitted.clear()
    return found


def test_each_key_of_a_window_has_its_result_in_the_order_of_the_first_events() -> None:
    stage = stage_of(fixed())
    stage.give([(5, "x"), (1, "y"), (12, "x"), (2, "x")])
    assert told(stage) == []

    advance(stage, 10)

    assert {(firing.kind, firing.start, firing.end, firing.index) for firing in stage.firings} == {
        ("fixed", 0.0, 10.0, None)
    }
    assert told(stage) == [("x", "watermark", 1, True, [5, 2]), ("y", "watermark", 1, True, [1])]
    assert [window.start for window in stage.closed] == [0]


def test_events_do_not_move_a_watermark_that_comes_from_outside() -> None:
    stage = stage_of(fixed())
    stage.give([(5, "x"), (1_000, "x"), (6, "x")])

    assert (stage.engine.watermark, told(stage)) == (None, [])


def test_a_watermark_from_outside_does_not_go_back() -> None:
    stage = stage_of(fixed())
    advance(stage, 30)
    advance(stage, 20)
    stage.give([(25, "x"), (19, "x")])

    assert stage.engine.watermark == 30 * SECOND
    assert [side.event for side in stage.side] == [(25, "x"), (19, "x")]


def test_the_delay_of_an_aggregator_is_already_in_its_watermark() -> None:
    stage = stage_of(fixed(delay=500))
    stage.give([(5, "x")])
    advance(stage, 10)

    assert told(stage) == [("x", "watermark", 1, True, [5])]


def test_late_events_fire_their_key_again_once_a_checkpoint() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(1, "x"), (2, "y"), (3, "z")])
    advance(stage, 15)
    assert told(stage) == [(key, "watermark", 1, False, [time]) for time, key in ((1, "x"), (2, "y"), (3, "z"))]

    stage.give([(4, "y"), (5, "y"), (6, "new")])
    assert told(stage) == []
    stage.carry_out(stage.engine.fire_late(stage.now))
    assert told(stage) == [("y", "late", 2, False, [2, 4, 5]), ("new", "late", 1, False, [6])]
    stage.carry_out(stage.engine.fire_late(stage.now))
    assert told(stage) == []


def test_lateness_that_ends_without_news_emits_nothing() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(1, "x"), (2, "y")])
    advance(stage, 15)
    stage.give([(3, "y")])
    told(stage)

    advance(stage, 110)

    assert told(stage) == [("y", "late", 2, True, [2, 3])]
    assert len(stage.closed) == 1


def test_a_closed_window_fires_late_no_more() -> None:
    stage = stage_of(fixed(lateness=5))
    stage.give([(1, "x")])
    advance(stage, 12)
    stage.give([(2, "x")])
    advance(stage, 15)
    told(stage)

    stage.carry_out(stage.engine.fire_late(stage.now))

    assert told(stage) == []


def test_a_jump_past_the_lateness_fires_once_and_finally() -> None:
    stage = stage_of(fixed(lateness=5))
    stage.give([(1, "x")])

    advance(stage, 15)

    assert told(stage) == [("x", "watermark", 1, True, [1])]


def test_a_window_that_is_opened_behind_the_watermark_fires_as_late() -> None:
    stage = stage_of(fixed(lateness=100))
    advance(stage, 50)
    stage.give([(1, "x")])
    stage.carry_out(stage.engine.fire_late(stage.now))
    assert told(stage) == [("x", "late", 1, False, [1])]

    advance(stage, 110)

    assert told(stage) == []


def test_count_triggers_count_each_key_of_a_window() -> None:
    stage = stage_of(fixed().trigger_every(2))
    stage.give([(1, "x"), (2, "y"), (3, "x"), (4, "x"), (5, "y"), (6, "x")])
    assert told(stage) == [
        ("x", "every", 1, False, [1, 3]),
        ("y", "every", 1, False, [2, 5]),
        ("x", "every", 2, False, [1, 3, 4, 6]),
    ]

    advance(stage, 10)

    assert told(stage) == [("x", "watermark", 3, True, [1, 3, 4, 6]), ("y", "watermark", 2, True, [2, 5])]


def test_periodic_triggers_fire_the_keys_that_changed() -> None:
    stage = stage_of(fixed().trigger_periodically(1))
    stage.give([(1, "x"), (2, "y")])
    stage.pass_time(1)
    assert told(stage) == [("x", "periodic", 1, False, [1]), ("y", "periodic", 1, False, [2])]
    stage.give([(3, "y")])
    stage.pass_time(1)
    assert told(stage) == [("y", "periodic", 2, False, [2, 3])]

    stage.pass_time(10)

    assert told(stage) == []


@pytest.mark.parametrize("what", ["advance", "fire_late", "end"])
def test_what_is_due_by_the_clock_comes_first(what: str) -> None:
    stage = stage_of(fixed(lateness=100).trigger_periodically(1))
    stage.give([(1, "x")])
    engine = stage.engine

    if what == "advance":
        stage.carry_out(engine.advance(10 * SECOND, 5.0))
    elif what == "fire_late":
        stage.carry_out(engine.fire_late(5.0))
    else:
        stage.carry_out(engine.end(5.0))

    assert stage.firings[0].trigger == "periodic"
    assert len(stage.firings) == (1 if what == "fire_late" else 2)


def test_count_windows_are_of_a_key_and_empty_ones_emit_nothing() -> None:
    stage = stage_of(Window.count(2))
    stage.give([(1, "x"), (2, "y"), (3, "x"), (4, "x")])
    assert told(stage) == [("x", "count", 1, True, [1, 3])]

    stage.end()

    assert told(stage) == [("y", "end", 1, True, [2]), ("x", "end", 1, True, [4])]
    assert [window.index for window in stage.closed] == [0, 1, 2]
    assert list(stage.engine.open_windows()) == []


def test_periodic_windows_have_a_result_for_each_key_that_came() -> None:
    stage = stage_of(Window.periodic(10))
    stage.give([(1, "x"), (2, "y"), (3, "x")])
    stage.pass_time(10)
    assert told(stage) == [("x", "periodic", 1, True, [1, 3]), ("y", "periodic", 1, True, [2])]

    stage.pass_time(10)

    assert told(stage) == []


def test_the_global_window_has_a_result_for_each_key_at_the_end() -> None:
    stage = stage_of(Window.global_())
    stage.give([(1, "x"), (2, "y"), (3, "x")])

    stage.end()

    assert told(stage) == [("x", "end", 1, True, [1, 3]), ("y", "end", 1, True, [2])]


def test_the_end_of_the_input_fires_what_has_news() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(1, "x"), (2, "y"), (15, "z")])
    advance(stage, 12)
    stage.give([(3, "y")])
    told(stage)

    stage.end()

    assert told(stage) == [("y", "end", 2, True, [2, 3]), ("z", "end", 1, True, [15])]


def test_a_session_that_merges_after_a_firing_says_so_and_fires_again() -> None:
    window = Window.session(10, by=lambda event: event[0], delay=0, lateness=100, max_ahead=None)
    stage = stage_of(window)
    stage.give([(0, "x"), (15, "x")])
    advance(stage, 25)
    assert told(stage) == [("x", "gap", 1, False, [0]), ("x", "gap", 1, False, [15])]

    stamped = stage.engine.read([(8, "x")])
    stamped.keys = ["x"]
    effects = stage.engine.feed(stamped, stage.now)
    (merge,) = (each for each in effects if isinstance(each, Merge))
    stage.carry_out(effects)
    stage.carry_out(stage.engine.fire_late(stage.now))

    assert (merge.window.number, merge.absorbed.number) == (2, 1)
    assert told(stage) == [("x", "late", 2, False, [0, 15, 8])]


def test_a_session_that_goes_on_fires_on_time_and_not_as_late() -> None:
    window = Window.session(10, by=lambda event: event[0], delay=0, lateness=100, max_ahead=None)
    stage = stage_of(window)
    advance(stage, 41)
    stage.give([(31, "x"), (32, "x")])
    stage.carry_out(stage.engine.fire_late(stage.now))
    assert told(stage) == []

    advance(stage, 42)

    assert told(stage) == [("x", "gap", 1, False, [31, 32])]


def test_windows_by_key_need_a_key_for_each_event() -> None:
    stage = stage_of(fixed())

    with pytest.raises(TypeError) as refused:
        stage.engine.feed(stage.engine.read([(1, "x")]), 0.0)

    assert str(refused.value) == "these windows need a key for each of the 1 events: set stamped.keys"
