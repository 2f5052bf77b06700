"""Limits the write-ahead log on a disk with little free space."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

__all__ = ["LogLimit", "free_bytes", "pages_for"]

#: Pages in the write-ahead log before they are moved into the file: 8 MB.
_MOST_PAGES: Final = 2_000
#: The smallest limit. Each move costs two waits for the disk.
_LEAST_PAGES: Final = 16
_PAGE_BYTES: Final = 4_096
#: The log may take 1/8 of the free space: the file itself must grow by what is in the log.
_SHARE: Final = 8


def pages_for(free_bytes: int) -> int:
    """Returns how many pages the log may have at this free space. Below the maximum it is a power of two."""
    pages = free_bytes // (_SHARE * _PAGE_BYTES)
    if pages >= _MOST_PAGES:
        return _MOST_PAGES
    # A power of two changes seldom, and SQLite must be told each change.
    return max(_LEAST_PAGES, 1 << pages.bit_length() >> 1)


class LogLimit:
    """Makes SQLite move the log of one connection into the file sooner when the disk gets full.

    Without it the log takes all free space before SQLite moves it. Then the file, which must grow for the move, has no
    space, and the queue stops on a disk that is full of its own log.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._directory = str(Path(path).parent)
        self._pages = 0

    def adapt(self, connection: sqlite3.Connection) -> None:
        """Gives SQLite the limit for the current free space. If nothing has changed this takes some microseconds."""
        with contextlib.suppress(OSError, sqlite3.Error):  # SQLite itself will say what is wrong with the disk
            pages = pages_for(free_bytes(self._directory))
            if pages != self._pages:
                connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                self._pages = pages


def free_bytes(directory: str) -> int:
    """Returns the bytes that this user can still store on the disk of *directory*.

    Raises:
        OSError: this cannot be found out.
    """
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize
