"""Divides rows into parts, each of which one statement inserts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

__all__ = ["row_parts"]

R = TypeVar("R")

#: The lengths of larger parts. Common lengths of lists are among them. SQLite takes at most 32,766 values in a
#: statement.
_LENGTHS: Final = (500, 200, 100, 50, 20)


def row_parts(rows: Sequence[R]) -> Iterator[Sequence[R]]:
    """Yields *rows* in few parts, with few different lengths.

    Few parts: each statement releases the interpreter's lock, and beside a busy event loop it takes up to 5 ms to get
    it back. Few lengths: each length is another statement. Python keeps the last 128 statements of a connection. Those
    of 500 rows have 300 kB each, and take a millisecond to prepare.
    """
    start = 0
    while (left := len(rows) - start) > 0:
        length = next((length for length in _LENGTHS if length <= left), left)
        yield rows[start : start + length]
        start += length
