"""Puts the lines of a stream on a queue, and knows at each moment which of them are there for certain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from broadway_py.daemon.sending.raw_lines import raw_lines
from broadway_py.daemon.sending.targets import Put, Target
from broadway_py.errors import ProducerError, PublishError
from broadway_py.publisher import Outgoing

__all__ = ["NotAllSent", "Sent", "send_lines"]

#: How many lines are sent to the broker at once.
_CHUNK: Final = 500
#: Seconds that a chunk may take after the command was interrupted.
_LAST_CHUNK_S: Final = 5.0
#: How many numbers of lines an error has.
_MOST_TOLD: Final = 10


class Line(NamedTuple):
    """A line that is not empty."""

    #: Its number in the input, from 1.
    number: int
    message: Outgoing
    #: How many bytes of the input are before it.
    before: int


@dataclass(frozen=True, slots=True)
class Sent:
    """How far sending is."""

    #: How many lines the queue has stored for certain.
    count: int = 0
    #: All lines up to this number are stored, or empty, or were skipped.
    line: int = 0
    #: How many bytes of the input are read for that.
    size: int = 0


class NotAllSent(ProducerError):
    """Some of several lines were not stored, and others behind them were.

    Args:
        numbers: the lines that were not stored.
        last: all other lines up to this one are stored. None: none behind the first of them is.
        reason: why.
    """

    def __init__(self, numbers: Sequence[int], last: int | None, reason: str) -> None:
        self.last = last
        told = ", ".join(map(str, numbers[:_MOST_TOLD]))
        more = f" and {len(numbers) - _MOST_TOLD:,} more" if len(numbers) > _MOST_TOLD else ""
        which = f"line {told} was" if len(numbers) == 1 else f"lines {told}{more} were"
        super().__init__(f"{which} not put on the queue: {reason}")


async def send_lines(
    stream: BinaryIO,
    target: Target,
    progress: Callable[[Sent], object],
    *,
    key: str | None = None,
    skip: int = 0,
) -> None:
    """Puts the lines of *stream* on *target*, without their line ends. Empty lines are left out.

    A call that is cancelled waits a little for the lines that are being stored, so that *progress* has told the truth.

    Args:
        stream: what to read.
        target: opens the queue.
        progress: called after each list of lines with what is stored so far.
        key: the field of each line, a JSON object, that is its key. None: the lines have no keys.
        skip: so many lines at the beginning are read and left out.

    Raises:
        NotAllSent: some lines were not stored, and others behind them were, or may have been.
        ProducerError: the queue cannot be reached or refuses, or a line has no key. The lines that *progress* has
            counted are stored.
    """
    done = Sent()
    async with target() as put, aclosing(raw_lines(stream, _CHUNK)) as lists:
        async for raw in lists:
            after = Sent(done.count, done.line + len(raw), done.size + sum(map(len, raw)))
            lines = _lines(raw, done, key, skip)
            if lines:
                await _store(put, lines, done, after, progress)
            done = Sent(done.count + len(lines), after.line, after.size)
            progress(done)


def _lines(raw: Sequence[bytes], done: Sent, key: str | None, skip: int) -> list[Line]:
    lines: list[Line] = []
    before = done.size
    for number, line in enumerate(raw, done.line + 1):
        text = line.rstrip(b"\r\n")
        if text and number > skip:
            message = Outgoing(data=text, key=None if key is None else _key_in(text, key, number))
            lines.append(Line(number, message, before))
        before += len(line)
    return lines


async def _store(put: Put, lines: Sequence[Line], done: Sent, after: Sent, progress: Callable[[Sent], object]) -> None:
    storing = asyncio.ensure_future(put([line.message for line in lines]))
    try:
        await asyncio.shield(storing)
    except PublishError as failed:
        left = _left(lines, failed)
        progress(_before(left[0], done, len(lines) - len(left)))
        last = None if left == list(lines[-len(left) :]) else after.line
        raise NotAllSent([line.number for line in left], last, str(failed)) from None
    except asyncio.CancelledError:
        await asyncio.wait({storing}, timeout=_LAST_CHUNK_S)
        if storing.done() and not storing.cancelled():
            error = storing.exception()
            if error is None:
                progress(Sent(done.count + len(lines), after.line, after.size))
            elif isinstance(error, PublishError):
                left = _left(lines, error)
                progress(_before(left[0], done, len(lines) - len(left)))
        storing.cancel()
        raise


def _left(lines: Sequence[Line], failed: PublishError) -> list[Line]:
    """Returns those of *lines* that are not stored, in their order."""
    unpublished = set(map(id, failed.unpublished))
    return [line for line in lines if id(line.message) in unpublished]


def _before(first: Line, done: Sent, stored: int) -> Sent:
    """Returns what is stored if *first* is the first line that is not, and *stored* lines of its list are."""
    return Sent(done.count + stored, first.number - 1, first.before)


def _key_in(line: bytes, field: str, number: int) -> str:
    try:
        found = json.loads(line)
        value = found.get(field) if isinstance(found, dict) else None
        if (isinstance(value, str) and value) or (isinstance(value, int) and not isinstance(value, bool)):
            key = str(value)
            key.encode()  # JSON may have half of a surrogate pair, which is no text
            return key
    except (ValueError, RecursionError):
        pass
    # The line is not shown, because it may hold secrets.
    raise ProducerError(
        f"line {number}: expected a JSON object whose field {field!r}, the key, is text or a whole number"
    )
