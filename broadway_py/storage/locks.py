"""Who is alive: a small locked file per consumer, which the kernel unlocks when the process dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from broadway_py.storage.modes import open_beside

__all__ = ["LifeLock", "is_alive"]


class LifeLock:
    """Says "alive" about its owner until :meth:`drop`, or until the process is gone.

    Args:
        path: the file to make and lock; the name must never have been used before.
        main: the file that it belongs to: who may use that may look at this one.

    Raises:
        OSError: it could not be made or locked.
    """

    def __init__(self, path: str, main: str) -> None:
        self._path = path
        self._handle = open_beside(path, main)
        try:
            # flock, not lockf: it belongs to this one handle, so a neighbour in the same process is seen as well.
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise

    def drop(self) -> None:
        """No longer alive. Dropping twice does nothing."""
        if self._handle < 0:
            return
        # Removed before it is unlocked: nobody can find a file here that is neither locked nor abandoned.
        with contextlib.suppress(OSError):
            Path(self._path).unlink()
        os.close(self._handle)
        self._handle = -1


def is_alive(path: str) -> bool:
    """Whether somebody holds the :class:`LifeLock` at *path*."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # cannot be told (another user's file, say): the heartbeat in the database decides
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
