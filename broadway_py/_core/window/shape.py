"""The kinds of windows, and the checks of their settings."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, cast

from broadway_py.durations import seconds_of
from broadway_py.errors import OptionsError
from broadway_py.foreign import article, is_a, shown

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = [
    "Calendar",
    "CalendarUnit",
    "Count",
    "Duration",
    "Fixed",
    "Global",
    "Kind",
    "Periodic",
    "Session",
    "Shape",
    "duration",
    "microseconds",
    "not_negative",
    "positive",
    "positive_int",
    "time_zone",
]

#: Seconds, a timedelta, or text such as ``"500ms"``, ``"2s"``, ``"1m"``, ``"1h"``.
Duration = float | timedelta | str
CalendarUnit = Literal["day", "week", "month"]
Kind = Literal["fixed", "sliding", "session", "calendar", "count", "global", "periodic"]

_MICROSECONDS: Final = 1_000_000


class Fixed(NamedTuple):
    """Windows of *size* seconds that begin every *every* seconds. They overlap if *every* is less than *size*."""

    kind: Literal["fixed", "sliding"]
    size: float
    every: float
    offset: float


class Session(NamedTuple):
    """Windows of one key that end when the key is silent for *gap* seconds, or after *longest* seconds."""

    gap: float
    longest: float | None
    kind: Literal["session"] = "session"


class Calendar(NamedTuple):
    """Windows from one local midnight to another, by days, weeks (from Monday) or months of the time zone *tz*."""

    unit: CalendarUnit
    tz: ZoneInfo
    kind: Literal["calendar"] = "calendar"


class Count(NamedTuple):
    """Windows of *n* events each."""

    n: int
    kind: Literal["count"] = "count"


class Global(NamedTuple):
    """One window that lasts until the end of the input."""

    kind: Literal["global"] = "global"


class Periodic(NamedTuple):
    """Windows of *interval* seconds by the clock, from the start of the stage."""

    interval: float
    kind: Literal["periodic"] = "periodic"


Shape = Fixed | Session | Calendar | Count | Global | Periodic


def microseconds(seconds: float) -> int:
    """Returns *seconds* as whole microseconds, rounded. All times and durations of the engine are such numbers."""
    return round(seconds * _MICROSECONDS)


def duration(name: str, value: object) -> float:
    """Returns the duration *value* of the setting *name* in seconds.

    Raises:
        OptionsError: it is none.
    """
    try:
        return seconds_of(value, name)
    except ValueError as wrong:
        raise OptionsError((name,), str(wrong).removeprefix(f"{name}: ")) from None


def positive(name: str, value: object) -> float:
    """Returns the duration *value* of the setting *name* in seconds.

    Raises:
        OptionsError: it is none, or it is shorter than a microsecond.
    """
    seconds = duration(name, value)
    if microseconds(seconds) <= 0:
        raise OptionsError((name,), f"expected a duration of at least one microsecond, got {shown(value)}")
    return seconds


def not_negative(name: str, value: object) -> float:
    """Returns the duration *value* of the setting *name* in seconds.

    Raises:
        OptionsError: it is none, or it is negative.
    """
    seconds = duration(name, value)
    if seconds < 0:
        raise OptionsError((name,), f"expected a duration of 0 seconds or more, got {shown(value)}")
    return seconds


def positive_int(name: str, value: object) -> int:
    """Returns the whole number *value* of the setting *name*.

    Raises:
        OptionsError: it is none, or it is less than 1.
    """
    if is_a(value, int) and not is_a(value, bool):
        number = int(cast("int", value))
        if number >= 1:
            return number
    raise OptionsError((name,), f"expected a whole number of 1 or more, got {shown(value)}")


def time_zone(name: str, value: object) -> ZoneInfo:
    """Returns the time zone of the setting *name*, given by its name.

    Raises:
        OptionsError: the machine knows no zone of this name.
    """
    from zoneinfo import ZoneInfo  # noqa: PLC0415  # few windows need it, and it takes a while to load

    if is_a(value, ZoneInfo):
        return cast("ZoneInfo", value)
    if not is_a(value, str):
        raise OptionsError((name,), f"expected the name of a time zone such as 'Europe/Berlin', got {article(value)}")
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, KeyError):  # there is no such file, or no file can have this name
        raise OptionsError(
            (name,),
            f"expected the name of a time zone such as 'Europe/Berlin', got {shown(value)}: it is not known here",
        ) from None
