"""Which windows hold a time: negative times, steps that do not divide the size, and days of 23 and 25 hours."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadway_py._core.window.assign import Assigner, CalendarDays, Grid, assigner_of
from broadway_py._core.window.shape import Calendar, CalendarUnit, Fixed

HOUR = 3_600_000_000


def local(zone: str, *bounds: int) -> list[str]:
    """UTC instants in microseconds as local texts."""
    return [datetime.fromtimestamp(each / 1e6, ZoneInfo(zone)).isoformat() for each in bounds]


def at(zone: str, *parts: int, fold: int = 0) -> int:
    return round(datetime(*parts, tzinfo=ZoneInfo(zone), fold=fold).timestamp() * 1e6)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("time", "start"),
    [(0, 0), (999, 0), (1000, 1000), (-1, -1000), (-999, -1000), (-1000, -1000), (-1001, -2000), (-1500, -2000)],
)
def test_a_fixed_window_is_right_for_negative_times(time: int, start: int) -> None:
    assert Grid(1000, 1000, 0).bounds(time) == [(start, start + 1000)]


@pytest.mark.parametrize(("time", "start"), [(9, -90), (10, 10), (109, 10), (110, 110), (-91, -190)])
def test_an_offset_moves_all_bounds(time: int, start: int) -> None:
    assert Grid(100, 100, 10).bounds(time) == [(start, start + 100)]
    assert Grid(100, 100, -90).bounds(time) == Grid(100, 100, 10).bounds(time) == Grid(100, 100, 110).bounds(time)


def test_an_event_is_in_each_sliding_window_that_holds_it() -> None:
    assert Grid(30, 10, 0).bounds(25) == [(0, 30), (10, 40), (20, 50)]
    assert Grid(25, 10, 0).bounds(24) == [(0, 25), (10, 35), (20, 45)]
    assert Grid(25, 10, 0).bounds(25) == [(10, 35), (20, 45)]
    assert Grid(25, 10, 0).bounds(-1) == [(-20, 5), (-10, 15)]


@given(
    every=st.integers(1, 20),
    more=st.integers(0, 30),
    offset=st.integers(-50, 50),
    time=st.integers(-200, 200),
    until=st.integers(0, 60),
)
def test_a_grid_is_what_its_definition_says(every: int, more: int, offset: int, time: int, until: int) -> None:
    size = every + more
    grid = Grid(size, every, offset)
    all_windows = [(k * every + offset, k * every + offset + size) for k in range(-400, 400)]

    def holding(moment: int) -> list[tuple[int, int]]:
        return [(start, end) for start, end in all_windows if start <= moment < end]

    begin, end = grid.span(time)

    assert list(grid.bounds(time)) == holding(time)
    assert begin <= time < end
    assert all(holding(moment) == holding(time) for moment in range(begin, end))
    assert holding(begin - 1) != holding(time) != holding(end)
    ends = {window_end for _, window_end in all_windows}
    assert grid.ends_between(time, time + until) == any(each in ends for each in range(time + 1, time + until + 1))


@pytest.mark.parametrize(
    ("zone", "time", "hours"),
    [
        ("Europe/Berlin", (2024, 3, 31, 12), 23),
        ("Europe/Berlin", (2024, 10, 27, 12), 25),
        ("Europe/Berlin", (2024, 6, 1, 0), 24),
        ("Europe/Berlin", (2024, 6, 1, 23, 59, 59), 24),
        ("America/Sao_Paulo", (2018, 11, 4, 12), 23),  # midnight does not exist: the day begins at one
        ("America/St_Johns", (2010, 11, 7, 12), 25),  # midnight comes twice: the day begins with the first
        ("UTC", (2016, 12, 31, 23), 24),
    ],
)
def test_a_day_lasts_from_one_local_midnight_to_the_next(zone: str, time: tuple[int, ...], hours: int) -> None:
    ((start, end),) = CalendarDays("day", ZoneInfo(zone)).bounds(at(zone, *time))

    assert end - start == hours * HOUR
    assert start <= at(zone, *time) < end


def test_the_first_and_the_last_instant_of_a_short_and_a_long_day() -> None:
    days = CalendarDays("day", ZoneInfo("Europe/Berlin"))
    for day in (31, 30):
        start, end = days.span(at("Europe/Berlin", 2024, 3, day, 12))
        assert local("Europe/Berlin", start)[0].startswith(f"2024-03-{day}T00:00:00")
        assert days.span(start) == days.span(end - 1) == (start, end)
        assert days.span(end)[0] == end
        assert days.span(start - 1)[1] == start


def test_an_hour_that_comes_back_after_midnight_belongs_to_the_day_that_has_begun() -> None:
    # At one minute past midnight, the clocks went back to a minute past eleven.
    days = CalendarDays("day", ZoneInfo("America/St_Johns"))
    again = at("America/St_Johns", 2010, 11, 6, 23, 30, fold=1)

    start, end = days.span(again)

    assert local("America/St_Johns", start, end) == ["2010-11-07T00:00:00-02:30", "2010-11-08T00:00:00-03:30"]
    assert days.span(at("America/St_Johns", 2010, 11, 6, 23, 30)) == (start - 24 * HOUR, start)


def test_a_midnight_that_is_left_out_is_where_it_would_have_been() -> None:
    # From half past eleven, the clocks went forward to half past midnight.
    days = CalendarDays("day", ZoneInfo("America/Toronto"))

    start, end = days.span(at("America/Toronto", 1919, 3, 31, 0, 40))

    assert local("America/Toronto", start, end) == ["1919-03-30T00:00:00-05:00", "1919-03-31T01:00:00-04:00"]
    assert end - start == 24 * HOUR
    assert {type(start), type(end)} == {int}


def test_a_day_that_is_left_out_has_no_window() -> None:
    days = CalendarDays("day", ZoneInfo("Pacific/Apia"))

    start, end = days.span(at("Pacific/Apia", 2011, 12, 29, 12))

    assert local("Pacific/Apia", start, end) == ["2011-12-29T00:00:00-10:00", "2011-12-31T00:00:00+14:00"]


@pytest.mark.parametrize(
    ("unit", "start", "end"),
    [
        ("week", "2024-02-26T00:00:00+01:00", "2024-03-04T00:00:00+01:00"),
        ("month", "2024-03-01T00:00:00+01:00", "2024-04-01T00:00:00+02:00"),
        ("day", "2024-03-02T00:00:00+01:00", "2024-03-03T00:00:00+01:00"),
    ],
)
def test_weeks_begin_on_monday_and_months_on_the_first(unit: CalendarUnit, start: str, end: str) -> None:
    window = CalendarDays(unit, ZoneInfo("Europe/Berlin")).span(at("Europe/Berlin", 2024, 3, 2, 5))

    assert local("Europe/Berlin", *window) == [start, end]


ZONES = st.sampled_from(
    ["Europe/Berlin", "America/St_Johns", "America/Sao_Paulo", "Pacific/Apia", "Asia/Kathmandu", "Africa/Cairo", "UTC"]
)


@given(ZONES, st.sampled_from(["day", "week", "month"]), st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)))  # noqa: DTZ001  # made aware below
def test_each_time_is_in_one_window_of_a_calendar(zone: str, unit: CalendarUnit, when: datetime) -> None:
    days = CalendarDays(unit, ZoneInfo(zone))
    time = round(when.replace(tzinfo=UTC).timestamp() * 1e6)

    start, end = days.span(time)

    assert start <= time < end
    fresh = CalendarDays(unit, ZoneInfo(zone))
    assert days.span(end)[0] == end
    assert days.span(start - 1)[1] == start
    assert fresh.span(start) == fresh.span(end - 1) == (start, end)
    assert not days.ends_between(start, end - 1)
    assert days.ends_between(start, end)


@pytest.mark.parametrize("unit", ["day", "week", "month"])
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("time", [-62_135_596_800_000_000, 253_402_300_799_999_999])
def test_the_calendar_has_windows_up_to_its_limits(unit: CalendarUnit, zone: str, time: int) -> None:
    start, end = CalendarDays(unit, ZoneInfo(zone)).span(time)

    assert start <= time < end
    assert end - start >= 23 * HOUR


def test_a_shape_has_its_assigner_in_microseconds() -> None:
    grid: Assigner = assigner_of(Fixed("sliding", 1.5, 0.5, 0.25))
    weeks = assigner_of(Calendar("week", ZoneInfo("UTC")))

    assert grid.bounds(0) == [(-1_250_000, 250_000), (-750_000, 750_000), (-250_000, 1_250_000)]
    assert weeks.bounds(5) == [(-3 * 24 * HOUR, 4 * 24 * HOUR)]  # the first day of 1970 was a Thursday
