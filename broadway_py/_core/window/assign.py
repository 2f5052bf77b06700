"""Which windows hold a time. All times are whole microseconds since 1970, and a window does not include its end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from broadway_py._core.window.shape import Calendar, CalendarUnit, Fixed, microseconds

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["Assigner", "CalendarDays", "Grid", "assigner_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: Before the first day of the calendar, and after its last one.
_FIRST: Final = -(10**18)
_LAST: Final = 10**18


class Assigner(Protocol):
    """Says which windows hold a time, and for which other times this is the same."""

    #: True if a time may be in several windows.
    has_overlaps: bool

    def span(self, time: int) -> tuple[int, int]:
        """Returns the times around *time* that are in the same windows: the first one, and the end, which is not."""

    def bounds(self, time: int) -> Sequence[tuple[int, int]]:
        """Returns start and end of each window that holds *time*, in order."""

    def ends_between(self, after: int, until: int) -> bool:
        """Returns True if a window ends later than *after* and not later than *until*. It need not be open."""


class Grid:
    """Windows of equal size, one beginning at each step."""

    def __init__(self, size: int, every: int, offset: int) -> None:
        self.has_overlaps = every < size
        self._size = size
        self._every = every
        self._offset = offset
        self._steps, self._rest = divmod(size, every)

    def span(self, time: int) -> tuple[int, int]:
        """Returns the times around *time* that are in the same windows: the first one, and the end, which is not."""
        # Floor division is right for negative times, too.
        into = (time - self._offset) % self._every
        step = time - into
        if into < self._rest:  # in the rest of the window that began first
            return step, step + self._rest
        return step + self._rest, step + self._every

    def bounds(self, time: int) -> Sequence[tuple[int, int]]:
        """Returns start and end of each window that holds *time*, in order."""
        into = (time - self._offset) % self._every
        last = time - into
        first = last - (self._steps - (into >= self._rest)) * self._every
        return [(start, start + self._size) for start in range(first, last + 1, self._every)]

    def ends_between(self, after: int, until: int) -> bool:
        """Returns True if a window ends later than *after* and not later than *until*. It need not be open."""
        first_end = self._offset + self._size
        return (until - first_end) // self._every > (after - first_end) // self._every


class CalendarDays:
    """Windows from one local midnight to another."""

    has_overlaps = False

    def __init__(self, unit: CalendarUnit, tz: ZoneInfo) -> None:
        self._unit = unit
        self._tz = tz
        #: The window that was asked for last. Most questions are about the same one.
        self._last = (0, 0)

    def span(self, time: int) -> tuple[int, int]:
        """Returns start and end of the window that holds *time*."""
        if not self._last[0] <= time < self._last[1]:
            self._last = self._around(time)
        return self._last

    def bounds(self, time: int) -> Sequence[tuple[int, int]]:
        """Returns start and end of the window that holds *time*, as the only one."""
        return [self.span(time)]

    def ends_between(self, after: int, until: int) -> bool:
        """Returns True if a window ends later than *after* and not later than *until*. It need not be open."""
        return self.span(after)[1] <= until

    def _around(self, time: int) -> tuple[int, int]:
        first = self._first_day(self._day_of(time))
        following = self._following(first)
        # Where clocks are put back over midnight, a day comes back after its end. Where a day is left out, its start is
        # its end. So the instants decide, not the date on the calendar.
        while following is not None and time >= self._midnight(following):
            first, following = following, self._following(following)
        while time < self._midnight(first):
            if first <= date.min + timedelta(days=31):
                return _FIRST, self._midnight(first)
            first, following = self._first_day(first - timedelta(days=1)), first
        return self._midnight(first), _LAST if following is None else self._midnight(following)

    def _day_of(self, time: int) -> date:
        try:
            return (_EPOCH + time * _MICROSECOND).astimezone(self._tz).date()
        except OverflowError:
            return date.max if time > 0 else date.min

    def _midnight(self, day: date) -> int:
        return (datetime.combine(day, time.min, self._tz) - _EPOCH) // _MICROSECOND

    def _first_day(self, day: date) -> date:
        if self._unit == "month":
            return day.replace(day=1)
        return day - timedelta(days=day.weekday()) if self._unit == "week" else day

    def _following(self, first: date) -> date | None:
        """Returns the day on which the next window begins; None at the end of the calendar."""
        try:
            if self._unit == "month":
                return (first + timedelta(days=31)).replace(day=1)
            return first + timedelta(days=7 if self._unit == "week" else 1)
        except OverflowError:
            return None


def assigner_of(shape: Fixed | Calendar) -> Assigner:
    """Returns what assigns times to windows of this *shape*."""
    if isinstance(shape, Calendar):
        return CalendarDays(shape.unit, shape.tz)
    return Grid(microseconds(shape.size), microseconds(shape.every), microseconds(shape.offset))
