"""The description of a window: what is refused, with which sentence, and what is filled in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from broadway_py._core.window.shape import Calendar, Count, Fixed, Global, Periodic, Session
from broadway_py._core.window.spec import UNSET, Window
from broadway_py.errors import OptionsError
from tests.support.conformance import conforms


def by(event: Any) -> Any:
    return event


def fixed(size: Any = 60, **settings: Any) -> Window:
    return Window.fixed(size, by=by, **settings)


COUNT: Any = Window.count
PERIODIC: Any = Window.periodic
GLOBAL: Any = Window.global_


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: fixed(0), "size: expected a duration of at least one microsecond, got 0"),
        (lambda: fixed(-1.5), "size: expected a duration of at least one microsecond, got -1.5"),
        (lambda: fixed(1e-7), "size: expected a duration of at least one microsecond, got 1e-07"),
        (
            lambda: fixed(None),
            "size: expected seconds as a finite number, a timedelta, or text such as '2s', got a NoneType",
        ),
        (
            lambda: fixed(float("inf")),
            "size: expected seconds as a finite number, a timedelta, or text such as '2s', got inf",
        ),
        (
            lambda: fixed(offset="a day"),
            "offset: expected seconds as a finite number, a timedelta, or text such as '2s', got 'a day'",
        ),
        (lambda: Window.sliding(0, 1, by=by), "size: expected a duration of at least one microsecond, got 0"),
        (
            lambda: Window.sliding(10, 5, by=by, offset="a day"),
            "offset: expected seconds as a finite number, a timedelta, or text such as '2s', got 'a day'",
        ),
        (lambda: Window.sliding(10, 0, by=by), "every: expected a duration of at least one microsecond, got 0"),
        (
            lambda: Window.sliding(10, 15, by=by),
            "every: expected at most size (10 s), got 15 s: an event between two windows would be in none",
        ),
        (lambda: Window.session(0, by=by), "gap: expected a duration of at least one microsecond, got 0"),
        (lambda: Window.session(30, by=by, longest=10), "longest: expected at least gap (30 s), got 10 s"),
        (
            lambda: Window.session(30, by=by, longest=-1),
            "longest: expected a duration of at least one microsecond, got -1",
        ),
        (
            lambda: Window.calendar("days", tz="UTC", by=by),  # type: ignore[arg-type]  # wrong on purpose
            "unit: expected 'day', 'week' or 'month', got 'days'; did you mean 'day'?",
        ),
        (
            lambda: Window.calendar("day", tz="Europe/Berln", by=by),
            "tz: expected the name of a time zone such as 'Europe/Berlin', got 'Europe/Berln': it is not known here",
        ),
        (
            lambda: Window.calendar("day", tz="../etc/passwd", by=by),
            "tz: expected the name of a time zone such as 'Europe/Berlin', got '../etc/passwd': it is not known here",
        ),
        (
            lambda: Window.calendar("day", tz=2, by=by),  # type: ignore[arg-type]  # wrong on purpose
            "tz: expected the name of a time zone such as 'Europe/Berlin', got an int",
        ),
        (
            lambda: Window.fixed(60, by="ts"),  # type: ignore[arg-type]  # wrong on purpose
            "by: expected a function that returns the time of an event, got a str",
        ),
        (lambda: fixed(lateness=-1), "lateness: expected a duration of 0 seconds or more, got -1"),
        (
            lambda: fixed(delay="-1s"),
            "delay: expected seconds as a finite number, a timedelta, or text such as '2s', got '-1s'",
        ),
        (lambda: fixed(delay=-1), "delay: expected a duration of 0 seconds or more, got -1"),
        (lambda: fixed(max_ahead=-1), "max_ahead: expected a duration of 0 seconds or more, got -1"),
        (lambda: fixed(hold_timeout=-1), "hold_timeout: expected a duration of 0 seconds or more, got -1"),
        (lambda: fixed(idle_timeout=0), "idle_timeout: expected a duration of at least one microsecond, got 0"),
        (
            lambda: fixed(latenes=1),
            (
                "latenes: unknown setting; known here: delay, hold_timeout, idle_timeout, lateness, max_ahead; "
                "did you mean 'lateness'?"
            ),
        ),
        (lambda: COUNT(0), "count: expected a whole number of 1 or more, got 0"),
        (lambda: COUNT(True), "count: expected a whole number of 1 or more, got True"),  # wrong
        (lambda: COUNT(2.0), "count: expected a whole number of 1 or more, got 2.0"),
        (
            lambda: COUNT(2, lateness=1),
            "lateness: only a window of event time has this setting, and a count window is none",
        ),
        (lambda: COUNT(2, by=by), "by: only a window of event time has this setting, and a count window is none"),
        (lambda: COUNT(2, size=1), "size: unknown setting of a count window"),
        (
            lambda: GLOBAL(delay=1),
            "delay: only a window of event time has this setting, and a global window is none",
        ),
        (
            lambda: PERIODIC(2, idle_timeout=1),
            "idle_timeout: only a window of event time has this setting, and a periodic window is none",
        ),
        (lambda: PERIODIC(0), "interval: expected a duration of at least one microsecond, got 0"),
        (lambda: fixed().trigger_every(0), "trigger_every: expected a whole number of 1 or more, got 0"),
        (
            lambda: fixed().trigger_periodically(0),
            "trigger_periodically: expected a duration of at least one microsecond, got 0",
        ),
        (
            lambda: fixed().trigger_every(10).trigger_every(20),
            "trigger_every: this window already has trigger_every(10), and only one of the two kinds is possible",
        ),
        (
            lambda: fixed().trigger_every(10).trigger(list, print),
            "trigger: this window already has trigger_every(10), and only one of the two kinds is possible",
        ),
        (
            lambda: fixed().trigger(list, print).trigger_every(10),
            "trigger_every: this window already has trigger, and only one of the two kinds is possible",
        ),
        (
            lambda: fixed().trigger([], print),  # type: ignore[arg-type]  # wrong on purpose
            "trigger.init: expected a function, got a list",
        ),
        (
            lambda: fixed().trigger(list, None),  # type: ignore[arg-type]  # wrong on purpose
            "trigger.fn: expected a function, got a NoneType",
        ),
        (
            lambda: COUNT(2).trigger_on_time(),
            "trigger_on_time: a count window has no event time, so no watermark passes its end",
        ),
        (
            lambda: fixed(hold_timeout=5).in_flow(),
            "hold_timeout: only an aggregator has this setting: in a flow, no message holds the watermark back",
        ),
        (
            lambda: fixed().in_aggregator(),
            "delay: required, but missing: how long after its own time a message may still arrive, such as '10s'",
        ),
        (
            lambda: fixed(delay=1).trigger(list, print).in_aggregator(),
            "trigger: only a flow can have a trigger function: an aggregator cannot store its state",
        ),
    ],
)
def test_a_wrong_window_is_refused_with_its_place_and_what_was_expected(
    make: Callable[[], Window], sentence: str
) -> None:
    with pytest.raises(OptionsError) as refused:
        make()

    assert str(refused.value) == sentence
    assert refused.value.path[-1] == sentence.partition(":")[0].split(".")[-1]


def test_durations_are_seconds_timedeltas_or_text() -> None:
    shapes = [fixed(each).shape for each in (90, 90.0, timedelta(minutes=1, seconds=30), "1.5m", "90s")]

    assert shapes == [Fixed("fixed", 90.0, 90.0, 0.0)] * 5


def test_one_microsecond_is_the_shortest_duration() -> None:
    assert fixed(0.000_001).shape == Fixed("fixed", 0.000_001, 0.000_001, 0.0)


def test_each_kind_has_its_shape() -> None:
    zone = Window.calendar("week", tz="Europe/Berlin", by=by)
    assert isinstance(zone.shape, Calendar)

    assert fixed(60, offset=-3600).shape == Fixed("fixed", 60.0, 60.0, -3600.0)
    assert Window.sliding("1h", "1m", by=by, offset=5).shape == Fixed("sliding", 3600.0, 60.0, 5.0)
    assert Window.session("30s", by=by).shape == Session(30.0, 86_400.0)
    assert Window.session("30s", by=by, longest=None).shape == Session(30.0, None)
    assert Window.session(30, by=by, longest=30).shape == Session(30.0, 30.0)
    assert (zone.shape.unit, zone.shape.tz.key) == ("week", "Europe/Berlin")
    assert Window.calendar("week", tz=zone.shape.tz, by=by).shape == zone.shape
    assert [Window.count(3).shape, Window.global_().shape] == [Count(3), Global()]
    assert Window.periodic(0.1).shape == Periodic(0.1)
    assert [fixed().kind, Window.sliding(2, 1, by=by).kind, Window.count(1).kind] == ["fixed", "sliding", "count"]


def test_settings_of_event_time_are_seconds() -> None:
    window = fixed(delay="1m", lateness=timedelta(hours=1), max_ahead=0, idle_timeout="2s", hold_timeout=3)

    given = (window.delay, window.lateness, window.max_ahead, window.idle_timeout, window.hold_timeout)
    assert given == (60.0, 3600.0, 0.0, 2.0, 3.0)


def test_flow_and_aggregators_fill_in_their_own_defaults() -> None:
    left_open = fixed()
    assert {left_open.delay, left_open.max_ahead, left_open.idle_timeout, left_open.hold_timeout} == {UNSET}
    flow, aggregator = left_open.in_flow(), fixed(delay=5).in_aggregator()

    assert (flow.delay, flow.max_ahead, flow.idle_timeout) == (0.0, None, None)
    assert not flow.triggers.on_time
    assert (aggregator.delay, aggregator.max_ahead, aggregator.idle_timeout) == (5.0, 60.0, 60.0)
    assert (aggregator.hold_timeout, aggregator.triggers.on_time) == (60.0, True)


def test_what_was_given_stays() -> None:
    given = fixed(delay=1, max_ahead=2, idle_timeout=3)
    never = fixed(delay=1, max_ahead=None, idle_timeout=None, hold_timeout=4).in_aggregator()

    assert (given.in_flow().delay, given.in_flow().max_ahead, given.in_flow().idle_timeout) == (1.0, 2.0, 3.0)
    assert (never.max_ahead, never.idle_timeout, never.hold_timeout) == (None, None, 4.0)


def test_windows_without_event_time_need_no_delay_in_aggregators() -> None:
    assert Window.count(3).in_aggregator() == Window.count(3)
    assert not Window.periodic(1).in_aggregator().triggers.on_time


@conforms("W-008")
def test_triggers_are_kept_in_seconds_and_several_intervals_may_be_given() -> None:
    before = fixed()
    window = before.trigger_periodically("10s").trigger_periodically("10m").trigger_periodically(timedelta(hours=10))

    assert window.triggers.periodically == (10.0, 600.0, 36_000.0)
    assert before.triggers.periodically == ()


def test_a_window_may_have_one_count_trigger_beside_the_others() -> None:
    triggers = fixed().trigger_every(5).trigger_periodically(1).trigger_on_time().triggers

    assert (triggers.every, triggers.periodically, triggers.on_time, triggers.custom) == (5, (1.0,), True, None)
    assert fixed().trigger(list, print).triggers.custom == (list, print)


def test_sliding_windows_may_lie_side_by_side() -> None:
    assert Window.sliding(10, 10, by=by).shape == Fixed("sliding", 10.0, 10.0, 0.0)
