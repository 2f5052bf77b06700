"""Selects, shows and puts back dead letters, wherever they are kept."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol, get_args

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.error_text import clipped
from broadway_py.errors import BroadwayError, OptionsError, did_you_mean
from broadway_py.message import Cause

__all__ = [
    "Choice",
    "Head",
    "Letters",
    "PartlyReplayed",
    "as_json",
    "chosen",
    "counted",
    "discard",
    "drawn",
    "id_lists",
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
# Seconds that a portion may take after the command was interrupted.
_LAST_PORTION_S: Final = 10.0


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

    @property
    def is_approximate(self) -> bool:
        """Returns whether numbers of letters are only about right, and a list of them may not be complete."""

    async def count(self) -> int:
        """Returns how many there are."""

    async def note(self) -> str | None:
        """Returns a sentence for somebody who has seen a list; None: there is nothing to say."""

    def portions(self, most: int | None = None) -> AsyncGenerator[Sequence[Head], None]:
        """Yields the oldest *most* of them (None: all) in portions, the oldest first where the queue has an order.

        The first call decides how many are read.
        """

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


class Choice(NamedTuple):
    """Which dead letters are meant: those with these ids and this cause; without both, all."""

    ids: Collection[str] = ()
    cause: str | None = None
    #: At most so many. None: all.
    limit: int | None = None


async def chosen(letters: Letters, choice: Choice) -> AsyncGenerator[Sequence[Head], None]:
    """Yields the dead letters that are meant, in portions. With ids it yields nothing before all of them are found.

    Raises:
        OptionsError: there is no such cause.
        BroadwayError: one of the ids is not among the dead letters.
    """
    ids, cause, limit = choice
    causes = get_args(Cause)
    if cause is not None and cause not in causes:
        raise OptionsError(
            (), f"--cause {cause}: no such cause; known: {', '.join(causes)}{did_you_mean(cause, causes)}"
        )
    missing = set(ids)
    left = limit
    waiting: list[Head] = []
    most = None if ids or cause is not None else limit
    async with aclosing(letters.portions(most)) as portions:
        async for portion in portions:
            missing -= {head.id for head in portion}
            found = [
                head for head in portion if (not ids or head.id in ids) and (cause is None or head.cause == cause)
            ][:left]
            waiting += found
            left = None if left is None else left - len(found)
            if waiting and not missing:
                yield waiting
                waiting = []
            if not missing and (ids or left == 0):
                return
    if missing:
        told = sorted(missing, key=lambda one: (len(one), one))
        raise BroadwayError(
            f"there is no dead letter {', '.join(told)} in queue {letters.name!r}; broadway dlq ls shows the ids"
        )


async def id_lists(letters: Letters, choice: Choice, size: int) -> AsyncGenerator[list[str], None]:
    """Yields the ids of the dead letters that are meant, at most *size* at once. Raises as :func:`chosen` does."""
    async with aclosing(chosen(letters, choice)) as portions:
        async for portion in portions:
            for start in range(0, len(portion), size):
                yield [head.id for head in portion[start : start + size]]


async def select(letters: Letters, choice: Choice) -> list[Head]:
    """Returns the dead letters that are meant. Raises as :func:`chosen` does."""
    return [head async for portion in chosen(letters, choice) for head in portion]


async def replay(
    letters: Letters,
    choice: Choice,
    rate: float | None,
    progress: Callable[[int], object],
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Puts dead letters back into the queue, at most *rate* per second. Returns how many.

    *progress* is called with the count after each portion, also after one that was put back only in part, and after
    one during which the call was cancelled: that portion is ended first, if it does not take long.

    Raises:
        PartlyReplayed: some of a portion could not be put back. They stay, and so do all later portions.
    """
    size = _PORTION if rate is None else max(1, math.floor(rate * _STEP_S))
    moved = 0
    async with aclosing(id_lists(letters, choice, size)) as lists:
        async for ids in lists:
            if moved and rate is not None:
                await clock.sleep(size / rate)
            moved = await _counted(letters.replay(ids), moved, progress)
    return moved


async def discard(letters: Letters, ids: Sequence[str], progress: Callable[[int], object]) -> int:
    """Removes dead letters for good. Returns how many. *progress* is called as in :func:`replay`."""
    removed = 0
    for start in range(0, len(ids), _PORTION):
        removed = await _counted(letters.discard(ids[start : start + _PORTION]), removed, progress)
    return removed


async def _counted(work: Coroutine[Any, Any, int], before: int, progress: Callable[[int], object]) -> int:
    """Runs *work* to its end, also when this is cancelled, and tells *progress* the count with what it has done."""
    task = asyncio.ensure_future(work)
    try:
        count = before + await asyncio.shield(task)
    except PartlyReplayed as partly:
        progress(before + partly.moved)
        raise
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_LAST_PORTION_S)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        elif not task.cancelled():
            failed = task.exception()
            done = getattr(failed, "moved", 0) if failed is not None else task.result()
            progress(before + done)
        raise
    progress(count)
    return count


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


def as_json(head: Head) -> str:
    """Returns *head* as one line of JSON."""
    died = None if head.died_s is None else time_of(head.died_s)
    said = {
        "id": head.id,
        "died": died,
        "attempts": head.attempts,
        "cause": None if head.cause == "-" else head.cause,
        "exception": head.exception,
        "size": head.size,
    }
    return json.dumps(said | {"facts": dict(head.facts)})


def printable(text: str) -> str:
    """Returns *text* with escapes for control characters: publishers write much of what is shown on the terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def time_of(wall_s: float) -> str:
    """Returns a time as text, in UTC."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def size_of(count: int) -> str:
    """Returns a number of bytes as text."""
    return f"{count:,} B"
