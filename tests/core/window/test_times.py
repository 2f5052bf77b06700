"""Event times: which are taken, which are refused with which sentence, and how they are given back."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.window.effects import SideOutput
from broadway_py._core.window.engine import Engine
from broadway_py._core.window.spec import Window
from broadway_py._core.window.times import EventTimes
from broadway_py.errors import EventTimeError


def itself(event: Any) -> Any:
    return event


def refusals(*events: Any, by: Callable[[Any], Any] = itself) -> list[tuple[Any, str]]:
    return [(refusal.event, str(refusal.error)) for refusal in EventTimes(by).read(events).refused]


class Odd(float):
    """A number with a mind of its own."""

    def __lt__(self, other: Any) -> bool:
        raise RuntimeError("mine")


class Wild(tzinfo):
    """A time zone that does not know."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        raise RuntimeError("mine")

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> None:
        return None


EXPECTED = "expected an aware datetime or seconds since 1970 as the time of an event"


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (None, "got None"),
        ("2024-01-01", "got a str"),
        (True, "got a bool"),
        (datetime(2024, 1, 1), "got a datetime without a time zone"),  # noqa: DTZ001  # this is the point
        (float("nan"), "got a float that is NaN"),
        (float("inf"), "got a float that is infinite"),
        (-float("inf"), "got a float that is infinite"),
        (
            1_700_000_000_000,
            "got an int that lies beyond the year 9999: it looks like milliseconds; divide by 1000",
        ),
        (
            1_700_000_000_000.5,
            "got a float that lies beyond the year 9999: it looks like milliseconds; divide by 1000",
        ),
        (1e308, "got a float that lies beyond the year 9999: it looks like milliseconds; divide by 1000"),
        (10**400, "got an int that lies beyond the year 9999: it looks like milliseconds; divide by 1000"),
        (-62_135_596_801, "got an int that lies before the year 1"),
    ],
)
@pytest.mark.parametrize("among", [[], [1.5], [3], [2.5, 3]])
def test_what_is_no_time_is_refused_without_its_value(value: Any, got: str, among: list[Any]) -> None:
    times = EventTimes(itself)

    stamped = times.read([*among, value, *among])

    assert [str(refusal.error) for refusal in stamped.refused] == [f"{EXPECTED}, {got}"]
    assert stamped.refused[0].event is value
    assert isinstance(stamped.refused[0].error, EventTimeError)
    assert list(stamped.events) == [*among, *among]
    assert stamped.times() == [round(each * 1_000_000) for each in [*among, *among]]


def test_a_function_that_raises_is_refused_for_its_event_alone() -> None:
    assert refusals({"at": 1}, {}, {"at": 2}, by=lambda event: event["at"]) == [({}, "'at'")]


def test_errors_of_odd_values_are_those_of_their_event() -> None:
    wild = datetime(2024, 1, 1, tzinfo=Wild())

    assert refusals(Odd(1), wild, 5.0) == [(wild, "mine")]


def test_the_first_kind_of_time_is_the_kind_of_all() -> None:
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)

    assert refusals(5, noon) == [
        (
            noon,
            (
                "expected a number as the time of an event, as for those before, got a datetime: "
                "a window takes only one of the two"
            ),
        )
    ]
    assert refusals(noon, 5.0) == [
        (
            5.0,
            (
                "expected a datetime as the time of an event, as for those before, got a number: "
                "a window takes only one of the two"
            ),
        )
    ]


def test_the_kind_is_remembered_from_one_list_to_the_next() -> None:
    times = EventTimes(itself)
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    times.read([noon])

    stamped = times.read([5.0, noon])

    assert [list(stamped.events), len(stamped.refused)] == [[noon], 1]


def test_a_list_without_a_usable_time_decides_no_kind() -> None:
    times = EventTimes(itself)
    times.read([1e300])

    assert times.read([datetime(2024, 1, 1, tzinfo=UTC)]).refused == []


@pytest.mark.parametrize(
    ("values", "microseconds"),
    [
        ([1, 2, -3], [1_000_000, 2_000_000, -3_000_000]),
        ([0.0000004, 0.0000006, -1.25], [0, 1, -1_250_000]),
        ([1, 2.5], [1_000_000, 2_500_000]),
        ([-62_135_596_800, 253_402_300_799], [-62_135_596_800_000_000, 253_402_300_799_000_000]),
        ([datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)], [-1]),
        ([datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))], [0]),
        ([datetime.max.replace(tzinfo=UTC)], [253_402_300_799_999_999]),
        ([], []),
    ],
)
def test_times_are_whole_microseconds(values: list[Any], microseconds: list[int]) -> None:
    stamped = EventTimes(itself).read(values)

    assert stamped.times() == microseconds
    assert (stamped.low, stamped.high) == (min(microseconds, default=0), max(microseconds, default=0))
    assert stamped.refused == []


@given(st.lists(st.one_of(st.floats(-1e10, 1e11), st.integers(-(10**10), 10**11)), min_size=1))
def test_lowest_and_highest_are_among_the_times(values: list[float]) -> None:
    stamped = EventTimes(itself).read(values)

    assert (stamped.low, stamped.high) == (min(stamped.times()), max(stamped.times()))


def test_without_a_function_there_are_no_times() -> None:
    stamped = EventTimes(None).read([1, 2])

    assert (list(stamped.events), stamped.times(), stamped.refused) == ([1, 2], [], [])


def test_times_come_back_in_the_kind_that_came_in() -> None:
    seconds, dates = EventTimes(itself), EventTimes(itself)
    seconds.read([1])
    dates.read([datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5)))])

    assert seconds.shown(1_500_000) == 1.5
    assert dates.shown(1_500_000) == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("times", "kind"),
    [([1, 2], "seconds"), ([1, 2.5], "seconds"), ([datetime(2024, 1, 1, tzinfo=UTC)], "datetime"), (["no time"], None)],
)
def test_a_list_of_events_knows_the_kind_of_its_times(times: list[Any], kind: str | None) -> None:
    stamped = EventTimes(itself).read(times)

    assert (stamped.kind, stamped.part(range(len(stamped.events))).kind) == (kind, kind)


@pytest.mark.parametrize("max_ahead", [None, 0])
def test_an_engine_shows_times_in_the_kind_in_which_another_one_has_read_them(max_ahead: float | None) -> None:
    window = Window.fixed(10, by=itself, max_ahead=max_ahead)
    events = [1, 25, 3] if max_ahead is None else [3]
    engine = Engine(window, 0.0)
    engine.join("a", 0.0)

    (late,) = (
        effect
        for effect in engine.feed(Engine(window, 0.0).read(events), 0.0, upstream="a", wall=2.0)
        if isinstance(effect, SideOutput)
    )

    assert late.time == 3.0
    assert engine.shown(10_000_000) == 10.0


def test_datetimes_are_shown_in_the_zone_of_the_window() -> None:
    shown = EventTimes(itself, timezone(timedelta(hours=2))).shown(0)

    assert shown.isoformat() == "1970-01-01T02:00:00+02:00"  # type: ignore[union-attr]  # it is a datetime


def test_a_bound_outside_of_the_calendar_is_shown_as_one_near_its_limit() -> None:
    times = EventTimes(itself)
    times.read([datetime.max.replace(tzinfo=UTC)])

    assert str(times.shown(10**18)).startswith("9999-12-30")
    assert str(times.shown(-(10**18))).startswith("0001-01-02")


def test_a_time_in_milliseconds_among_seconds_costs_nothing_and_is_refused() -> None:
    engine = Engine(Window.fixed(0.001, by=itself), 0.0)
    engine.join("a", 0.0)
    effects = engine.feed(engine.read([1_700_000_000.0]), 0.0, upstream="a")
    begin = time.process_time()

    stamped = engine.read([1_700_000_000_000.0, 1_700_000_001.0])
    effects += engine.feed(stamped, 0.0, upstream="a")

    assert time.process_time() - begin < 0.1  # it is less than a millisecond, but the machine may be busy
    assert [refusal.event for refusal in stamped.refused] == [1_700_000_000_000.0]
    assert len(effects) == 4  # two times: added; and the first window fired and closed


@pytest.mark.parametrize("times", [[3, -1, 2], [3.5, -1.25, 2.0]])
def test_plain_numbers_are_read_as_one_list(times: list[Any]) -> None:
    reader = EventTimes(itself)
    for _ in range(2):
        stamped = reader.read(times)

        # Not one by one, which costs ten times as much.
        assert (stamped.raw, stamped.in_microseconds, stamped.events is times) == (times, False, True)
        assert (stamped.low, stamped.high) == (times[1] * 1_000_000, times[0] * 1_000_000)


def test_the_time_of_an_event_is_asked_for_once_when_times_are_datetimes() -> None:
    asked: list[datetime] = []

    def by(event: datetime) -> datetime:
        asked.append(event)
        return event

    reader = EventTimes(by)
    reader.read([datetime(2024, 1, 1, tzinfo=UTC)])
    asked.clear()
    events = [datetime(2024, 1, day, tzinfo=UTC) for day in (2, 3)]
    reader.read(events)

    assert asked == events


def test_the_first_and_the_last_second_of_the_calendar_are_times() -> None:
    # An int beside a float, so that each is looked at alone.
    seconds = [-62_135_596_800, 0.5, 253_402_300_799]

    assert EventTimes(itself).read(seconds).times() == [-62_135_596_800_000_000, 500_000, 253_402_300_799_000_000]


def test_a_part_of_the_events_has_its_own_highest_time() -> None:
    seconds = EventTimes(lambda time: time).read([1.5, 2.25, 0.5])
    instants = EventTimes(lambda time: time).read([datetime(1970, 1, 1, 0, 0, time, tzinfo=UTC) for time in (3, 1, 2)])

    assert [seconds.high_of(0, 3), seconds.high_of(0, 1), seconds.high_of(2, 3)] == [2_250_000, 1_500_000, 500_000]
    assert [instants.high_of(0, 3), instants.high_of(1, 3)] == [3_000_000, 2_000_000]
