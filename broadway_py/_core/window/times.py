"""Event times: read by the user's function, kept as whole microseconds since 1970, and given back as they came."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final, Literal, NamedTuple

from broadway_py._core.window.shape import microseconds
from broadway_py.errors import EventTimeError
from broadway_py.foreign import article, foreign_errors, is_a

__all__ = ["EventTime", "EventTimes", "Refusal", "Stamped", "TimeKind"]

#: What users see: the kind that their function returned.
EventTime = float | datetime
TimeKind = Literal["seconds", "datetime"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
#: A bound of a window may lie outside of what a datetime can be; in every time zone, this is inside.
_FIRST_SHOWN: Final = _FIRST + 86_400_000_000
_LAST_SHOWN: Final = _LAST - 86_400_000_000

_EXPECTED: Final = "expected an aware datetime or seconds since 1970 as the time of an event"


class Refusal(NamedTuple):
    """An event without a usable time, and why."""

    event: Any
    error: BaseException


@dataclass(slots=True, eq=False, repr=False)
class Stamped:
    """Events with their times, and with their keys where windows need them."""

    events: Sequence[Any]
    #: The lowest and the highest time, in microseconds; both 0 if there are no events or no times.
    low: int = 0
    high: int = 0
    #: The times in seconds, or, if *in_microseconds*, in microseconds.
    raw: list[Any] = field(default_factory=list)
    in_microseconds: bool = False
    #: The kind in which the times came; None if there are none.
    kind: TimeKind | None = None
    #: The key of each event, set by the shell where windows need it; else None.
    keys: Sequence[Hashable] | None = None
    #: The events that are not among *events*, because they have no usable time.
    refused: list[Refusal] = field(default_factory=list)

    def times(self) -> list[int]:
        """Returns the time of each event in microseconds. Most lists are placed by *low* and *high* alone."""
        return self.raw if self.in_microseconds else [round(each * 1_000_000) for each in self.raw]

    def part(self, places: Sequence[int]) -> Stamped:
        """Returns the events at *places*, with their times and keys. None of them is refused."""
        events, keys = self.events, self.keys
        raw = [self.raw[place] for place in places] if self.raw else []
        part = Stamped(
            [events[place] for place in places],
            raw=raw,
            in_microseconds=self.in_microseconds,
            kind=self.kind,
            keys=None if keys is None else [keys[place] for place in places],
        )
        if raw:
            low, high = min(raw), max(raw)
            part.low, part.high = (low, high) if self.in_microseconds else (microseconds(low), microseconds(high))
        return part

    def high_of(self, first: int, until: int) -> int:
        """Returns the highest time of the events at the places from *first* to before *until*, in microseconds."""
        if until - first == len(self.raw):
            return self.high
        high: float = max(self.raw[first:until])
        return int(high) if self.in_microseconds else microseconds(high)


class EventTimes:
    """Reads the times of events. All of them must be of one kind: the kind of the first one.

    Args:
        by: returns the time of an event; None if the window has no event time.
        tz: the time zone of the datetimes that :meth:`shown` returns.
    """

    def __init__(self, by: Callable[[Any], Any] | None, tz: tzinfo = UTC) -> None:
        self._by = by
        self._tz = tz
        #: The kind of the times that came; None before the first one.
        self.kind: TimeKind | None = None

    def read(self, events: Sequence[Any]) -> Stamped:
        """Returns *events* with their times. Those without a usable time are in ``refused``, with the error."""
        if self._by is None or not events:
            return Stamped(events)
        if self.kind != "datetime":
            try:
                raw = list(map(self._by, events))
                # A StopIteration of the function ends map() in silence.
                if len(raw) == len(events) and _are_plain_numbers(raw):
                    low, high = microseconds(min(raw)), microseconds(max(raw))
                    if low >= _FIRST and high <= _LAST:
                        self.kind = "seconds"
                        return Stamped(events, low, high, raw, kind="seconds")
            except foreign_errors(cancellations=True):
                pass  # one by one, it turns out whose time it is
        return self._one_by_one(events, self._by)

    def shown(self, time: int) -> EventTime:
        """Returns *time* in the kind that came in. A datetime outside of the years 1 to 9999 is the nearest one."""
        if self.kind == "seconds":
            return time / 1_000_000
        return (_EPOCH + min(max(time, _FIRST_SHOWN), _LAST_SHOWN) * _MICROSECOND).astimezone(self._tz)

    def _one_by_one(self, events: Sequence[Any], by: Callable[[Any], Any]) -> Stamped:
        usable: list[Any] = []
        stamped = Stamped(usable, in_microseconds=True)
        for event in events:
            try:
                time = self._time(by(event))
            except foreign_errors(cancellations=True) as error:
                stamped.refused.append(Refusal(event, error))
            else:
                usable.append(event)
                stamped.raw.append(time)
        if usable:
            stamped.low, stamped.high = min(stamped.raw), max(stamped.raw)
            stamped.kind = self.kind
        return stamped

    def _time(self, value: Any) -> int:
        """Returns the time *value* in microseconds.

        Raises:
            EventTimeError: it is no time, or not of the kind of those before.
        """
        kind: TimeKind
        if is_a(value, datetime):
            kind, time = "datetime", _of_datetime(value)
        elif is_a(value, (int, float)) and not is_a(value, bool):
            kind, time = "seconds", _of_number(value)
        else:
            raise EventTimeError(f"{_EXPECTED}, got {'None' if value is None else article(value)}")
        if self.kind is None:
            self.kind = kind
        elif self.kind != kind:
            names = {"seconds": "a number", "datetime": "a datetime"}
            raise EventTimeError(
                f"expected {names[self.kind]} as the time of an event, as for those before, got {names[kind]}: "
                "a window takes only one of the two"
            )
        return time


def _are_plain_numbers(raw: list[Any]) -> bool:
    """Returns True if all are ints, or all are finite floats."""
    kinds = set(map(type, raw))
    # A sum of floats is finite only if each of them is.
    return kinds == {int} or (kinds == {float} and math.isfinite(sum(raw)))


def _of_datetime(value: datetime) -> int:
    if datetime.utcoffset(value) is None:
        raise EventTimeError(f"{_EXPECTED}, got a datetime without a time zone")
    return int((value - _EPOCH) // _MICROSECOND)


def _of_number(value: float) -> int:
    number = float(value) if is_a(value, float) else int(value)
    if isinstance(number, float) and not math.isfinite(number):
        raise EventTimeError(f"{_EXPECTED}, got a float that is {'NaN' if math.isnan(number) else 'infinite'}")
    if number * 1_000_000 > _LAST:
        raise EventTimeError(
            f"{_EXPECTED}, got {article(value)} that lies beyond the year 9999: "
            "it looks like milliseconds; divide by 1000"
        )
    if number * 1_000_000 < _FIRST:
        raise EventTimeError(f"{_EXPECTED}, got {article(value)} that lies before the year 1")
    return microseconds(number)
