"""Notes in a file with window state what operators want, also beside the process that has it open.

Each wish is one transaction, so two operators do not disturb each other. The process that has the file carries it out:
it removes unwanted results before it tries to emit them again, and closes windows with its next start.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator

from broadway_py.state.checksum import checksum, damaged
from broadway_py.state.inspection import reading, refuse_unknown
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.storage.connection import begin, commit, connect
from broadway_py.storage.errors import StorageError, explain

__all__ = ["ask_to_close", "ask_to_drop", "remove_unused"]


def ask_to_drop(path: str, dropped: Collection[tuple[str, int]]) -> None:
    """Asks for results to be removed for good. This holds for all of *dropped* or for none.

    A result that is being emitted at this moment may still be taken.

    Args:
        path: the file.
        dropped: the aggregator and the sequence number of each.

    Raises:
        StorageError: the file cannot be written, or it has one of them no more.
    """
    with _changing(path) as connection:
        for name, sequence in dropped:
            if not connection.execute(
                # The index finds the only row that can have it.
                "INSERT INTO unwanted_results (aggregator, sequence) SELECT aggregator, ? FROM ("
                "SELECT aggregator, sequence, count FROM results "
                "WHERE aggregator = (SELECT id FROM aggregators WHERE name = ?) AND sequence <= ? "
                "ORDER BY sequence DESC LIMIT 1) WHERE sequence + count > ? "
                "ON CONFLICT DO UPDATE SET sequence = excluded.sequence",
                (sequence, name, sequence, sequence),
            ).rowcount:
                raise StorageError(
                    f"{STATE_SCHEMA.what} {path}: aggregator {name!r} has no result {sequence} any more; nothing was "
                    "changed: list the results again"
                )


def ask_to_close(path: str, aggregator: str, before: int | None, check: Callable[[bytes], object]) -> None:
    """Asks for open windows to be closed at the next start. Former wishes stay. What *check* raises passes through.

    Args:
        path: the file.
        aggregator: its name.
        before: only windows that end then or earlier, in microseconds since 1970; None: all of them.
        check: called with the memory of the last checkpoint. If it raises, nothing changes.

    Raises:
        StorageError: the file cannot be written, has no such aggregator or no checkpoint of it, or the memory is
            damaged.
    """
    what = STATE_SCHEMA.what
    with _changing(path) as connection:
        refuse_unknown(connection, path, aggregator)
        place, number, crc, memory = connection.execute(
            "SELECT id, number, crc, memory FROM aggregators WHERE name = ?", (aggregator,)
        ).fetchone()
        if memory is None:
            raise StorageError(f"{what} {path}: aggregator {aggregator!r} has stored nothing; nothing was changed")
        if checksum("memory", (number,), memory) != crc:
            raise StorageError(
                f"{what} {path}: {damaged(aggregator, 'memory', (number,))}: stop everything that uses the file and "
                "restore it from a backup"
            )
        check(memory)
        connection.execute("INSERT INTO close_wishes (aggregator, before) VALUES (?, ?)", (place, before))


def remove_unused(path: str, aggregator: str) -> None:
    """Removes all that the file has of an aggregator which its pipeline does not have any more.

    Raises:
        StorageError: the file cannot be written, has no such aggregator, or the pipeline had it when it started last.
    """
    with _changing(path) as connection:
        refuse_unknown(connection, path, aggregator)
        place, is_used = connection.execute(
            "SELECT id, is_used FROM aggregators WHERE name = ?", (aggregator,)
        ).fetchone()
        if is_used:
            raise StorageError(
                f"{STATE_SCHEMA.what} {path}: the pipeline had the aggregator {aggregator!r} when it started last; "
                "nothing was changed: start the pipeline without it first"
            )
        for rows in ("accumulators", "identities", "results", "unwanted_results", "close_wishes"):
            connection.execute(f"DELETE FROM {rows} WHERE aggregator = ?", (place,))  # noqa: S608  # only names from here
        connection.execute("DELETE FROM aggregators WHERE id = ?", (place,))


@contextlib.contextmanager
def _changing(path: str) -> Iterator[sqlite3.Connection]:
    """Makes the ``with`` block one transaction. An error in it undoes everything."""
    with reading(path):
        pass  # nothing is made or changed unless the file is one of ours, of this version
    try:
        # Closing it without a commit rolls back.
        with contextlib.closing(connect(path, STATE_SCHEMA)) as connection:
            begin(connection)
            yield connection
            commit(connection)
    except sqlite3.Error as error:
        raise explain(STATE_SCHEMA.what, path, error) from error
