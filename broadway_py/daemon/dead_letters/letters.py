"""Selects, shows and puts back dead letters, wherever they are kept."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol, get_args

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.error_text import clipped
from broadway_py.errors import BroadwayError, OptionsError, did_you_mean
from broadway_py.message import Cause

__all__ = [
    "Head",
    "Letters",
    "PartlyReplayed",
    "counted",
    "drawn",
    "printable",
    "rate_of",
    "replay",
    "select",
    "shown",
    "size_of",
    "time_of",
]

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|m|h))?")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
# With a rate, one portion holds the messages of this many seconds.
_STEP_S: Final = 0.1
# The portion without a rate. Other users of the file get their turn between two portions.
_PORTION: Final = 500


def rate_of(text: str) -> float:
    """Returns messages per second for ``"50/s"``, ``"100/m"`` or ``"1000/h"``. A plain number is per second.

    Raises:
        OptionsError: *text* has none of these forms.
    """
    found = _RATE.fullmatch(text.strip())
    rate = float(found[1]) / _SECONDS[found[2]] if found else 0.0
    if rate <= 0.0:
        raise OptionsError((), f"--rate {text}: expected messages per second, minute or hour, such as 50/s or 100/m")
    return rate


def counted(count: int) -> str:
    """Returns a number of dead letters as text."""
    return f"{count:,} dead letter{'' if count == 1 else 's'}"


class PartlyReplayed(BroadwayError):
    """Some of several dead letters were put back, and some were not.

    Args:
        moved: how many were put back.
        left: how many were not put back. They stay where they were.
        reason: why the first of those was not put back.
    """

    def __init__(self, moved: int, left: int, reason: BroadwayError) -> None:
        self.moved = moved
        super().__init__(f"{counted(left)} {'was' if left == 1 else 'were'} not put back: {reason}")


class Head(NamedTuple):
    """A dead letter without its payload."""

    id: str
    #: When it failed for good, in seconds since 1970. None: this is not known.
    died_s: float | None
    #: How often it was tried. None: this is not known.
    attempts: int | None
    cause: str
    exception: str | None
    #: The size of the payload in bytes.
    size: int
    #: Everything that is known about it, by name, in the order in which it is shown.
    facts: Sequence[tuple[str, str]]


class Letters(Protocol):
    """The dead letters of one open queue."""

    #: The name of the queue.
    name: str

    async def heads(self) -> list[Head]:
        """Returns all of them, the oldest first."""

    async def payload(self, letter: str) -> bytes:
        """Returns the payload of *letter*."""

    async def replay(self, letters: Sequence[str]) -> int:
        """Puts *letters* back as new messages into the queue in which they failed. Returns how many.

        Raises:
            PartlyReplayed: some could not be put back, and stay.
        """

    async def discard(self, letters: Sequence[str]) -> int:
        """Removes *letters* for good. Returns how many."""

    async def discard_all(self) -> int:
        """Removes all of them for good, without reading any. Returns how many."""


async def select(letters: Letters, ids: Collection[str], cause: str | None) -> list[Head]:
    """Returns the dead letters with these *ids* and this *cause*, the oldest first. Without both it returns all.

    Raises:
        OptionsError: there is no such cause.
        BroadwayError: one of *ids* is not among the dead letters.
    """
    causes = get_args(Cause)
    if cause is not None and cause not in causes:
        raise OptionsError(
            (), f"--cause {cause}: no such cause; known: {', '.join(causes)}{did_you_mean(cause, causes)}"
        )
    heads = await letters.heads()
    missing = sorted(set(ids) - {head.id for head in heads}, key=lambda one: (len(one), one))
    if missing:
        raise BroadwayError(
            f"there is no dead letter {', '.join(missing)} in queue {letters.name!r}; broadway dlq ls shows the ids"
        )
    return [head for head in heads if (not ids or head.id in ids) and (cause is None or head.cause == cause)]


async def replay(
    letters: Letters,
    ids: Sequence[str],
    rate: float | None,
    progress: Callable[[int], object],
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Puts dead letters back into the queue, at most *rate* per second. Returns how many.

    *progress* is called with the count after each portion, also after one that was put back only in part.

    Raises:
        PartlyReplayed: some of a portion could not be put back. They stay, and so do all later portions.
    """
    portion = _PORTION if rate is None else max(1, math.floor(rate * _STEP_S))
    moved = 0
    for start in range(0, len(ids), portion):
        if start and rate is not None:
            await clock.sleep(portion / rate)
        try:
            moved += await letters.replay(ids[start : start + portion])
        except PartlyReplayed as partly:
            progress(moved + partly.moved)
            raise
        progress(moved)
    return moved


def drawn(heads: Sequence[Head]) -> Iterator[str]:
    """Yields a table of *heads*, line by line, safe to show on a terminal."""
    rows: list[tuple[str, ...]] = [("id", "died", "attempts", "cause", "exception", "size")]
    rows += [
        (
            one.id,
            "-" if one.died_s is None else time_of(one.died_s),
            "-" if one.attempts is None else str(one.attempts),
            clipped(one.cause, 60),
            clipped(one.exception or "-", 100),
            size_of(one.size),
        )
        for one in heads
    ]
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def shown(head: Head) -> Iterator[str]:
    """Yields everything that is known about *head* except its payload, line by line, safe to show on a terminal."""
    facts = [(printable(name), printable(clipped(value, 1000))) for name, value in head.facts]
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        yield f"{name}:".ljust(width) + value


def printable(text: str) -> str:
    """Returns *text* with escapes for control characters: publishers write much of what is shown on the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def time_of(wall_s: float) -> str:
    """Returns a time as text, in UTC."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size_of(count: int) -> str:
    """Returns a number of bytes as text."""
    return f"{count:,} B"
