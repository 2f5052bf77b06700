"""Reads the rows of one aggregator from a file. Each function runs in a read of its own."""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeVar

from broadway_py.state.checksum import RowKind, checksum, damaged
from broadway_py.state.results import split
from broadway_py.state.sizes import Sizes
from broadway_py.state.store import IDENTITY_BYTES, CloseWish, Loaded, StoredIdentities, StoredResult, StoredRow
from broadway_py.storage.errors import StorageError

__all__ = ["AFTER_ALL", "FROM_START", "Table", "find", "versions"]

R = TypeVar("R", StoredRow, StoredIdentities, list[StoredResult])

#: A place before all rows, and the number of a checkpoint after all others.
FROM_START: Final = -1
AFTER_ALL: Final = 2**63 - 1
#: A part of the rows ends with the row that makes it as large as this.
_PART_BYTES: Final = 256 * 1024
#: One read for :func:`find` takes this many bytes of identities, so that a checkpoint need not wait long for it.
_FIND_BYTES: Final = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one aggregator in the open file."""

    #: The file, for error texts: ``"state file var/shop.db"``.
    what: str
    name: str
    #: The number of the aggregator in the file.
    id: int
    #: The version of the values that it stores.
    version: int

    def load(self, connection: sqlite3.Connection) -> Loaded:
        """Returns what there is besides the rows."""
        number, memory, crc = connection.execute(
            "SELECT number, memory, crc FROM aggregators WHERE id = ?", (self.id,)
        ).fetchone()
        if memory is not None:
            self.check("memory", (number,), memory, crc)
        oldest, _, _ = versions(connection, self.id)
        (entries,) = connection.execute(
            "SELECT coalesce(sum(entries), 0) FROM accumulators WHERE aggregator = ?", (self.id,)
        ).fetchone()
        (identities,) = connection.execute(
            "SELECT coalesce(sum(length(content)), 0) FROM identities WHERE aggregator = ?", (self.id,)
        ).fetchone()
        return Loaded(
            memory,
            self.version if oldest is None else oldest,
            number,
            entries,
            identities // IDENTITY_BYTES,
            self._close_wish(connection),
        )

    def _close_wish(self, connection: sqlite3.Connection) -> CloseWish | None:
        number, before, wants_all = connection.execute(
            "SELECT max(id), max(before), max(before IS NULL) FROM close_wishes WHERE aggregator = ?", (self.id,)
        ).fetchone()
        return None if number is None else CloseWish(number, None if wants_all else before)

    def sizes(self, connection: sqlite3.Connection) -> Sizes:
        """Returns how many bytes the rows have. Their contents are not read."""
        (memory,) = connection.execute(
            "SELECT coalesce(length(memory), 0) FROM aggregators WHERE id = ?", (self.id,)
        ).fetchone()
        (results,) = connection.execute(
            "SELECT coalesce(sum(length(content)), 0) FROM results WHERE aggregator = ?", (self.id,)
        ).fetchone()
        return Sizes(
            memory,
            connection.execute(
                "SELECT bucket, number, length(content) FROM accumulators WHERE aggregator = ?", (self.id,)
            ),
            connection.execute(
                "SELECT number, length(content) FROM identities WHERE aggregator = ? ORDER BY number", (self.id,)
            ),
            results,
        )

    def unwanted(self, connection: sqlite3.Connection) -> list[int]:
        """Returns the sequence numbers of the results that operators want to be removed."""
        found = connection.execute(
            "SELECT sequence FROM unwanted_results WHERE aggregator = ? ORDER BY sequence", (self.id,)
        )
        return [sequence for (sequence,) in found]

    def rows(self, connection: sqlite3.Connection, after: int) -> tuple[list[StoredRow], int]:
        """Returns the next rows after the place *after*, and the place of the last of them."""
        # The plus sign keeps SQLite from the index, which has another order.
        found = connection.execute(
            "SELECT id, bucket, number, version, entries, crc, content FROM accumulators "
            "WHERE +aggregator = ? AND id > ? ORDER BY id",
            (self.id, after),
        )

        def read(row: tuple[Any, ...]) -> StoredRow:
            _, bucket, number, version, entries, crc, content = row
            self.check("accumulators", (bucket, number, version, entries), content, crc)
            return StoredRow(bucket, number, content, version)

        return _part(found, read, after)

    def identities(self, connection: sqlite3.Connection, after: int) -> tuple[list[StoredIdentities], int]:
        """Returns the identities of the next checkpoints after the number *after*, and the number of the last one."""
        found = connection.execute(
            "SELECT number, crc, content FROM identities WHERE aggregator = ? AND number > ? ORDER BY number",
            (self.id, after),
        )

        def read(row: tuple[Any, ...]) -> StoredIdentities:
            number, crc, content = row
            self.check("identities", (number,), content, crc)
            return StoredIdentities(number, content)

        return _part(found, read, after)

    def results(self, connection: sqlite3.Connection, after: int) -> tuple[list[StoredResult], int]:
        """Returns the results of the next rows after the place *after*, and the place of the last of these rows.

        The place of a row is the sequence number of its first result.
        """
        found = connection.execute(
            "SELECT sequence, version, count, crc, content FROM results WHERE aggregator = ? AND sequence > ? "
            "ORDER BY sequence",
            (self.id, after),
        )

        def read(row: tuple[Any, ...]) -> list[StoredResult]:
            first, version, count, crc, content = row
            self.check("results", (first, version, count), content, crc)
            return [StoredResult(number, one, version) for number, one in enumerate(split(content, count), first)]

        part, after = _part(found, read, after)
        return list(chain.from_iterable(part)), after

    def check(self, kind: RowKind, place: tuple[int, ...], content: bytes, crc: int) -> None:
        """Compares a row that was read with its checksum.

        Raises:
            StorageError: they differ.
        """
        if checksum(kind, place, content) != crc:
            raise StorageError(
                f"{self.what}: {damaged(self.name, kind, place)}: stop everything that uses the file and restore it "
                "from a backup"
            )


def _part(found: sqlite3.Cursor, read: Callable[[tuple[Any, ...]], R], after: int) -> tuple[list[R], int]:
    part: list[R] = []
    size = 0
    for row in found:
        part.append(read(row))
        after = row[0]
        size += len(row[-1])
        if size >= _PART_BYTES:
            break
    return part, after


def versions(connection: sqlite3.Connection, aggregator: int) -> tuple[int | None, int | None, bool]:
    """Returns the oldest and the newest version of the values in rows and results, and whether there are rows."""
    (oldest, newest, has_rows) = connection.execute(
        "SELECT min(version), max(version), max(is_row) FROM ("
        "SELECT version, 1 AS is_row FROM accumulators WHERE aggregator = ? "
        "UNION ALL SELECT version, 0 FROM results WHERE aggregator = ?)",
        (aggregator, aggregator),
    ).fetchone()
    return oldest, newest, bool(has_rows)


def find(
    connection: sqlite3.Connection, table: Table, wanted: Collection[bytes], before: int
) -> tuple[set[bytes], int]:
    """Looks for *wanted* in the identities of the next checkpoints before the number *before*, the newest first.

    Returns:
        Those that were found, and the number of the oldest checkpoint that was searched. 0: there is none before it.
    """
    # Only the first 8 bytes of each are compared at first: as numbers, that is three times as fast.
    heads = {int.from_bytes(one[:8], sys.byteorder) for one in wanted}
    found: set[bytes] = set()
    size = 0
    for number, content in _newest_first(connection, table, before):
        if not heads.isdisjoint(array("Q", content)[::2]):
            found.update(
                {content[at : at + IDENTITY_BYTES] for at in range(0, len(content), IDENTITY_BYTES)}.intersection(
                    wanted
                )
            )
        size += len(content)
        if size >= _FIND_BYTES:
            return found, number
    return found, 0


def _newest_first(connection: sqlite3.Connection, table: Table, before: int) -> Iterator[tuple[int, bytes]]:
    for number, crc, content in connection.execute(
        "SELECT number, crc, content FROM identities WHERE aggregator = ? AND number < ? ORDER BY number DESC",
        (table.id, before),
    ):
        table.check("identities", (number,), content, crc)
        yield number, content
