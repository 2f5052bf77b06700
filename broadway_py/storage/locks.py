"""Tells which consumers are alive: each has a small locked file, which the kernel unlocks when the process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from broadway_py.storage.modes import open_beside

__all__ = ["LifeLock", "is_alive"]


class LifeLock:
    """Shows that its owner is alive, until :meth:`drop` or the end of the process, however the process ends.

    Args:
        path: the file to create and lock. The name must never have been used before.
        main: the file that it belongs to. Users who may use *main* may read this one.

    Raises:
        OSError: the file could not be created or locked.
    """

    def __init__(self, path: str, main: str) -> None:
        self._path = path
        self._handle = open_beside(path, main)
        try:
            # flock and not lockf: it belongs to this one handle, so another consumer in the same process sees it too.
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise

    def drop(self) -> None:
        """Removes the file and the lock. A second call does nothing."""
        if self._handle < 0:
            return
        # The file is removed before it is unlocked, so that every unlocked file that is found is one whose process has
        # died.
        with contextlib.suppress(OSError):
            Path(self._path).unlink()
        os.close(self._handle)
        self._handle = -1


def is_alive(path: str) -> bool:
    """Returns whether somebody holds the :class:`LifeLock` at *path*."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # not known (another user's file, for example): the heartbeat in the database decides
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
