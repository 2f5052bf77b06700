"""Looks at a file before a start: its place, its disk, and what is in it. Nothing is created or changed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from broadway_py.examination import Finding, counted
from broadway_py.storage import queue_rows as rows
from broadway_py.storage.errors import StorageError, explain, is_full, refuse_hopeless, refuse_uncreatable
from broadway_py.storage.queue_schema import QUEUE_SCHEMA
from broadway_py.storage.room import free_bytes
from broadway_py.storage.schema import Schema

__all__ = ["examine_place", "examine_queue", "read_in"]

R = TypeVar("R")

#: Seconds to wait for a process that has the file locked.
_PATIENCE: Final = 5.0
#: Below so many free bytes of the disk there is a note.
_LITTLE: Final = 100_000_000


def examine_queue(path: str, queue: str) -> list[Finding]:
    """Returns what the file at *path* and the *queue* in it are like."""
    found = list(examine_place(QUEUE_SCHEMA.what, path))
    if any(one.level == "wrong" for one in found):
        return found
    named = f"queue {queue!r} in {path}"
    if not Path(path).exists():
        return [*found, Finding("right", f"{named} is not there yet; the pipeline creates it")]
    try:
        counts = read_in(path, QUEUE_SCHEMA, lambda at, version: _counts(at, queue, version))
    except StorageError as unusable:
        return [*found, Finding("wrong", str(unusable), ("path",))]
    if counts is None:
        return [*found, Finding("right", f"{named} is not there yet; the pipeline creates it in the file")]
    ready = counted(counts.ready, "message")
    said = f"{ready} ready, {counts.delayed:,} delayed, {counts.held:,} in flight, {counts.dead:,} dead"
    return [*found, Finding("right", f"{named} is there: {said}")]


def examine_place(what: str, path: str) -> Iterator[Finding]:
    """Yields what is not right about the place of a file.

    Args:
        what: what texts call it, such as "queue file".
        path: the file, which need not exist.
    """
    try:
        refuse_hopeless(what, path)
        for file in (path, f"{path}-wal", f"{path}-shm"):
            refuse_uncreatable(what, path, file)
    except StorageError as refused:
        yield Finding("wrong", str(refused), ("path",))
        return
    try:
        free = free_bytes(str(Path(path).parent))
    except OSError:
        return
    if is_full(free):
        yield Finding("away", f"{what} {path}: the disk is full, so nothing can be stored: free some space", ("path",))
    elif free < _LITTLE:
        megabytes = free / 1_000_000
        yield Finding(
            "note", f"{what} {path}: only {megabytes:.1f} MB are free on its disk: free some space", ("path",)
        )


def read_in(path: str, schema: Schema, look: Callable[[sqlite3.Connection, int], R]) -> R:
    """Returns what *look* finds in the file, which exists. It gets a connection that only reads, and the version.

    Raises:
        StorageError: the file cannot be read, or is of another program or of a newer version.
    """
    uri = Path(path).resolve().as_uri()
    try:
        # While no process has the file open, there is no log beside it. A reader would make one.
        if not Path(f"{path}-wal").exists():
            with contextlib.suppress(sqlite3.Error):  # a process may have opened it meanwhile
                return _read(f"{uri}?immutable=1", path, schema, look)
        return _read(f"{uri}?mode=ro", path, schema, look)
    except sqlite3.Error as error:
        raise explain(schema.what, path, error) from error


def _read(uri: str, path: str, schema: Schema, look: Callable[[sqlite3.Connection, int], R]) -> R:
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)) as connection:
        connection.execute("BEGIN")  # everything is read as it is at one moment
        return look(connection, schema.version_in(connection, path))


def _counts(connection: sqlite3.Connection, queue: str, version: int) -> rows.Counts | None:
    """Returns how many messages *queue* has; None: it is not in the file."""
    if version == 0 or queue not in rows.queue_names(connection):
        return None
    (number,) = connection.execute("SELECT id FROM queues WHERE name = ?", (queue,)).fetchone()
    return rows.count(connection, number)
