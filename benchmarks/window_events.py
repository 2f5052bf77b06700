"""The events of the rows with windows: out of order by up to five seconds, each of one of 10,000 keys.

Only the standard library is imported here: peers run this module in environments of their own.
"""

from __future__ import annotations

import gc
import random
from typing import Final

__all__ = ["BEGIN", "KEYS", "LATENESS_S", "SIZE_S", "Event", "check", "events", "value_of"]

KEYS: Final = 10_000
#: Fixed windows.
SIZE_S: Final = 60
LATENESS_S: Final = 10
_SPREAD_S: Final = 5.0
_A_SECOND: Final = 1_000
BEGIN: Final = 1_700_000_000

#: Time, key and value.
Event = tuple[float, int, int]


def value_of(number: int) -> int:
    """The value of the event *number*."""
    return number % 8


def events(count: int, keys: int = KEYS) -> list[Event]:
    """So many events of so many keys, a thousand for each second. The garbage collector does not look at them."""
    chance = random.Random(7)
    made = [
        (BEGIN + number / _A_SECOND - chance.random() * _SPREAD_S, chance.randrange(keys), value_of(number))
        for number in range(count)
    ]
    # A stream would not be in memory as a whole. Without this, each full collection would visit all events again, and
    # an event would seem to cost more the more of them there are.
    gc.freeze()
    return made


def check(total: int, count: int) -> None:
    """Raises RuntimeError when the values of *count* events do not add up to *total*."""
    expected = sum(map(value_of, range(count)))
    if total != expected:
        raise RuntimeError(f"expected values that add up to {expected}, got {total}")
