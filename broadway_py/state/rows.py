"""Writes the rows of window state. Each function runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from broadway_py.state.checksum import checksum
from broadway_py.state.facts import StoredFacts, complaint
from broadway_py.state.partitions import StatePartition, claim
from broadway_py.state.results import remaining, runs
from broadway_py.state.store import AggregatorFacts, Commit
from broadway_py.state.table import Table, versions
from broadway_py.storage.errors import StorageError
from broadway_py.storage.row_parts import row_parts

__all__ = ["ask_number", "enroll", "names", "store"]

#: Finds the rows of results in which a list of runs has results: of each row the number of the first result, the bytes,
#: and how many results stay. All of them are one row of the answer, because each one that is fetched costs a wait for
#: the lock, too. CROSS JOIN: the list is the outer loop, and the index finds the rows. The bytes are counted outside,
#: because otherwise SQLite would sort the contents, too.
_TOUCHED: Final = (
    "SELECT json_group_array(json_array(sequence, length(content), stays)), "
    "EXISTS (SELECT 1 FROM unwanted_results WHERE aggregator = ?) FROM ("
    "SELECT id AS touched, count - sum(min(until, sequence + count) - max(since, sequence)) AS stays FROM ("
    "SELECT json_extract(value, '$[0]') AS since, json_extract(value, '$[1]') AS until FROM json_each(?)) "
    "CROSS JOIN results WHERE aggregator = ? AND sequence < until AND sequence + count > since "
    "AND sequence >= coalesce((SELECT max(sequence) FROM results WHERE aggregator = ? AND sequence <= since), since) "
    "GROUP BY id) CROSS JOIN results ON id = touched"
)


def names(connection: sqlite3.Connection) -> dict[str, int]:
    """Returns the aggregators of the file, with their numbers, the oldest first."""
    return {name: number for number, name in connection.execute("SELECT id, name FROM aggregators ORDER BY id")}


def enroll(
    connection: sqlite3.Connection,
    what: str,
    aggregators: Mapping[str, AggregatorFacts],
    partition: StatePartition | None,
) -> tuple[dict[str, Table], list[str]]:
    """Compares *partition* and *aggregators* with the file, and notes what they are now. New ones get a number.

    Returns:
        The aggregators, and the names of others that the file has rows or results of.

    Raises:
        StorageError: one of them cannot use what the file has. Nothing must be committed.
    """
    claim(connection, what, partition)
    former = {}
    for row in connection.execute("SELECT name, id, version, window, key_type, value_type FROM aggregators"):
        former[row[0]] = (row[1], AggregatorFacts(*row[2:]))
    for name, facts in aggregators.items():
        if name in former:
            number, noted = former[name]
            problem = complaint(name, StoredFacts(noted, *versions(connection, number)), facts)
            if problem is not None:
                raise StorageError(f"{what}: {problem}")
    connection.executemany(
        "INSERT INTO aggregators (name, version, window, key_type, value_type) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET version = excluded.version, window = excluded.window, "
        "key_type = excluded.key_type, value_type = excluded.value_type",
        [(name, facts.version, facts.window, facts.key_type, facts.value_type) for name, facts in aggregators.items()],
    )
    connection.execute(
        "UPDATE aggregators SET is_used = name IN (SELECT value FROM json_each(?))", (json.dumps(list(aggregators)),)
    )
    numbers = names(connection)
    tables = {name: Table(what, name, numbers[name], facts.version) for name, facts in aggregators.items()}
    left = [
        name
        for name, (number, _) in former.items()
        if name not in aggregators and versions(connection, number)[0] is not None
    ]
    return tables, left


def store(connection: sqlite3.Connection, table: Table, commit: Commit) -> int:
    """Stores a checkpoint.

    Returns:
        How many bytes more the rows of results have than before.

    Raises:
        StorageError: it is not the one that follows the last one in the file, or results in the file are damaged.
    """
    number = commit.number
    written = connection.execute(
        "UPDATE aggregators SET number = ?, memory = ?, crc = ? WHERE id = ? AND number = ?",
        (number, commit.memory, checksum("memory", (number,), commit.memory), table.id, number - 1),
    ).rowcount
    if not written:
        (last,) = connection.execute("SELECT number FROM aggregators WHERE id = ?", (table.id,)).fetchone()
        raise StorageError(
            f"{table.what}: checkpoint {number} of aggregator {table.name!r} does not follow the last one in the file, "
            f"which is {last}; nothing of this call was stored: start the pipeline again"
        )
    version = table.version
    _insert(
        connection,
        "accumulators (aggregator, version, number, bucket, entries, crc, content)",
        [
            (
                table.id,
                version,
                number,
                bucket,
                entries,
                checksum("accumulators", (bucket, number, version, entries), content),
                content,
            )
            for bucket, content, entries in commit.appended
        ],
    )
    growth = _insert_results(
        connection, table.id, [(first, version, count, content) for first, content, count in commit.results]
    )
    if commit.identities:
        connection.execute(
            "INSERT INTO identities (aggregator, number, crc, content) VALUES (?, ?, ?, ?)",
            (table.id, number, checksum("identities", (number,), commit.identities), commit.identities),
        )
    _remove(connection, table.id, commit)
    return growth + _remove_results(connection, table, commit.emitted)


def _insert_results(
    connection: sqlite3.Connection, aggregator: int, rows: Sequence[tuple[int, int, int, bytes]]
) -> int:
    """Inserts *rows* of results: the number of the first, the version, how many, and the bytes. Returns all bytes."""
    _insert(
        connection,
        "results (aggregator, sequence, version, count, crc, content)",
        [(aggregator, *row[:-1], checksum("results", row[:-1], row[-1]), row[-1]) for row in rows],
    )
    return sum(len(row[-1]) for row in rows)


def _insert(connection: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    for part in row_parts(rows):
        one = f"({', '.join('?' * len(part[0]))})"
        connection.execute(
            f"INSERT INTO {into} VALUES {', '.join([one] * len(part))}",  # noqa: S608  # only question marks
            list(chain.from_iterable(part)),
        )


def _remove(connection: sqlite3.Connection, aggregator: int, commit: Commit) -> None:
    if commit.dropped:
        # CROSS JOIN: the list is the outer loop, and the index finds the rows.
        connection.execute(
            "DELETE FROM accumulators WHERE id IN ("
            "SELECT rows.id FROM json_each(?) AS dropped CROSS JOIN accumulators AS rows "
            "WHERE rows.aggregator = ? AND rows.bucket = json_extract(dropped.value, '$[0]') "
            "AND rows.number < json_extract(dropped.value, '$[1]'))",
            (json.dumps(list(commit.dropped)), aggregator),
        )
    if commit.closed:
        connection.execute("DELETE FROM close_wishes WHERE aggregator = ? AND id <= ?", (aggregator, commit.closed))
    if commit.forget_before:
        connection.execute(
            "DELETE FROM identities WHERE aggregator = ? AND number < ?", (aggregator, commit.forget_before)
        )


def _remove_results(connection: sqlite3.Connection, table: Table, emitted: Sequence[int]) -> int:
    """Removes results. A row of which some stay is written anew. Returns by how many bytes the rows grow, below 0."""
    if not emitted:
        return 0
    gone = set(emitted)
    found, has_unwanted = connection.execute(
        _TOUCHED, (table.id, json.dumps(runs(gone)), table.id, table.id)
    ).fetchone()
    growth = 0
    touched: list[int] = []
    in_part: list[int] = []
    for first, size, stays in json.loads(found):
        touched.append(first)
        growth -= size
        if stays:
            in_part.append(first)
    left = _left_of(connection, table, in_part, gone) if in_part else []
    if touched:
        connection.execute(
            "DELETE FROM results WHERE aggregator = ? AND sequence IN (SELECT value FROM json_each(?))",
            (table.id, json.dumps(touched)),
        )
    if has_unwanted:
        connection.execute(
            "DELETE FROM unwanted_results WHERE aggregator = ? AND sequence IN (SELECT value FROM json_each(?))",
            (table.id, json.dumps(list(gone))),
        )
    return growth + _insert_results(connection, table.id, left)


def _left_of(
    connection: sqlite3.Connection, table: Table, rows: Sequence[int], gone: Container[int]
) -> list[tuple[int, int, int, bytes]]:
    """Returns what is left of these *rows*, without the results *gone*, as other rows."""
    left: list[tuple[int, int, int, bytes]] = []
    for first, version, count, crc, content in connection.execute(
        "SELECT sequence, version, count, crc, content FROM results "
        "WHERE aggregator = ? AND sequence IN (SELECT value FROM json_each(?))",
        (table.id, json.dumps(rows)),
    ):
        # The rows that are left get checksums of their own, which would hide the damage.
        table.check("results", (first, version, count), content, crc)
        left += [(start, version, few, part) for start, part, few in remaining(first, content, count, gone)]
    return left


def ask_number(connection: sqlite3.Connection, table: Table) -> int:
    """Returns the number of the last checkpoint, inside of a transaction that is committed.

    The write is what makes the answer final: it takes the place of a failed transaction in SQLite's log, from where a
    crash would bring that one back. A write that changes nothing would not be written.
    """
    connection.execute("UPDATE aggregators SET asked = asked + 1 WHERE id = ?", (table.id,))
    (number,) = connection.execute("SELECT number FROM aggregators WHERE id = ?", (table.id,)).fetchone()
    return int(number)
