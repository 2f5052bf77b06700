"""Keeps which kinds of failures a pipeline had last, for the live page. It has no payload and no text of an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broadway_py.pipeline.stats import FailureStats

__all__ = ["MOST_KINDS", "RecentFailures"]

#: How many kinds are kept. User code could create exception types without end.
MOST_KINDS: Final = 20


@dataclass(slots=True)
class _Kept:
    count: int = 0
    last: float = 0.0
    place: str = ""
    next: str = ""


class RecentFailures:
    """Counts the failed messages of one pipeline by kind: stage, cause, exception type, what becomes of the message.

    The kinds that have not come for the longest time are forgotten, with their counts.
    """

    def __init__(self) -> None:
        # The kind that came last is at the end.
        self._kinds: dict[tuple[str, str, str, str], _Kept] = {}

    def note(self, kind: tuple[str, str, str, str], words: str, place: str | None, now: float) -> None:
        """Count one more of *kind*.

        Args:
            kind: stage, cause, exception type (or ""), and what becomes of the message (or "").
            words: what becomes of the message, such as ``retry in 12 s``; "" if that is not known.
            place: where in the code the error was raised; None: not looked up, the last known place holds.
            now: seconds since 1970.
        """
        kept = self._kinds.pop(kind, None) or _Kept()
        kept.count += 1
        kept.last = now
        kept.next = words
        if place is not None:
            kept.place = place
        self._kinds[kind] = kept
        if len(self._kinds) > MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]

    def snapshot(self) -> tuple[FailureStats, ...]:
        """Returns what is kept, the latest first."""
        return tuple(
            FailureStats(
                type=exception,
                stage=stage,
                place=kept.place,
                cause=cause,
                count=kept.count,
                last=kept.last,
                next=kept.next or None,
                becomes=becomes,
            )
            for (stage, cause, exception, becomes), kept in reversed(self._kinds.items())
        )
