"""Looks at a file with window state from outside, also beside the process that has it open.

Only :func:`drop_results` and :func:`rewrite_memory` change something, and only if no process has the file.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, cast

from broadway_py.errors import did_you_mean
from broadway_py.state.checksum import RowKind, checksum, damaged
from broadway_py.state.lock import StateLock
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.state.store import IDENTITY_BYTES
from broadway_py.storage.connection import begin, commit, connect
from broadway_py.storage.errors import StorageError, explain, refuse_hopeless
from broadway_py.storage.modes import make_private

__all__ = [
    "AggregatorSummary",
    "BucketSummary",
    "PendingResult",
    "backup",
    "buckets",
    "drop_results",
    "results",
    "rewrite_memory",
    "summaries",
    "verify",
]

#: Seconds to wait for a process that has the file locked.
_PATIENCE: Final = 10.0
#: For each kind of row: the query for the name, the place, the checksum and the content of all rows.
_ALL_ROWS: Final = {
    "memory": "SELECT name, number, crc, memory FROM aggregators WHERE memory IS NOT NULL ORDER BY id",
    "accumulators": "SELECT name, bucket, rows.number, rows.version, entries, rows.crc, content "
    "FROM accumulators AS rows JOIN aggregators ON aggregators.id = aggregator ORDER BY rows.id",
    "identities": "SELECT name, rows.number, rows.crc, content "
    "FROM identities AS rows JOIN aggregators ON aggregators.id = aggregator ORDER BY rows.id",
    "result": "SELECT name, sequence, rows.version, rows.crc, content "
    "FROM results AS rows JOIN aggregators ON aggregators.id = aggregator ORDER BY aggregator, sequence",
}


@dataclass(frozen=True, slots=True)
class AggregatorSummary:
    """What a file has of one aggregator."""

    name: str
    version: int
    #: The kind and size of its windows, such as ``"fixed windows of 60 s"``.
    window: str
    key_type: str
    value_type: str
    #: The number of its last checkpoint.
    number: int
    #: In how many buckets there are rows: for windows that all keys share, this is how many are open.
    buckets: int
    #: How many accumulators are in the rows. One that changed several times counts several times.
    entries: int
    #: The bytes of the rows.
    row_bytes: int
    identities: int
    #: How many results ``emit`` has not taken yet.
    results: int


@dataclass(frozen=True, slots=True)
class BucketSummary:
    """What a file has of one bucket of an aggregator."""

    #: The start of a window, in microseconds since 1970, or a number from 0 to 63.
    bucket: int
    rows: int
    #: How many accumulators are in the rows. One that changed several times counts several times.
    entries: int
    #: The bytes of the rows.
    row_bytes: int
    #: The number of the last checkpoint that stored something in it.
    number: int


class PendingResult(NamedTuple):
    """A result that ``emit`` has not taken yet."""

    aggregator: str
    #: Its place among all results of the aggregator, from 1.
    sequence: int
    content: bytes


def summaries(path: str) -> list[AggregatorSummary]:
    """Returns what the file has of each aggregator, the oldest first.

    Raises:
        StorageError: the file cannot be read, or is none with window state.
    """
    with _reading(path) as connection:
        return [
            AggregatorSummary(*row)
            for row in connection.execute(
                "SELECT name, version, window, key_type, value_type, number, "
                "(SELECT count(DISTINCT bucket) FROM accumulators WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(entries), 0) FROM accumulators WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(length(content)), 0) FROM accumulators WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(length(content)), 0) / ? FROM identities "
                "WHERE aggregator = one.id), "
                "(SELECT count(*) FROM results WHERE aggregator = one.id) "
                "FROM aggregators AS one ORDER BY id",
                (IDENTITY_BYTES,),
            )
        ]


def buckets(path: str, aggregator: str) -> list[BucketSummary]:
    """Returns what the file has of each bucket of *aggregator*, in their order.

    Raises:
        StorageError: the file cannot be read, is none with window state, or has no such aggregator.
    """
    with _reading(path) as connection:
        _refuse_unknown(connection, path, aggregator)
        return [
            BucketSummary(*row)
            for row in connection.execute(
                "SELECT bucket, count(*), sum(entries), sum(length(content)), max(accumulators.number) "
                "FROM accumulators JOIN aggregators ON aggregators.id = aggregator WHERE name = ? "
                "GROUP BY bucket ORDER BY bucket",
                (aggregator,),
            )
        ]


def results(path: str) -> Iterator[PendingResult]:
    """Yields the results that ``emit`` has not taken yet: aggregator by aggregator, the oldest first.

    Raises:
        StorageError: the file cannot be read, is none with window state, or has a damaged result.
    """
    with _reading(path) as connection:
        for name, sequence, version, crc, content in connection.execute(_ALL_ROWS["result"]):
            if checksum("result", (sequence, version), content) != crc:
                raise StorageError(
                    f"{STATE_SCHEMA.what} {path}: {damaged(name, 'result', (sequence, version))}: stop everything that "
                    "uses the file and restore it from a backup"
                )
            yield PendingResult(name, sequence, content)


def drop_results(path: str, dropped: Collection[tuple[str, int]]) -> None:
    """Removes results for good: ``emit`` never gets them. All of *dropped* are removed, or none.

    Args:
        path: the file.
        dropped: the aggregator and the sequence number of each.

    Raises:
        StorageError: a process has the file, the file cannot be written, or it has one of them no more.
    """
    with _changing(path) as connection:
        for name, sequence in dropped:
            if not connection.execute(
                "DELETE FROM results WHERE sequence = ? AND aggregator = (SELECT id FROM aggregators WHERE name = ?)",
                (sequence, name),
            ).rowcount:
                raise StorageError(
                    f"{STATE_SCHEMA.what} {path}: aggregator {name!r} has no result {sequence} any more; nothing was "
                    "changed: list the results again"
                )


def rewrite_memory(path: str, aggregator: str, change: Callable[[bytes], bytes]) -> None:
    """Replaces what *aggregator* needs at its start besides its windows. What *change* raises passes through.

    Args:
        path: the file.
        aggregator: its name.
        change: returns the new memory, given that of the last checkpoint. If it raises, nothing changes.

    Raises:
        StorageError: a process has the file, the file cannot be written, has no such aggregator or no checkpoint of it,
            or the memory is damaged.
    """
    what = STATE_SCHEMA.what
    with _changing(path) as connection:
        _refuse_unknown(connection, path, aggregator)
        number, crc, memory = connection.execute(
            "SELECT number, crc, memory FROM aggregators WHERE name = ?", (aggregator,)
        ).fetchone()
        if memory is None:
            raise StorageError(f"{what} {path}: aggregator {aggregator!r} has stored nothing; nothing was changed")
        if checksum("memory", (number,), memory) != crc:
            raise StorageError(
                f"{what} {path}: {damaged(aggregator, 'memory', (number,))}: stop everything that uses the file and "
                "restore it from a backup"
            )
        changed = change(memory)
        connection.execute(
            "UPDATE aggregators SET memory = ?, crc = ? WHERE name = ?",
            (changed, checksum("memory", (number,), changed), aggregator),
        )


def verify(path: str) -> list[str]:
    """Reads the whole file and compares every row with its checksum. Returns what is wrong, a sentence for each.

    Raises:
        StorageError: the file cannot be read at all, or is none with window state.
    """
    with _reading(path) as connection:
        problems = [
            f"the file: {sentence}" for (sentence,) in connection.execute("PRAGMA integrity_check") if sentence != "ok"
        ]
        for kind, query in _ALL_ROWS.items():
            for name, *place, crc, content in connection.execute(query):
                row_kind = cast("RowKind", kind)
                if checksum(row_kind, tuple(place), content) != crc:
                    problems.append(damaged(name, row_kind, tuple(place)))
    return problems


def backup(path: str, to: str) -> None:
    """Copies the file as it is at one moment to the new file *to*, also while a process writes to it.

    Raises:
        StorageError: the file cannot be read, or *to* exists or cannot be written. Then there is no file *to* besides
            one that was there before.
    """
    what = "backup"
    with _reading(path) as connection:
        refuse_hopeless(what, to)
        if Path(to).exists():
            raise StorageError(f"{what} {to}: the file exists: choose another path, or remove it")
        make_private(to)
        try:
            with contextlib.closing(sqlite3.connect(to)) as copy:
                connection.backup(copy)
        except BaseException as error:
            Path(to).unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise explain(what, to, error) from error
            raise


@contextlib.contextmanager
def _reading(path: str) -> Iterator[sqlite3.Connection]:
    what = STATE_SCHEMA.what
    if not Path(path).exists():
        raise StorageError(f"{what} {path}: there is no such file: give the path in `state` of the pipeline")
    refuse_hopeless(what, path)
    try:
        uri = f"{Path(path).resolve().as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)) as connection:
            connection.execute("BEGIN")  # everything is read as it is at one moment
            version = STATE_SCHEMA.version_in(connection, path)
            if version < STATE_SCHEMA.version:
                raise StorageError(
                    f"{what} {path}: the file has version {version}, and this program reads version "
                    f"{STATE_SCHEMA.version}: start the pipeline once with this program"
                )
            yield connection
    except sqlite3.Error as error:
        raise explain(what, path, error) from error


@contextlib.contextmanager
def _changing(path: str) -> Iterator[sqlite3.Connection]:
    """Locks the file, and makes the ``with`` block one transaction. An error in it undoes everything."""
    what = STATE_SCHEMA.what
    with _reading(path):
        pass  # nothing is made or changed unless the file is one of ours, of this version
    lock = StateLock.take_now(what, path)
    try:
        # Closing it without a commit rolls back.
        with contextlib.closing(connect(path, STATE_SCHEMA)) as connection:
            begin(connection)
            yield connection
            commit(connection)
    except sqlite3.Error as error:
        raise explain(what, path, error) from error
    finally:
        lock.drop()


def _refuse_unknown(connection: sqlite3.Connection, path: str, aggregator: str) -> None:
    known = [name for (name,) in connection.execute("SELECT name FROM aggregators ORDER BY name")]
    if aggregator not in known:
        raise StorageError(
            f"{STATE_SCHEMA.what} {path}: it has no aggregator {aggregator!r}, but "
            f"{', '.join(known) or 'none at all'}{did_you_mean(aggregator, known)}"
        )
