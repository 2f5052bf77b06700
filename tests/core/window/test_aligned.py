"""Fixed, sliding and calendar windows in later lists, where most lists are placed without a look at each event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from broadway_py._core.window.spec import Window
from tests.core.window.stage import Stage

at_any_demand = pytest.mark.parametrize("demand", [1, 2, 100])


def story(window: Window, first: list[float], then: list[float], demand: int) -> list[tuple[Any, ...]]:
    """What happens with *then*, once the events *first* have come."""
    stage = Stage(window)
    stage.give(first)
    stage.story.clear()
    stage.give(then, demand=demand)
    return [entry[:2] if entry[0] == "fire" else entry for entry in stage.story]


def by(event: float) -> float:
    return event


@at_any_demand
def test_a_window_closes_between_the_two_events_where_its_line_is_reached(demand: int) -> None:
    told = story(Window.fixed(10, by=by, lateness=4), [0], [5, 13.9, 6, 14, 7, 15], demand)

    assert told == [("add", 5), ("add", 13.9), ("add", 6), ("add", 14), ("fire", "done"), ("late", 7), ("add", 15)]


@at_any_demand
def test_a_window_is_on_time_between_two_events_of_a_list(demand: int) -> None:
    told = story(Window.fixed(10, by=by, lateness=100).trigger_on_time(), [0], [9.9, 5, 10, 6], demand)

    assert told == [("add", 9.9), ("add", 5), ("add", 10), ("fire", "watermark"), ("add", 6)]


@at_any_demand
def test_a_window_is_on_time_also_where_no_window_closes(demand: int) -> None:
    told = story(Window.fixed(10, by=by, lateness=3).trigger_on_time(), [5], [9, 12, 6], demand)

    assert told == [("add", 9), ("add", 12), ("fire", "watermark"), ("add", 6)]


@at_any_demand
def test_the_highest_time_of_a_list_may_begin_a_window(demand: int) -> None:
    stage = Stage(Window.fixed(10, by=by, lateness=3))
    stage.give([5])
    stage.give([6, 10, 7], demand=demand)
    stage.end("a")

    assert stage.emitted == [18, 10]


@at_any_demand
def test_an_event_at_the_end_of_a_window_is_in_the_next_one(demand: int) -> None:
    stage = Stage(Window.fixed(10, by=by, lateness=100))
    stage.give([0])
    stage.give([5, 10, 9.999_999], demand=demand)
    stage.end("a")

    assert stage.emitted == [pytest.approx(14.999_999), 10]


@at_any_demand
def test_an_event_goes_into_those_of_its_windows_that_are_still_open(demand: int) -> None:
    stage = Stage(Window.sliding(30, 10, by=by), init=list, reduce=lambda events, event: [*events, event])
    stage.give([0, 25])
    stage.give([19, 24, 31, 5], demand=demand)
    stage.end("a")

    assert [(firing.start, events) for firing, events in zip(stage.firings, stage.emitted, strict=True)] == [
        (-20.0, [0]),
        (-10.0, [0]),
        (0.0, [0, 25, 19, 24]),
        (10.0, [25, 19, 24, 31]),
        (20.0, [25, 24, 31]),
        (30.0, [31]),
    ]
    assert [side.event for side in stage.side] == [5]


@at_any_demand
def test_late_events_between_others_go_to_the_side_one_by_one(demand: int) -> None:
    told = story(Window.fixed(10, by=by), [0, 35], [36, 5, 6, 37, 15], demand)

    assert told == [("add", 36), ("late", 5), ("late", 6), ("add", 37), ("late", 15)]


@at_any_demand
def test_calendar_days_close_at_midnight(demand: int) -> None:
    day = 86_400
    window = Window.calendar("day", tz="UTC", by=by)

    told = story(window, [0], [day - 1, 5, day, 6, day + 1], demand)

    assert told == [("add", day - 1), ("add", 5), ("add", day), ("fire", "done"), ("late", 6), ("add", day + 1)]


def test_bounds_of_a_calendar_window_are_local_midnights() -> None:
    stage = Stage(Window.calendar("day", tz="Europe/Berlin", by=by), upstreams=("a",))
    stage.give([1_711_843_200])  # 2024-03-31, when clocks went forward
    stage.end("a")

    (firing,) = stage.firings
    assert (firing.start, firing.end) == (1_711_839_600.0, 1_711_839_600.0 + 23 * 3_600)


def test_events_of_the_quickest_upstream_close_nothing() -> None:
    stage = Stage(Window.fixed(10, by=by), upstreams=("a", "b"))
    stage.give([5], upstream="a")
    stage.give([5], upstream="b")
    stage.give([6, 500, 1_000, 7], upstream="a")
    assert stage.firings == []

    stage.give([15], upstream="b")

    assert stage.emitted == [23]


def test_datetimes_of_a_calendar_window_are_in_its_zone() -> None:
    window = Window.calendar("day", tz="Europe/Berlin", by=lambda event: event)
    stage = Stage(window, init=list, reduce=lambda events, event: [*events, event])
    stage.give([datetime(2024, 3, 31, 12, tzinfo=UTC)])
    stage.end("a")

    (firing,) = stage.firings
    assert isinstance(firing.start, datetime)
    assert isinstance(firing.end, datetime)
    assert firing.start.isoformat() == "2024-03-31T00:00:00+01:00"
    assert firing.end.isoformat() == "2024-04-01T00:00:00+02:00"
