"""Writes results as rows of the state file, so many in one row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from broadway_py._core.aggregation.outcome import Results
from broadway_py._core.aggregation.pending import DueResult
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.state.results import join, parted

__all__ = ["rows_of"]

#: A row ends with the results of a window that make it as long as this. Of one window it has no more.
_AT_ONCE: Final = 200
#: A row with more bytes becomes several. Whenever a result leaves a row, the others are written anew, and SQLite takes
#: no row of more than 1 GB.
_MOST_BYTES: Final = 256 * 1024


async def rows_of(
    records: Records, results: Sequence[Results], *, is_stored: bool
) -> tuple[list[DueResult], list[tuple[int, bytes, int]]]:
    """Returns *results* as they are handed out, and the rows for :attr:`~broadway_py.state.store.Commit.results`.

    There can be many. So others can run after each row, and no value of *results* may change meanwhile.

    Args:
        records: writes each of them.
        results: all results of one checkpoint. Their numbers follow each other.
        is_stored: False: there is no file, and nobody may use the rows.

    Raises:
        CodecError: a value cannot be stored.
    """
    due: list[DueResult] = []
    rows: list[tuple[int, bytes, int]] = []
    for pieces in _rows(results):
        start = len(due)
        contents: list[bytes] = []
        for one, first, until in pieces:
            made, content = records.due(one, first, until, is_stored=is_stored)
            due += made
            contents.append(content)
        rows += parted(due[start].sequence, join(contents), len(due) - start, _MOST_BYTES)
        if len(due) - start >= _AT_ONCE:
            await asyncio.sleep(0)
    return due, rows


def _rows(results: Sequence[Results]) -> Iterator[list[tuple[Results, int, int]]]:
    """Yields what belongs in each row: some of the results of a window, from one place to another."""
    pieces: list[tuple[Results, int, int]] = []
    size = 0
    for one in results:
        for first in range(0, len(one.entries), _AT_ONCE):
            until = min(first + _AT_ONCE, len(one.entries))
            pieces.append((one, first, until))
            size += until - first
            if size >= _AT_ONCE:
                yield pieces
                pieces, size = [], 0
    if pieces:
        yield pieces
