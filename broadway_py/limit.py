"""Counts how often one kind of thing was said in this minute. Who logs asks it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, Literal, TypeVar

__all__ = ["MINUTE_S", "OTHER", "PerMinute"]

MINUTE_S: Final = 60.0
#: Stands for all kinds that came when the table was full.
OTHER: Final = "other"

K = TypeVar("K", bound=Hashable)


class PerMinute(Generic[K]):
    """Counts kinds of things. It knows no clock: whoever asks says what time it is, in seconds.

    Args:
        shown: how many of a kind are shown in each minute.
        most_kinds: kinds that are told apart at a time; those that come when it is full share one count.
        other: the kind that stands for these.
    """

    def __init__(self, shown: int, most_kinds: int, other: K) -> None:
        self._shown = shown
        self._most_kinds = most_kinds
        self._other = other
        # When the minute of each kind began, and how many there were; the oldest minute first.
        self._minutes: dict[K, tuple[float, int]] = {}

    def note(self, kind: K, now: float) -> Literal["show", "begin_hiding", "hide"]:
        """What is to be done with one more of *kind*. Call :meth:`over` before, or a minute never ends."""
        if kind not in self._minutes and len(self._minutes) >= self._most_kinds:
            kind = self._other
        since, count = self._minutes.get(kind, (now, 0))
        self._minutes[kind] = (since, count + 1)
        if count < self._shown:
            return "show"
        return "begin_hiding" if count == self._shown else "hide"

    def over(self, now: float) -> Iterator[tuple[K, int]]:
        """Forget the minutes that are over; of those with something hidden, the kind and how many."""
        while self._minutes:
            kind, (since, count) = next(iter(self._minutes.items()))
            if now - since < MINUTE_S:
                return
            del self._minutes[kind]
            if count > self._shown:
                yield kind, count - self._shown

    def close(self) -> Iterator[tuple[K, int]]:
        """End all minutes now; as :meth:`over`."""
        minutes, self._minutes = self._minutes, {}
        for kind, (_, count) in minutes.items():
            if count > self._shown:
                yield kind, count - self._shown
