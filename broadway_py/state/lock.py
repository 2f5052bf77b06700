"""Lets one store at a time use a file. The others wait, and the next one gets it when the first one ends or dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, Self

from broadway_py.forks import part_with, when_forked
from broadway_py.storage.errors import StorageError
from broadway_py.storage.modes import open_beside
from broadway_py.storage.places import refusal_of_creating

__all__ = ["StateLock", "holder", "refuse_unlockable"]

_SUFFIX: Final = "-lock"


class StateLock:
    """The lock of one file, from :meth:`take` to :meth:`drop` or to the end of the process."""

    def __init__(self, path: str, handle: int) -> None:
        self._path = path
        self._handle = handle
        # A forked child would keep the lock after the end of this process.
        self._forget = when_forked(partial(part_with, [handle]))

    @classmethod
    async def take(cls, what: str, path: str, waiting: Callable[[str], object]) -> Self:
        """Takes the lock of the file *path*. While another store has it, in any process, this waits without a limit.

        Args:
            what: what error texts call the file: "state file", for example.
            path: the file. ``-lock`` is created beside it, and removed by :meth:`drop`.
            waiting: called once with a sentence that says who has the lock, before the wait.

        Raises:
            StorageError: the lock file cannot be created.
        """
        lock = _beside(path)
        try:
            handle = _locked(lock, path, wait=False)
            if handle is None:
                waiting(f"{what} {path}: {_holder(lock)} has it; standing by until it is free")
                handle = await _Wait(lock, path).over()
        except OSError as error:
            raise _unlockable(what, path, lock, error) from error
        return cls._taken(lock, handle)

    @classmethod
    def _taken(cls, lock: str, handle: int) -> Self:
        # Only those who wait read it. On a full disk they do not learn who has the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        return cls(lock, handle)

    def drop(self) -> None:
        """Gives the lock back. A second call does nothing."""
        if self._handle < 0:
            return
        self._forget()
        # First removed, then unlocked: who waits for the removed file sees that, and takes the lock of a new one.
        with contextlib.suppress(OSError):
            Path(self._path).unlink()
        os.close(self._handle)
        self._handle = -1


class _Wait:
    """Waits in a thread of its own, because a wait for a lock can have no deadline and cannot be cancelled."""

    def __init__(self, lock: str, main: str) -> None:
        self._lock = lock
        self._main = main
        self._loop = asyncio.get_running_loop()
        self._taken: asyncio.Future[int] = self._loop.create_future()
        self._guard = threading.Lock()
        self._is_wanted = True

    async def over(self) -> int:
        threading.Thread(target=self._live, name=f"broadway-state-lock:{self._main}", daemon=True).start()
        try:
            return await self._taken
        except BaseException:
            with self._guard:
                self._is_wanted = False
            if self._taken.done() and not self._taken.cancelled() and self._taken.exception() is None:
                os.close(self._taken.result())  # cancelled in the moment in which it was taken
            raise

    def _live(self) -> None:
        handle: int | None = None
        error: OSError | None = None
        try:
            handle = _locked(self._lock, self._main, wait=True)
        except OSError as raised:
            error = raised
        # In a closed loop (RuntimeError) nobody is left that could wait.
        with self._guard, contextlib.suppress(RuntimeError):
            if self._is_wanted:
                self._loop.call_soon_threadsafe(self._tell, handle, error)
                return
        if handle is not None:
            os.close(handle)

    def _tell(self, handle: int | None, error: OSError | None) -> None:
        if self._taken.done():  # cancelled
            if handle is not None:
                os.close(handle)
        elif handle is not None:
            self._taken.set_result(handle)
        elif error is not None:
            self._taken.set_exception(error)


def refuse_unlockable(what: str, path: str) -> None:
    """Refuses a file whose lock could not be created or opened by this user. Nothing is created.

    Raises:
        StorageError: what :meth:`StateLock.take` would say.
    """
    lock = _beside(path)
    error = refusal_of_creating(lock)
    if error is not None:
        raise _unlockable(what, path, lock, error)


def holder(path: str) -> str | None:
    """Returns who has the lock of the file *path*, such as ``process 12``; None: nobody has it.

    Nothing is created. A store that asks for the lock in this very moment waits until this has looked.
    """
    lock = _beside(path)
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # there is none; or it is not ours, which refuse_unlockable tells
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(lock)
    finally:
        os.close(handle)
    return None


def _beside(path: str) -> str:
    # Beside the file itself, whatever links lead to it.
    return f"{os.path.realpath(path)}{_SUFFIX}"


def _locked(lock: str, main: str, *, wait: bool) -> int | None:
    """Returns the locked lock file, or None if another has it and *wait* is false."""
    while True:
        handle = open_beside(lock, main)
        try:
            # flock and not lockf: it belongs to this one handle, so another store in the same process sees it too.
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(handle, lock):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner has removed it meanwhile


def _is_there(handle: int, lock: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), Path(lock).stat())
    except FileNotFoundError:
        return False


def _unlockable(what: str, path: str, lock: str, error: OSError) -> StorageError:
    return StorageError(
        f"{what} {path}: the lock file {lock} cannot be created or locked ({error.strerror}): give this user "
        "write permission to it and to the directory, or choose another path"
    )


def _holder(lock: str) -> str:
    try:
        number = int(Path(lock).read_bytes())
    except (OSError, ValueError):
        return "another process"  # it has only just taken the lock, or has just given it back
    return f"process {number}"
