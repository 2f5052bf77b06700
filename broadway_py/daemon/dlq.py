"""Look after the dead letters of an embedded queue."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

from broadway_py.clock import SYSTEM_CLOCK, Clock
from broadway_py.errors import BroadwayError, OptionsError, did_you_mean
from broadway_py.message import Cause
from broadway_py.storage.queue_dead import DeadHead
from broadway_py.storage.queue_file import QueueFile

__all__ = ["Place", "drawn", "opened", "place_of", "rate_of", "replay", "select", "shown"]

# A path and the name of a queue in that file.
Place = tuple[str, str]

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:/\s*(s|m|h))?")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}
# A rate is kept in steps of this many seconds.
_STEP_S: Final = 0.1
# Without a rate: other users of the file get their turn between two portions.
_PORTION: Final = 500


def place_of(reference: str) -> Place:
    """The embedded queue that ``FILE.db:NAME`` names.

    Raises:
        OptionsError: it is not of this form, or names the queue of a broker.
    """
    if "://" in reference:
        raise OptionsError(
            (),
            "--queue: dlq works for the embedded queue, FILE:NAME, and not for brokers yet; "
            "look after a broker's dead letters with its own tools",
        )
    path, colon, name = reference.rpartition(":")
    if not colon or not path or not name:
        raise OptionsError((), f"--queue {reference}: expected FILE:NAME, such as var/queue.db:orders")
    return path, name


def rate_of(text: str) -> float:
    """Messages in a second: ``"50/s"``, ``"100/m"``, ``"1000/h"``; a plain number is per second.

    Raises:
        OptionsError: it is none of these.
    """
    found = _RATE.fullmatch(text.strip())
    rate = float(found[1]) / _SECONDS[found[2]] if found else 0.0
    if rate <= 0.0:
        raise OptionsError((), f"--rate {text}: expected messages per second, minute or hour, such as 50/s or 100/m")
    return rate


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[QueueFile]:
    """The queue at *place*, which must be there already: nothing is made by looking.

    Raises:
        OptionsError: there is no such file or queue.
        StorageError: the file cannot be used.
    """
    path, name = place
    _refuse_missing(path)
    names = await QueueFile.names(path)
    if name not in names:
        known = f"; known here: {', '.join(names)}{did_you_mean(name, names)}" if names else ""
        raise OptionsError((), f"--queue: {path}: there is no queue {name!r} in this file{known}")
    file = await QueueFile.open(path, name, SYSTEM_CLOCK)
    try:
        yield file
    finally:
        await file.close()


def _refuse_missing(path: str) -> None:
    if not Path(path).exists():
        raise OptionsError((), f"--queue: {path}: no such file")


async def select(file: QueueFile, ids: Collection[int], cause: str | None) -> list[DeadHead]:
    """The dead letters that are meant, the oldest first; without *ids* and *cause* all.

    Raises:
        OptionsError: there is no such cause.
        BroadwayError: one of *ids* is not among the dead letters.
    """
    causes = get_args(Cause)
    if cause is not None and cause not in causes:
        raise OptionsError(
            (), f"--cause {cause}: no such cause; known: {', '.join(causes)}{did_you_mean(cause, causes)}"
        )
    heads = await file.dead_heads()
    missing = sorted(set(ids) - {head.id for head in heads})
    if missing:
        raise BroadwayError(
            f"no dead letter {', '.join(map(str, missing))} in queue {file.name!r}: see broadway dlq ls"
        )
    return [head for head in heads if (not ids or head.id in ids) and (cause is None or head.cause == cause)]


async def replay(
    file: QueueFile,
    ids: Sequence[int],
    rate: float | None,
    progress: Callable[[int], object],
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Put dead letters back into the queue, at most *rate* in a second; how many.

    *progress* is told the count after each portion.
    """
    portion = _PORTION if rate is None else max(1, math.floor(rate * _STEP_S))
    moved = 0
    for start in range(0, len(ids), portion):
        if start and rate is not None:
            await clock.sleep(portion / rate)
        moved += await file.replay(ids[start : start + portion])
        progress(moved)
    return moved


def drawn(heads: Sequence[DeadHead]) -> Iterator[str]:
    """A table of *heads*, line by line."""
    rows = [("id", "died", "attempts", "cause", "exception", "size")]
    rows += [
        (str(one.id), _time(one.dead_at), str(one.attempts), one.cause, one.exception or "-", _size(one.size))
        for one in heads
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def shown(head: DeadHead) -> Iterator[str]:
    """All that is known about *head*, but for its payload, line by line."""
    metadata = {} if head.metadata is None else json.loads(head.metadata)
    yield f"id:         {head.id}"
    yield f"cause:      {head.cause}"
    yield f"exception:  {head.exception or '-'}"
    yield f"attempts:   {head.attempts}"
    yield f"put:        {_time(head.enqueued_at)}"
    yield f"died:       {_time(head.dead_at)}"
    yield f"pipeline:   {head.pipeline}"
    yield f"size:       {_size(head.size)}"
    yield f"metadata:   {json.dumps(metadata)}"


def _time(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _size(count: int) -> str:
    return f"{count:,} B"
