"""Looks at a file with window state from outside, also beside the process that has it open."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, cast

from broadway_py.errors import did_you_mean
from broadway_py.state.checksum import RowKind, checksum, damaged
from broadway_py.state.results import split
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.state.store import IDENTITY_BYTES
from broadway_py.storage.errors import StorageError, explain, refuse_hopeless
from broadway_py.storage.modes import make_private

__all__ = [
    "AggregatorSummary",
    "BucketSummary",
    "FileSummary",
    "PendingResult",
    "backup",
    "buckets",
    "reading",
    "refuse_unknown",
    "results",
    "size",
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
    "results": "SELECT name, sequence, rows.version, count, rows.crc, content "
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
    #: False: the program that opened the file last does not have this aggregator.
    is_used: bool
    #: True: an operator has asked to close windows at the next start.
    closes: bool


@dataclass(frozen=True, slots=True)
class FileSummary:
    """How much space a file takes."""

    #: The bytes of the file and of its log.
    size_bytes: int
    #: How many of them later rows will use again.
    free_bytes: int


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
    #: True: an operator wants it to be removed.
    is_unwanted: bool


def summaries(path: str) -> list[AggregatorSummary]:
    """Returns what the file has of each aggregator, the oldest first.

    Raises:
        StorageError: the file cannot be read, or is none with window state.
    """
    with reading(path) as connection:
        return [
            replace(AggregatorSummary(*row), is_used=bool(row[-2]), closes=bool(row[-1]))
            for row in connection.execute(
                "SELECT name, version, window, key_type, value_type, number, "
                "(SELECT count(DISTINCT bucket) FROM accumulators WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(entries), 0) FROM accumulators WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(length(content)), 0) FROM accumulators WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(length(content)), 0) / ? FROM identities "
                "WHERE aggregator = one.id), "
                "(SELECT coalesce(sum(count), 0) FROM results WHERE aggregator = one.id), "
                "is_used, EXISTS (SELECT 1 FROM close_wishes WHERE aggregator = one.id) "
                "FROM aggregators AS one ORDER BY id",
                (IDENTITY_BYTES,),
            )
        ]


def size(path: str) -> FileSummary:
    """Returns how much space the file takes.

    Raises:
        StorageError: the file cannot be read, or is none with window state.
    """
    with reading(path) as connection:
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    parts = (Path(path), Path(f"{os.path.realpath(path)}-wal"))
    return FileSummary(sum(part.stat().st_size for part in parts if part.exists()), free * page_bytes)


def buckets(path: str, aggregator: str) -> list[BucketSummary]:
    """Returns what the file has of each bucket of *aggregator*, in their order.

    Raises:
        StorageError: the file cannot be read, is none with window state, or has no such aggregator.
    """
    with reading(path) as connection:
        refuse_unknown(connection, path, aggregator)
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
    with reading(path) as connection:
        unwanted = set(
            connection.execute("SELECT name, sequence FROM unwanted_results JOIN aggregators ON id = aggregator")
        )
        for name, *place, crc, content in connection.execute(_ALL_ROWS["results"]):
            if checksum("results", tuple(place), content) != crc:
                raise StorageError(
                    f"{STATE_SCHEMA.what} {path}: {damaged(name, 'results', tuple(place))}: stop everything that uses "
                    "the file and restore it from a backup"
                )
            first, _, count = place
            for sequence, one in enumerate(split(content, count), first):
                yield PendingResult(name, sequence, one, (name, sequence) in unwanted)


def verify(path: str) -> list[str]:
    """Reads the whole file and compares every row with its checksum. Returns what is wrong, a sentence for each.

    Raises:
        StorageError: the file cannot be read at all, or is none with window state.
    """
    with reading(path) as connection:
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
    with reading(path) as connection:
        refuse_hopeless(what, to)
        if Path(to).exists():
            raise StorageError(f"{what} {to}: the file exists: choose another path, or remove it")
        make_private(to)
        try:
            with contextlib.closing(sqlite3.connect(to)) as copy:
                connection.backup(copy)
                # The copy is marked as a file with a log. Whoever reads it would leave an empty log beside it.
                copy.execute("PRAGMA journal_mode = DELETE")
        except BaseException as error:
            Path(to).unlink(missing_ok=True)
            if isinstance(error, sqlite3.Error):
                raise explain(what, to, error) from error
            raise


@contextlib.contextmanager
def reading(path: str) -> Iterator[sqlite3.Connection]:
    """Yields a connection that only reads, and reads everything as it is at one moment.

    Raises:
        StorageError: the file cannot be read, or is none with window state of this version.
    """
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


def refuse_unknown(connection: sqlite3.Connection, path: str, aggregator: str) -> None:
    """Refuses an *aggregator* that the file does not have.

    Raises:
        StorageError: it does not have it.
    """
    known = [name for (name,) in connection.execute("SELECT name FROM aggregators ORDER BY name")]
    if aggregator not in known:
        raise StorageError(
            f"{STATE_SCHEMA.what} {path}: it has no aggregator {aggregator!r}, but "
            f"{', '.join(known) or 'none at all'}{did_you_mean(aggregator, known)}"
        )
