"""Opens a file, and begins and ends its transactions."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from broadway_py.storage.errors import explain, refuse_hopeless
from broadway_py.storage.modes import make_private
from broadway_py.storage.schema import Schema

__all__ = ["begin", "commit", "connect", "empty_log", "is_writable_now", "patiently", "undo"]

R = TypeVar("R")

#: Seconds that a transaction waits for those of other processes before its callers get an error.
PATIENCE: Final = 10.0
#: A log that has grown is cut back to this many bytes.
_LOG_BYTES: Final = 32 * 1024 * 1024
#: Milliseconds that emptying the log waits for other processes that read in it.
_READERS_MS: Final = 200


def connect(path: str, schema: Schema) -> sqlite3.Connection:
    """Opens *path* with the tables of *schema*, for use in the calling thread alone. A missing file is created.

    What is committed survives a loss of power (``synchronous=FULL``).

    Raises:
        StorageError: the file cannot be opened. The text says why and what to do.
    """
    refuse_hopeless(schema.what, path)
    connection: sqlite3.Connection | None = None
    try:
        make_private(path)
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        # The kind of the file is checked first, so that another program's database keeps its journal mode.
        begin(connection)
        schema.prepare(connection, path)
        commit(connection)
        patiently(partial(connection.execute, "PRAGMA journal_mode = WAL"))
        connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        # From here on patiently() waits, and not SQLite.
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise explain(schema.what, path, error) from error
        raise
    return connection


def begin(connection: sqlite3.Connection) -> None:
    """Begins a write transaction. Waits for the transactions of other processes."""
    patiently(lambda: connection.execute("BEGIN IMMEDIATE"))


def patiently(work: Callable[[], R]) -> R:
    """Runs *work*, and runs it again while other processes have the file locked.

    SQLite's own waiting sleeps up to 100 ms at a time, and a busy neighbour always gets in between: one process was
    seen to do a thousand transactions for each one of its neighbour. Short, random sleeps give everybody a turn. For a
    change of the journal mode SQLite does not wait at all.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(random.uniform(0.0001, 0.001))


def commit(connection: sqlite3.Connection) -> None:
    """Ends the transaction. Returns once it is on the disk."""
    connection.execute("COMMIT")


def empty_log(connection: sqlite3.Connection) -> bool:
    """Moves the write-ahead log into the file and frees its space on the disk. Returns False if that was not possible.

    SQLite moves the log by itself, but keeps its space for later writes. Call this outside of a transaction only.
    """
    try:
        connection.execute(f"PRAGMA busy_timeout = {_READERS_MS}")
        try:
            (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            connection.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error:
        return False  # there is no space to move it to, or the disk is broken
    return not is_busy


def is_writable_now(connection: sqlite3.Connection) -> bool:
    """Returns whether no other connection has begun to write. Call this outside of a transaction only."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.Error:
        return False
    undo(connection)
    return True


def undo(connection: sqlite3.Connection) -> None:
    """Rolls the transaction back if there still is one. A full disk may have rolled it back already."""
    if connection.in_transaction:
        # If even this fails, the connection cannot be used any more, and the next BEGIN says why.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
