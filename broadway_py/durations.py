"""Durations as people write them: a number of seconds, a timedelta, or text such as ``"500ms"``."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final, cast

from broadway_py.errors import OptionsError
from broadway_py.foreign import article, foreign_errors, is_a, shown

__all__ = ["AS_TEXT", "is_number", "parse_seconds", "seconds_of", "timeout_of"]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
#: The form of a duration that is text, as a regular expression of JSON Schema.
AS_TEXT: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*(ms|s|m|h)?\s*$"
_NUMBER: Final = re.compile(r"\s*\d")
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*")


def parse_seconds(value: object) -> float:
    """Returns text such as ``"500ms"``, ``"2s"``, ``"1m"``, ``"1h"``, a timedelta or a plain number in seconds."""
    seconds = _as_float(value)
    if seconds is None:
        # Such as "1d" or "1m30s": it looks like a duration.
        units = ": one number with the unit ms, s, m or h" if is_a(value, str) and _NUMBER.match(str(value)) else ""
        raise ValueError(f"expected a duration in seconds, or text such as '500ms', '2s', '1m'{units}")
    if not math.isfinite(seconds):
        raise ValueError("expected a finite duration in seconds")
    return seconds


def _as_float(value: object) -> float | None:
    if is_a(value, timedelta):
        return timedelta.total_seconds(cast("timedelta", value))
    if is_a(value, (str,)):
        found = _DURATION.fullmatch(str.__str__(cast("str", value)))
        return None if found is None else float(found[1]) * _UNITS[found[2]]
    if is_a(value, bool) or not is_number(value):
        return None
    try:
        return float(cast("float", value))
    except foreign_errors():
        return None  # too large, or a number type of the user that does not convert


def is_number(value: object) -> bool:
    """Returns True if *value* is a real number of any type."""
    if is_a(value, (int, float)):
        return True
    from decimal import Decimal  # noqa: PLC0415  # both take longer to load than most of this package
    from numbers import Real  # noqa: PLC0415  # as above

    return is_a(value, (Real, Decimal))


def seconds_of(value: object, what: str) -> float:
    """Returns *value*, given in code, in seconds. It may be a number, a timedelta, or text as in config files.

    Raises:
        ValueError: it is none of these, or it is not finite. The text begins with *what*, the place of the value.
    """
    seconds = _as_float(value)
    if seconds is None or not math.isfinite(seconds):
        came = shown(value) if seconds is not None or is_a(value, str) or is_number(value) else article(value)
        raise ValueError(f"{what}: expected seconds as a finite number, a timedelta, or text such as '2s', got {came}")
    return seconds


def timeout_of(value: object, what: str) -> float | None:
    """Returns the seconds of a time-out, as :func:`seconds_of`. None and infinity give None: no time-out.

    Raises:
        OptionsError: the value is not a duration. The text begins with *what*.
    """
    if value is None or _as_float(value) == math.inf:
        return None
    try:
        return seconds_of(value, what)
    except ValueError as wrong:
        raise OptionsError((), str(wrong)) from None
