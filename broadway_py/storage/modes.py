"""Who may read the files that we make: messages are in them, so their owner alone, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["make_private", "open_beside"]

_OWNER: int = stat.S_IRUSR | stat.S_IWUSR
_ANYBODY: int = 0o666


def make_private(path: str) -> None:
    """Make *path* an empty file of mode 0600, if there is none. One that is there keeps its mode.

    SQLite gives its log the mode of the file. Why a file cannot be made is left for SQLite to find.
    """
    with contextlib.suppress(OSError):
        os.close(_made(path, _OWNER))


def open_beside(path: str, main: str) -> int:
    """Open *path* to read and write; made if it is missing, for those who may use the file *main*.

    Returns:
        A descriptor, which programs that are started do not inherit.

    Raises:
        OSError: it cannot be made or opened.
    """
    try:
        mode = Path(main).stat().st_mode & _ANYBODY
    except FileNotFoundError:
        mode = _OWNER
    try:
        return _made(path, mode)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)


def _made(path: str, mode: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER)
    try:
        os.fchmod(handle, mode)  # a mode given to open() would be cut by the umask
    except BaseException:
        os.close(handle)
        raise
    return handle
