"""What an aggregator stores of its windows: ids that never change, restarts, and settings that are others then."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from broadway_py._core.window.effects import OpenWindow
from broadway_py._core.window.keyed import KeyedEngine
from broadway_py._core.window.saved import SavedWindow, WindowFacts, result_id, text_of_shape
from broadway_py._core.window.spec import Window
from broadway_py.errors import OptionsError
from tests.core.window.keyed_streams import restart
from tests.core.window.stage import Stage

SECOND = 1_000_000


def by(event: Any) -> float:
    return float(event[0])


def fixed(size: float = 10, **more: Any) -> Window:
    return Window.fixed(size, by=by, **{"delay": 0, "max_ahead": None, **more})


def session(gap: float = 10, **more: Any) -> Window:
    return Window.session(gap, by=by, **{"delay": 0, "max_ahead": None, "longest": None, **more})


def stage_of(window: Window) -> Stage:
    return Stage(
        window, init=list, reduce=lambda times, event: [*times, event[0]], key=lambda event: event[1], by_key=True
    )


def keyed(stage: Stage) -> KeyedEngine:
    assert isinstance(stage.engine, KeyedEngine)
    return stage.engine


def advance(stage: Stage, seconds: float) -> None:
    stage.carry_out(stage.engine.advance(round(seconds * SECOND), stage.now))


def fire_late(stage: Stage) -> None:
    stage.carry_out(stage.engine.fire_late(stage.now))


def told(stage: Stage) -> list[tuple[Any, ...]]:
    """Trigger, number, final, times of each firing since the last look."""
    found = [
        (firing.trigger, firing.number, firing.final, times)
        for firing, times in zip(stage.firings, stage.emitted, strict=True)
    ]
    stage.firings.clear()
    stage.emitted.clear()
    return found


def ids(stage: Stage) -> list[str]:
    return sorted(window.id for window in stage.engine.open_windows())


def test_a_new_window_has_no_events_no_firings_and_no_news() -> None:
    window = OpenWindow(3, 10, 20, key="x", index=None, is_shared=False)

    assert {name: getattr(window, name) for name in OpenWindow.__slots__} == {
        "serial": 3,
        "start": 10,
        "end": 20,
        "first_start": None,
        "key": "x",
        "index": None,
        "state": None,
        "count": 0,
        "since_trigger": 0,
        "trigger_state": None,
        "number": 0,
        "replaces": (),
        "changed": False,
        "on_time": False,
        "closed": False,
        "shared": None,
    }


# --- ids


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (fixed(), ["0_10000000", "10000000_20000000"]),
        (session(), ["11000000.1", "5000000.0"]),
        (Window.count(2), ["1", "2"]),
        (Window.periodic(10), ["0_10000000"]),
        (Window.global_(), ["0"]),
    ],
    ids=lambda value: value.kind if isinstance(value, Window) else "",
)
def test_each_window_has_an_id_which_is_the_same_after_a_restart(window: Window, expected: list[str]) -> None:
    stage = stage_of(window)
    stage.give([(5, "x"), (11, "y"), (6, "x"), (12, "x")] if window.kind == "count" else [(5, "x"), (11, "y")])

    assert ids(stage) == expected
    restart(stage, window)
    assert ids(stage) == expected


def test_the_id_of_a_session_stays_when_its_bounds_move() -> None:
    stage = stage_of(session())
    stage.give([(20, "x"), (15, "x"), (27, "x")])
    (open_session,) = stage.engine.open_windows()

    assert (open_session.start, open_session.end) == (15 * SECOND, 37 * SECOND)
    assert open_session.id == "20000000.0"


def test_sessions_of_a_key_that_began_at_the_same_time_have_different_ids() -> None:
    stage = stage_of(session(lateness=100))
    stage.give([(20, "x"), (5, "x"), (13, "x")])  # joins the session that began at 20 to the one at 5
    stage.give([(40, "x")])
    first = ids(stage)
    restart(stage, session(lateness=100))
    stage.give([(60, "x"), (60, "y")])

    assert first == ["40000000.2", "5000000.1"]
    assert ids(stage) == ["40000000.2", "5000000.1", "60000000.3", "60000000.4"]


def test_a_session_says_which_fired_ones_went_into_it_with_each_later_firing() -> None:
    window = session(lateness=100)
    stage = stage_of(window)
    stage.give([(0, "x"), (15, "x"), (30, "x")])
    advance(stage, 40)
    assert [replaces for _, replaces in stage.ids] == [(), (), ()]

    stage.give([(22, "x")])  # joins 15 and 30
    restart(stage, window)
    stage.give([(8, "x")])  # joins 0 and the joined one
    fire_late(stage)
    stage.give([(9, "x")])
    fire_late(stage)

    assert stage.ids[3:] == [("0.0", ("30000000.2", "15000000.1"))] * 2


def test_a_session_that_had_not_fired_is_not_replaced_but_what_it_had_replaced_is() -> None:
    stage = stage_of(session(lateness=100))
    stage.give([(30, "x")])
    advance(stage, 40)
    stage.give([(15, "x"), (22, "x")])  # opened behind the watermark, so it has not fired; takes in the one from 30
    stage.give([(0, "x"), (8, "x")])  # takes in the one from 15
    fire_late(stage)

    assert stage.ids == [("30000000.0", ()), ("0.2", ("30000000.0",))]


# --- after the end


@pytest.mark.parametrize("window", [Window.periodic(10), Window.global_()], ids=lambda window: window.kind)
def test_a_window_by_the_clock_that_ended_with_its_input_does_not_come_back(window: Window) -> None:
    stage = stage_of(window)
    stage.give([(1, "x")])
    before = ids(stage)
    stage.end()
    restart(stage, window)
    stage.give([(2, "x")])
    stage.end()

    assert [window_id for window_id, _ in stage.ids[:1]] == before
    assert len({window_id for window_id, _ in stage.ids}) == 2
    assert told(stage) == [("end", 1, True, [1]), ("end", 1, True, [2])]


def test_windows_that_ended_with_their_input_do_not_open_again() -> None:
    stage = stage_of(fixed())
    stage.give([(1, "x"), (11, "x")])
    advance(stage, 5)
    stage.end()
    restart(stage, fixed())
    stage.give([(12, "x"), (2, "y"), (21, "x")])

    assert [side.event for side in stage.side] == [(12, "x"), (2, "y")]
    assert ids(stage) == ["20000000_30000000"]


def test_sessions_that_ended_with_their_input_take_in_nothing() -> None:
    stage = stage_of(session())
    stage.give([(1, "x")])
    stage.end()
    restart(stage, session())
    stage.give([(5, "x"), (11, "x"), (5, "y")])

    assert [side.event for side in stage.side] == [(5, "x")]
    assert ids(stage) == ["11000000.1", "5000000.2"]


# --- other settings after a restart


def test_a_closed_window_stays_closed_when_lateness_is_longer_after_a_restart() -> None:
    stage = stage_of(fixed(lateness=5))
    stage.give([(1, "x"), (11, "x")])
    advance(stage, 15)
    told(stage)

    restart(stage, fixed(lateness=100))
    stage.give([(2, "x"), (12, "x")])
    advance(stage, 20)

    assert [side.event for side in stage.side] == [(2, "x")]
    assert told(stage) == [("watermark", 1, False, [11, 12])]
    advance(stage, 119.9)
    assert told(stage) == []
    assert len(stage.closed) == 1
    advance(stage, 120)
    assert len(stage.closed) == 2


def test_a_window_that_has_fired_closes_in_silence_when_lateness_is_shorter_after_a_restart() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(1, "x"), (1, "y")])
    advance(stage, 15)
    stage.give([(2, "y")])
    told(stage)

    restart(stage, fixed())
    advance(stage, 15)

    assert told(stage) == [("late", 2, True, [1, 2])]
    assert len(stage.closed) == 1


def test_open_windows_do_not_go_on_with_another_size() -> None:
    stage = stage_of(fixed(10))
    stage.give([(1, "x")])

    with pytest.raises(OptionsError) as refused:
        restart(stage, fixed(20))

    assert str(refused.value) == (
        "window: expected fixed(size=10.0, offset=0.0), of which windows are open, "
        "got fixed(size=20.0, offset=0.0): let the open windows close with the old settings first"
    )


def test_another_size_goes_on_from_the_watermark_when_no_window_is_open() -> None:
    stage = stage_of(fixed(10))
    stage.give([(1, "x")])
    advance(stage, 15)

    restart(stage, fixed(20))
    stage.give([(2, "x"), (9, "x")])
    advance(stage, 20)

    assert told(stage) == [("watermark", 1, True, [1]), ("watermark", 1, True, [2, 9])]
    assert [window_id for window_id, _ in stage.ids] == ["0_10000000", "0_20000000"]


def test_a_count_window_with_more_events_than_its_new_limit_closes_with_the_next_one() -> None:
    stage = stage_of(Window.count(10))
    stage.give([(1, "x"), (2, "x"), (3, "x")])

    restart(stage, Window.count(2))
    stage.give([(4, "x"), (5, "x")])

    assert told(stage) == [("count", 1, True, [1, 2, 3, 4])]


def test_periodic_windows_keep_their_bounds_over_a_restart() -> None:
    window = Window.periodic(10)
    stage = stage_of(window)
    stage.pass_time(13)
    stage.give([(1, "x")])

    restart(stage, window)
    stage.pass_time(7)

    assert [(firing.start, firing.end, firing.index) for firing in stage.firings] == [(10.0, 20.0, 1)]
    assert told(stage) == [("periodic", 1, True, [1])]
    assert stage.engine.next_timer() == 30.0


def test_periodic_windows_of_another_interval_begin_anew() -> None:
    stage = stage_of(Window.periodic(10))
    stage.pass_time(13)

    restart(stage, Window.periodic(4))

    assert ids(stage) == ["13000000_17000000"]


@pytest.mark.parametrize(("interval", "due"), [(10, 20.0), (4, 17.0)])
def test_a_trigger_by_the_clock_keeps_its_moments_if_its_interval_is_the_same(interval: float, due: float) -> None:
    stage = stage_of(fixed().trigger_periodically(10))
    stage.pass_time(13)

    restart(stage, fixed().trigger_periodically(interval))

    assert stage.engine.next_timer() == due


def test_a_day_whose_time_zone_has_other_rules_now_closes_at_the_end_that_it_had() -> None:
    engine = KeyedEngine(Window.calendar("day", tz="UTC", by=by, delay=0, max_ahead=None), 0.0)
    engine.restore(engine.memory())
    shorter = 23 * 3_600 * SECOND
    back = engine.reopen(SavedWindow(WindowFacts(0, shorter, None, 0), keys=[("x", 2, 0, False)]))
    stamped = engine.read([(5, "x")])
    stamped.keys = ["x"]
    engine.feed(stamped, 0.0)

    assert sorted(window.id for window in engine.open_windows()) == [f"0_{shorter}", f"0_{24 * 3_600 * SECOND}"]
    engine.advance(shorter, 0.0)
    assert back.closed
    assert [window.id for window in engine.open_windows()] == [f"0_{24 * 3_600 * SECOND}"]


# --- what is saved


@pytest.mark.parametrize("window", [fixed(lateness=100), session(lateness=100)], ids=lambda window: window.kind)
def test_late_news_fire_after_a_restart_and_nothing_else_does(window: Window) -> None:
    stage = stage_of(window)
    stage.give([(1, "x"), (1, "y")])
    advance(stage, 50)
    stage.give([(2, "y")])
    told(stage)

    restart(stage, window)
    fire_late(stage)

    assert told(stage) == [("late", 2, False, [1, 2])]


@pytest.mark.parametrize("window", [fixed(), session()], ids=lambda window: window.kind)
def test_news_fire_by_the_clock_after_a_restart_and_nothing_else_does(window: Window) -> None:
    window = window.trigger_periodically(10)
    stage = stage_of(window)
    stage.give([(1, "x"), (1, "y")])
    stage.pass_time(13)
    stage.give([(2, "y")])
    told(stage)

    restart(stage, window)
    stage.pass_time(7)

    assert told(stage) == [("periodic", 2, False, [1, 2])]


def test_only_the_keys_that_are_asked_for_are_saved_and_those_without_events_are_left_out() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(1, "x"), (2, "y"), (3, "x"), (4, "z")])
    advance(stage, 12)
    stage.give([(5, "y")])
    (window,) = stage.engine.open_windows()
    engine = keyed(stage)

    assert engine.saved(window).keys == []
    assert engine.saved(window, ["y", "nobody", "x"]).keys == [("y", 2, 1, True), ("x", 2, 1, False)]
    assert engine.saved(window, None).keys == [("x", 2, 1, False), ("y", 2, 1, True), ("z", 1, 1, False)]


def test_of_the_ended_sessions_only_those_that_still_matter_are_remembered() -> None:
    stage = stage_of(session())
    stage.give([(1, "x"), (8, "y")])
    advance(stage, 18)
    engine = keyed(stage)
    assert engine.ended() == {"x": 11 * SECOND, "y": 18 * SECOND}

    other = KeyedEngine(session(), 0.0)
    other.restore(engine.memory())
    other.reopen_ended({**engine.ended(), "old": 8 * SECOND, "just": 8 * SECOND + 1})

    assert other.ended() == {"x": 11 * SECOND, "y": 18 * SECOND, "just": 8 * SECOND + 1}
    other.advance(21 * SECOND, 0.0)
    assert other.ended() == {"y": 18 * SECOND}


def test_windows_that_are_no_sessions_remember_no_ends() -> None:
    engine = KeyedEngine(fixed(), 0.0)
    engine.reopen_ended({"x": 5})

    assert engine.ended() == {}


# --- events that are taken back, and looks


def test_late_news_that_were_taken_back_do_not_fire() -> None:
    stage = stage_of(fixed(lateness=100))
    stage.give([(1, "x"), (1, "y")])
    advance(stage, 12)
    told(stage)
    stage.give([(2, "x"), (3, "y"), (4, "y")])
    (window,) = stage.engine.open_windows()

    keyed(stage).take_back([window], "x")
    keyed(stage).take_back([window], "y")
    fire_late(stage)

    assert [(firing.key, firing.count) for firing in stage.firings] == [("y", 2)]


def test_an_event_that_was_taken_back_after_a_restart_leaves_the_news_as_they_were() -> None:
    window = fixed(lateness=100)
    stage = stage_of(window)
    stage.give([(1, "x"), (1, "y"), (1, "z")])
    advance(stage, 12)
    stage.give([(2, "y")])
    restart(stage, window)
    stage.give([(3, "x"), (3, "y")])
    (back,) = stage.engine.open_windows()

    keyed(stage).take_back([back], "x")
    keyed(stage).take_back([back], "y")

    assert keyed(stage).saved(back, None).keys == [("x", 1, 1, False), ("y", 2, 1, True), ("z", 1, 1, False)]


def test_a_window_whose_events_were_all_taken_back_gives_no_result() -> None:
    stage = stage_of(fixed())
    stage.give([(1, "x")])
    (window,) = stage.engine.open_windows()
    keyed(stage).take_back([window], "x")

    advance(stage, 10)

    assert told(stage) == []
    assert stage.closed == [window]


@pytest.mark.parametrize("window", [session(), Window.count(2)], ids=lambda window: window.kind)
def test_an_event_of_a_window_of_one_key_cannot_be_taken_back(window: Window) -> None:
    stage = stage_of(window)
    stage.give([(1, "x")])

    with pytest.raises(TypeError) as refused:
        keyed(stage).take_back(list(stage.engine.open_windows()), "x")

    assert str(refused.value) == ("an event cannot be taken back from a window of one key: use peek() before feed()")


def test_a_look_needs_the_time_of_the_event() -> None:
    with pytest.raises(TypeError) as refused:
        KeyedEngine(fixed(), 0.0).peek("x", None)

    assert str(refused.value) == "a window of event time needs the time of the event, got None"


def test_a_look_needs_the_wall_clock_if_max_ahead_is_set() -> None:
    engine = KeyedEngine(fixed(max_ahead=60), 0.0)

    with pytest.raises(TypeError) as refused:
        engine.peek("x", 0)

    assert str(refused.value) == "a window with max_ahead needs the wall clock, got none"
    assert engine.peek("x", 61 * SECOND, wall=1.0).cause is None
    assert engine.peek("x", 61 * SECOND + 1, wall=1.0).cause == "future_event_time"
    assert engine.ahead == 0


# --- texts


def test_the_id_of_a_result_can_be_read() -> None:
    assert result_id("revenue", '"DE"', "0_60000000") == 'revenue/0_60000000/"DE"'


@pytest.mark.parametrize("key", ["x" * 190, "ä" * 95, '"line\nbreak"', '"\ud800"'])
def test_the_id_of_a_result_is_a_digest_where_text_would_be_too_long_or_cannot_be_printed(key: str) -> None:
    made = result_id("revenue", key, "0_1")

    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert made != result_id("revenue", key, "0_2")
    assert made == result_id("revenue", key, "0_1")


def test_the_id_of_a_result_has_at_most_200_bytes() -> None:
    assert len(result_id("revenue", "x" * 188, "0_1")) == 200
    assert len(result_id("revenue", "x" * 189, "0_1")) == 32


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (fixed(60), "fixed(size=60.0, offset=0.0)"),
        (Window.sliding(60, 10, by=by, offset=5), "sliding(size=60.0, every=10.0, offset=5.0)"),
        (Window.calendar("week", tz=ZoneInfo("Europe/Berlin"), by=by), "calendar(week, tz=Europe/Berlin)"),
        (Window.periodic(2.5), "periodic(interval=2.5)"),
        (session(30), "session"),
        (Window.count(3), "count"),
        (Window.global_(), "global"),
    ],
)
def test_what_decides_about_the_bounds_of_windows_is_in_a_text(window: Window, text: str) -> None:
    assert text_of_shape(window.shape) == text
