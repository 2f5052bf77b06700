"""What the clock does: idle upstreams, a quiet stream's last window, periodic windows and triggers, a lead in time."""

from __future__ import annotations

from typing import Any

import pytest

from broadway_py._core.window.spec import Window
from broadway_py._core.window.ticks import Ticks
from tests.core.window.stage import Stage


def at(event: Any) -> Any:
    return event


def fixed(size: float = 10, **settings: Any) -> Window:
    return Window.fixed(size, by=at, **settings)


def starts(stage: Stage) -> list[Any]:
    return [firing.start for firing in stage.firings]


# --- idle upstreams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "lateness"), [(0, 0), (3, 0), (0, 5), (3, 5.5)])
def test_a_quiet_streams_last_window_comes_after_the_time_out_and_what_was_left(delay: float, lateness: float) -> None:
    stage = Stage(fixed(idle_timeout=60, delay=delay, lateness=lateness))
    stage.pass_time(1_000.5)
    stage.give([102.25])
    due = 60 + (110 - 102.25) + delay + lateness

    stage.pass_time(due - 0.000_001)
    assert stage.firings == []
    stage.pass_time(0.000_001)

    assert starts(stage) == [100.0]
    assert stage.engine.next_timer() is None


def test_without_a_time_out_a_quiet_stream_keeps_its_window() -> None:
    stage = Stage(fixed())
    stage.give([5])

    stage.pass_time(1e9)

    assert stage.engine.next_timer() is None
    assert stage.firings == []


def test_a_stream_that_is_held_up_for_an_hour_closes_nothing_early() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([5])
    stage.pass_time(59)
    stage.carry_out(stage.engine.hold("a", stage.now))
    stage.pass_time(3_600)
    stage.carry_out(stage.engine.resume("a", stage.now))
    stage.give([6])
    stage.pass_time(59)
    assert stage.firings == []

    stage.give([15])

    assert stage.emitted == [11]
    assert stage.side == []


def test_the_times_between_holds_add_up() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.pass_time(7)
    stage.give([5])
    for _ in range(2):
        stage.pass_time(20)
        stage.carry_out(stage.engine.hold("a", stage.now))
        stage.pass_time(100)
        assert stage.engine.next_timer() is None
        stage.carry_out(stage.engine.resume("a", stage.now))
    assert stage.engine.next_timer() == stage.now + 20

    stage.pass_time(24.999_999)
    assert stage.firings == []
    stage.pass_time(0.000_001)

    assert starts(stage) == [0.0]


def test_an_upstream_that_was_idle_when_it_was_held_up_is_idle_afterwards() -> None:
    stage = Stage(fixed(idle_timeout=60), upstreams=("a", "b"))
    stage.give([5], upstream="a")
    stage.give([25], upstream="b")
    for _ in range(8):
        stage.pass_time(10)
        stage.give([25], upstream="b")
    assert stage.engine.watermark == 25_000_000
    stage.carry_out(stage.engine.hold("a", stage.now))
    stage.pass_time(10)
    stage.carry_out(stage.engine.resume("a", stage.now))

    stage.give([31], upstream="b")

    assert stage.engine.watermark == 31_000_000


def test_a_hold_stops_a_watermark_that_goes_with_the_clock() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([5])
    stage.pass_time(63)
    stage.carry_out(stage.engine.hold("a", stage.now))
    stage.pass_time(1_000)
    stage.carry_out(stage.engine.tick(stage.now))
    assert stage.engine.watermark == 8_000_000
    stage.carry_out(stage.engine.resume("a", stage.now))

    stage.pass_time(1.999_999)
    assert stage.firings == []
    stage.pass_time(0.000_001)

    assert starts(stage) == [0.0]


def test_holding_and_resuming_twice_changes_nothing() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([5])
    for what in ("hold", "hold", "resume", "resume"):
        stage.pass_time(10)
        stage.carry_out(getattr(stage.engine, what)("a", stage.now))

    # Asked for 10 seconds before the first hold, and since the first resumption.
    assert stage.engine.next_timer() == stage.now + 40


def test_an_idle_upstream_is_left_out_and_comes_back_with_its_next_event() -> None:
    stage = Stage(fixed(idle_timeout=60), upstreams=("a", "b"))
    stage.give([5], upstream="b")
    stage.pass_time(30)
    stage.give([25], upstream="a")
    assert stage.engine.watermark == 5_000_000
    stage.pass_time(30)
    assert starts(stage) == [0.0]
    assert stage.engine.watermark == 25_000_000

    stage.give([26], upstream="b")
    stage.give([95], upstream="a")

    assert stage.engine.watermark == 26_000_000
    assert starts(stage) == [0.0]


def test_an_upstream_that_never_had_an_event_may_become_idle_too() -> None:
    stage = Stage(fixed(idle_timeout=60), upstreams=("a", "b"))
    stage.pass_time(30)
    stage.give([5, 15], upstream="a")
    assert stage.firings == []

    stage.pass_time(30)

    assert starts(stage) == [0.0]


def test_when_all_are_idle_nobody_holds_the_newest_event_back() -> None:
    stage = Stage(fixed(idle_timeout=60), upstreams=("a", "b"))
    stage.give([25], upstream="a")
    stage.pass_time(1)
    stage.give([5], upstream="b")

    stage.pass_time(60)

    assert stage.engine.watermark == 25_000_000
    assert starts(stage) == [0.0]


def test_the_watermark_goes_on_with_the_clock_when_one_of_the_silent_ends() -> None:
    stage = Stage(fixed(idle_timeout=60), upstreams=("a", "b"))
    stage.give([5], upstream="a")
    stage.give([4], upstream="b")
    stage.pass_time(62)
    stage.end("b")
    assert stage.engine.watermark == 7_000_000

    stage.pass_time(3)

    assert starts(stage) == [0.0]


def test_what_is_due_at_this_very_moment_is_done_before_the_events() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([5])
    stage.carry_out(stage.engine.tick(60.0))
    stage.now = 65.0

    stage.give([9])

    assert starts(stage) == [0.0]
    assert [side.event for side in stage.side] == [9]


def test_a_late_event_also_shows_that_its_upstream_is_there() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([25])
    stage.pass_time(59)
    stage.give([1])

    stage.pass_time(59)

    assert stage.engine.watermark == 25_000_000
    assert [side.event for side in stage.side] == [1]


def test_a_late_wake_up_does_what_was_due_in_its_order() -> None:
    stage = Stage(fixed(idle_timeout=60, lateness=5).trigger_on_time())
    stage.give([5, 12])

    stage.carry_out(stage.engine.tick(1_000.0))

    assert [(firing.start, firing.trigger) for firing in stage.firings] == [
        (0.0, "watermark"),
        (0.0, "done"),
        (10.0, "watermark"),
        (10.0, "done"),
    ]


def test_what_is_due_by_the_clock_happens_before_the_events_that_come_later() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([5])
    stage.now = 70.0

    stage.give([6])

    assert starts(stage) == [0.0]
    assert [side.event for side in stage.side] == [6]


def test_the_end_leaves_no_timer() -> None:
    stage = Stage(fixed(idle_timeout=60).trigger_periodically(1))
    stage.give([5])
    assert stage.engine.next_timer() == 1.0

    stage.end("a")

    assert stage.engine.next_timer() is None
    assert Stage(Window.periodic(5)).engine.next_timer() == 5.0


# --- periodic windows and triggers ----------------------------------------------------------------------------------


def test_periodic_windows_do_not_drift() -> None:
    stage = Stage(Window.periodic(0.1))
    for _ in range(30):
        stage.pass_time(0.1)

    assert [firing.index for firing in stage.firings][:3] == [0, 1, 2]
    assert stage.firings[28].end == pytest.approx(2.9, abs=1e-6)


def test_a_stage_that_was_late_closes_one_periodic_window_and_goes_on_with_the_current() -> None:
    stage = Stage(Window.periodic(10))
    stage.give([1])
    stage.now = 47.0
    stage.give([2])
    assert [(firing.index, firing.end) for firing in stage.firings] == [(0, 10.0)]
    assert stage.engine.next_timer() == 50.0

    stage.pass_time(3)

    assert [(firing.index, firing.start, firing.end) for firing in stage.firings] == [(0, 0.0, 10.0), (4, 40.0, 50.0)]
    assert stage.emitted == [1, 2]


@pytest.mark.parametrize(("now", "passed"), [(10.0, 1), (19.99, 1), (20.0, 2), (57.0, 5)])
def test_ticks_are_due_once_however_late(now: float, passed: int) -> None:
    ticks = Ticks(0.0, 10.0)
    assert ticks.next == 10.0

    ticks.reach(now)

    assert (ticks.passed, ticks.next) == (passed, 10.0 * (passed + 1))


@pytest.mark.parametrize("interval", [0.1, 0.7, 1 / 3])
def test_ticks_are_never_due_twice_at_one_moment(interval: float) -> None:
    ticks = Ticks(1_000.1, interval)
    for number in range(1, 2_000):
        now = ticks.next
        ticks.reach(now)
        assert ticks.next > now
        assert ticks.passed == number


@pytest.mark.parametrize("interval", [0.1, 0.7, 1 / 3])
def test_a_division_that_is_rounded_down_makes_no_tick_due_again(interval: float) -> None:
    for number in range(2, 2_000):
        ticks = Ticks(1_000.1, interval)
        now = ticks.at(number)
        ticks.reach(now)
        assert (ticks.passed, ticks.next > now) == (number, True)


def test_a_periodic_trigger_fires_only_what_changed_since_it_last_fired() -> None:
    stage = Stage(fixed(lateness=1_000).trigger_periodically(1).trigger_every(2))
    stage.give([5, 25, 26])
    assert [(firing.start, firing.trigger) for firing in stage.firings] == [(20.0, "every")]

    stage.pass_time(5)
    stage.give([15, 6])
    stage.pass_time(5)

    assert [(firing.start, firing.trigger, firing.number) for firing in stage.firings] == [
        (20.0, "every", 1),
        (0.0, "periodic", 1),
        (0.0, "every", 2),
        (10.0, "periodic", 1),
    ]


def test_several_periodic_triggers_are_due_each_in_its_time() -> None:
    stage = Stage(Window.global_().trigger_periodically(2).trigger_periodically(3))
    moments: list[float] = []
    for number in range(1, 13):
        stage.give([1])
        stage.pass_time(0.5)
        if len(stage.firings) > len(moments):
            moments.append(number / 2)

    assert moments == [2.0, 3.0, 4.0, 6.0]


@pytest.mark.parametrize("window", [Window.global_(), Window.periodic(1_000), fixed()])
def test_an_empty_list_changes_nothing(window: Window) -> None:
    stage = Stage(window.trigger_periodically(2))
    stage.carry_out(stage.engine.feed(stage.engine.read([]), 0.0, upstream="a"))

    stage.pass_time(5)

    assert stage.story == []


def test_what_is_due_by_the_clock_comes_before_a_firing_that_is_asked_for() -> None:
    stage = Stage(fixed(idle_timeout=60))
    stage.give([5, 12])

    stage.carry_out(stage.engine.fire("now", 100.0))

    assert [(firing.start, firing.trigger) for firing in stage.firings] == [(0.0, "done"), (10.0, "done")]


def test_all_open_windows_fire_in_their_order_when_they_are_told_to() -> None:
    stage = Stage(fixed(lateness=1_000))
    stage.give([35, 5, 25, 15])

    stage.carry_out(stage.engine.fire("now", 0.0))

    assert [(firing.start, firing.trigger, firing.final) for firing in stage.firings] == [
        (start, "now", False) for start in (0.0, 10.0, 20.0, 30.0)
    ]


# --- ahead of the clock ---------------------------------------------------------------------------------------------


def test_an_event_too_far_ahead_goes_to_the_side_and_moves_nothing() -> None:
    stage = Stage(fixed(max_ahead=60))

    stage.give([1_005.0, 1_100.000_001, 1_100.0, 1_001.0], wall=1_040.0)

    assert [(side.event, side.time, side.cause) for side in stage.side] == [
        (1_100.000_001, 1_100.000_001, "future_event_time"),
        (1_001.0, 1_001.0, "late"),
    ]
    assert stage.engine.watermark == 1_100_000_000
    assert (stage.engine.ahead, stage.engine.late) == (1, 1)
    assert starts(stage) == [1_000.0]


def test_a_list_of_events_that_are_all_too_far_ahead_opens_nothing() -> None:
    stage = Stage(fixed(max_ahead=0), key=lambda event: event)

    stage.give([5.0, 6.0], wall=4.0)

    assert (stage.engine.watermark, list(stage.engine.open_windows()), stage.engine.ahead) == (None, [], 2)


def test_the_keys_of_those_that_stay_are_theirs() -> None:
    window = Window.session(5, by=at, max_ahead=0)
    stage = Stage(window, key=lambda event: f"key {event:g}")

    stage.give([1.0, 9.0, 2.0], wall=4.0)

    assert [session.key for session in stage.engine.open_windows()] == ["key 1", "key 2"]


def test_max_ahead_needs_the_wall_clock() -> None:
    stage = Stage(fixed(max_ahead=60))

    with pytest.raises(TypeError) as refused:
        stage.give([5.0])

    assert str(refused.value) == "a window with max_ahead needs the wall clock, got none"
