"""How large the write-ahead log may grow on a disk that has little room left."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

__all__ = ["LogLimit", "free_bytes", "pages_for"]

#: Pages in the write-ahead log before they are moved into the file: 8 MB.
_MOST_PAGES: Final = 2_000
#: The fewest; each move costs two waits for the disk.
_LEAST_PAGES: Final = 16
_PAGE_BYTES: Final = 4_096
#: The log may take one part in so many of the room that is left: the file itself must grow by what is in the log.
_SHARE: Final = 8


def pages_for(free_bytes: int) -> int:
    """Pages that the log may have when the disk has so much room: a power of two where that is little."""
    pages = free_bytes // (_SHARE * _PAGE_BYTES)
    if pages >= _MOST_PAGES:
        return _MOST_PAGES
    # In few steps: each change is told to SQLite.
    return max(_LEAST_PAGES, 1 << pages.bit_length() >> 1)


class LogLimit:
    """Has the log of one connection moved into the file sooner when the disk gets full.

    Else the log takes all the room there is before SQLite moves it, and the file, which must grow for that, has none:
    the queue stands still on a disk on which there is nothing but its own log.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._directory = str(Path(path).parent)
        self._pages = 0

    def adapt(self, connection: sqlite3.Connection) -> None:
        """Tell SQLite the limit that fits the room there is now; costs some microseconds when it is as before."""
        with contextlib.suppress(OSError, sqlite3.Error):  # SQLite itself will say what is wrong with the disk
            pages = pages_for(free_bytes(self._directory))
            if pages != self._pages:
                connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")
                self._pages = pages


def free_bytes(directory: str) -> int:
    """Bytes that this user can still store on the disk of *directory*; OSError when that cannot be found out."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize
