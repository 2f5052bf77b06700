"""Turns the errors of a file on disk into one sentence: where, what happened, what to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from broadway_py.errors import BroadwayError
from broadway_py.storage.places import network_file_system, refusal_of_creating
from broadway_py.storage.room import free_bytes

__all__ = [
    "StorageError",
    "explain",
    "is_for_want_of_room",
    "is_full",
    "refuse_hopeless",
    "refuse_uncreatable",
    "told",
]

# The low byte is the primary result code. The rest is more detail than anybody can act on.
_PRIMARY: Final = 0xFF
#: The file of shared memory beside the queue's file grows by this many bytes.
_LEAST_ROOM: Final = 32 * 1024

_SENTENCES: Final = {
    sqlite3.SQLITE_FULL: "the disk is full; nothing of this call was stored: free some space and try again",
    sqlite3.SQLITE_IOERR: "the disk reports an error; nothing of this call was stored: look at the disk and try again",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop everything that uses it and restore it from a backup",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database: choose another path",
    sqlite3.SQLITE_READONLY: (
        "the file cannot be written: give this user write permission to the file and its directory, "
        "or choose another path"
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened or created: give this user write permission to the file and its directory, "
        "or choose another path"
    ),
    sqlite3.SQLITE_BUSY: (
        "another program has kept the file locked for too long; nothing of this call was stored: "
        "end the program that holds it (for example a database tool with an open transaction) and try again"
    ),
}


class StorageError(BroadwayError):
    """A file that keeps data cannot be used or refuses. Nothing of the call that got this error was stored.

    Args:
        text: where, what happened, and what to do.
        is_unknown: the disk failed while the transaction was ended. Nobody sees anything of it in the file. But if the
            process dies before the next transaction, SQLite may find all of it in its log, and keep it.
    """

    def __init__(self, text: str, *, is_unknown: bool = False) -> None:
        super().__init__(text)
        self.is_unknown = is_unknown


def explain(what: str, path: str, error: sqlite3.Error) -> StorageError:
    """Returns SQLite's *error* about *path* as one sentence. *what* is "queue file", for example."""
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    if code == sqlite3.SQLITE_IOERR and not _has_room(path):
        code = sqlite3.SQLITE_FULL  # SQLite gives that code for a log that could not grow
    return StorageError(f"{what} {path}: {_SENTENCES.get(code, f'SQLite says: {error}')}")


def _has_room(path: str) -> bool:
    try:
        return not is_full(free_bytes(str(Path(path).parent)))
    except OSError:
        return True


def is_full(free: int) -> bool:
    """Returns whether a disk with so many *free* bytes is too full to store anything."""
    return free < _LEAST_ROOM


def told(what: str, path: str, error: sqlite3.Error) -> StorageError:
    """Does the same as :func:`explain`, and sets *error* as the cause."""
    said = explain(what, path, error)
    said.__cause__ = error
    return said


def is_for_want_of_room(error: BaseException | None) -> bool:
    """Returns whether a full disk caused *error*."""
    cause = None if error is None else error.__cause__
    return isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & _PRIMARY == sqlite3.SQLITE_FULL


def refuse_hopeless(what: str, path: str) -> None:
    """Refuses a path for which SQLite would only say "unable to open database file".

    Raises:
        StorageError: the directory is missing or on a network file system, or *path* is a directory or cannot be
            written.
    """
    place = Path(path)
    parent = place.parent
    if not parent.is_dir():
        problem = "is not a directory" if parent.exists() else "does not exist"
        raise StorageError(f"{what} {path}: its directory {parent} {problem}: create it, or choose another path")
    if (kind := network_file_system(str(parent))) is not None:
        raise StorageError(
            f"{what} {path}: it would be on a network file system ({kind}), where one process cannot tell what another "
            "does and the file would be damaged: choose a path on a disk of this machine"
        )
    try:
        is_directory, exists = place.is_dir(), place.exists()
    except PermissionError as error:  # this user may not look into its directory
        raise StorageError(f"{what} {path}: {_SENTENCES[sqlite3.SQLITE_CANTOPEN]}") from error
    except OSError as error:  # its name is too long
        raise StorageError(
            f"{what} {path}: there can be no such file ({error.strerror}): choose another path"
        ) from error
    if is_directory:
        raise StorageError(f"{what} {path}: this is a directory: choose the path of a file")
    if exists and not os.access(place, os.W_OK):
        raise StorageError(f"{what} {path}: {_SENTENCES[sqlite3.SQLITE_READONLY]}")


def refuse_uncreatable(what: str, path: str, file: str) -> None:
    """Refuses *path* if SQLite could not write *file*, or create it if it is missing. Nothing is created.

    Args:
        what: what the error text calls *path*: "queue file", for example.
        path: the file.
        file: the same, or one of those that SQLite makes beside it.

    Raises:
        StorageError: this user may not, or the disk is read-only.
    """
    if refusal_of_creating(file) is not None:
        raise StorageError(f"{what} {path}: {_SENTENCES[sqlite3.SQLITE_CANTOPEN]}")
