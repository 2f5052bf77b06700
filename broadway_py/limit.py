"""Counts how often each kind of thing occurs in a minute, for code that limits its log lines."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, Literal, TypeVar

__all__ = ["MINUTE_S", "OTHER", "PerMinute"]

MINUTE_S: Final = 60.0
#: The kind that stands for all kinds that came when the table was full.
OTHER: Final = "other"

K = TypeVar("K", bound=Hashable)


class PerMinute(Generic[K]):
    """Counts kinds of things in each minute. It has no clock: the caller passes the time, in seconds.

    Args:
        shown: how many of a kind are shown in each minute.
        most_kinds: how many kinds are distinguished at a time; further kinds share one count.
        other: the kind that stands for the further kinds.
    """

    def __init__(self, shown: int, most_kinds: int, other: K) -> None:
        self._shown = shown
        self._most_kinds = most_kinds
        self._other = other
        # When the minute of each kind began, and how many there were; the oldest minute first.
        self._minutes: dict[K, tuple[float, int]] = {}

    def note(self, kind: K, now: float) -> Literal["show", "begin_hiding", "hide"]:
        """Counts one more of *kind* and returns what to do with it. Call :meth:`over` first, or a minute never ends."""
        if kind not in self._minutes and len(self._minutes) >= self._most_kinds:
            kind = self._other
        since, count = self._minutes.get(kind, (now, 0))
        self._minutes[kind] = (since, count + 1)
        if count < self._shown:
            return "show"
        return "begin_hiding" if count == self._shown else "hide"

    def over(self, now: float) -> Iterator[tuple[K, int]]:
        """Removes the minutes that are over. Yields (kind, number hidden) for each that hid something."""
        while self._minutes:
            kind, (since, count) = next(iter(self._minutes.items()))
            if now - since < MINUTE_S:
                return
            del self._minutes[kind]
            if count > self._shown:
                yield kind, count - self._shown

    def close(self) -> Iterator[tuple[K, int]]:
        """Ends all minutes now. Yields the same as :meth:`over`."""
        minutes, self._minutes = self._minutes, {}
        for kind, (_, count) in minutes.items():
            if count > self._shown:
                yield kind, count - self._shown
