"""The bytes of several results that lie in one row: one after the other, with a line break between them."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from itertools import groupby

__all__ = ["join", "parted", "remaining", "runs", "split"]


def join(contents: Iterable[bytes]) -> bytes:
    """Returns the bytes of a row with the results *contents*. Each of them has two lines."""
    return b"\n".join(contents)


def split(content: bytes, count: int) -> list[bytes]:
    """Returns each of the *count* results in the bytes of a row."""
    if count == 1:
        return [content]
    lines = content.split(b"\n")
    return list(map(b"\n".join, zip(lines[::2], lines[1::2], strict=True)))


def parted(first: int, content: bytes, count: int, most_bytes: int) -> list[tuple[int, bytes, int]]:
    """Returns a row as several rows, none of which has more than *most_bytes*, unless it has only one result.

    Args:
        first: the sequence number of the first result of the row.
        content: the bytes of the row.
        count: how many results it has.
        most_bytes: how long a row may be.

    Returns:
        Of each row the number of the first, the bytes, and how many there are.
    """
    if len(content) <= most_bytes:
        return [(first, content, count)]
    rows: list[tuple[int, bytes, int]] = []
    together: list[bytes] = []
    size = 0
    for one in split(content, count):
        if together and size + len(one) > most_bytes:
            rows.append((first, join(together), len(together)))
            first += len(together)
            together, size = [], 0
        together.append(one)
        size += len(one) + 1  # the line break
    return [*rows, (first, join(together), len(together))]


def remaining(first: int, content: bytes, count: int, gone: Container[int]) -> list[tuple[int, bytes, int]]:
    """Returns the rows that are left of a row when results leave it. In each of them the numbers follow each other.

    Args:
        first: the sequence number of the first result of the row.
        content: the bytes of the row.
        count: how many results it has.
        gone: the sequence numbers of those that leave.

    Returns:
        Of each row the number of the first, the bytes, and how many there are.
    """
    rows: list[tuple[int, bytes, int]] = []
    numbered = list(enumerate(split(content, count), first))
    for is_gone, run in groupby(numbered, lambda one: one[0] in gone):
        if not is_gone:
            numbers, contents = zip(*run, strict=True)
            rows.append((numbers[0], join(contents), len(contents)))
    return rows


def runs(numbers: Collection[int]) -> list[tuple[int, int]]:
    """Returns where *numbers*, of which there is at least one, follow each other: each time the first and the end.

    The end is the last one plus one. No number may be there twice.
    """
    first, last = min(numbers), max(numbers)
    if last - first + 1 == len(numbers):
        return [(first, last + 1)]  # mostly, and faster
    found: list[tuple[int, int]] = []
    start = end = first
    for number in sorted(numbers):
        if number != end:
            found.append((start, end))
            start = number
        end = number + 1
    return [*found, (start, end)]
