"""Sets who may read the files that we create. They hold messages, so only their owner may, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

__all__ = ["make_private", "open_beside"]

_OWNER: int = stat.S_IRUSR | stat.S_IWUSR
_ANYBODY: int = 0o666


def make_private(path: str) -> None:
    """Creates *path* as an empty file of mode 0600 if there is none. An existing file keeps its mode.

    SQLite gives its log the mode of the file. Errors are ignored here, because SQLite will report them.
    """
    with contextlib.suppress(OSError):
        os.close(_made(path, _OWNER))


def open_beside(path: str, main: str) -> int:
    """Opens *path* to read and write. A missing file is created for the users who may use the file *main*.

    Returns:
        A descriptor, which started programs do not inherit.

    Raises:
        OSError: the file cannot be created or opened.
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
