"""Waits until somebody writes to a file. The kernel tells (inotify), so the wait takes no processor time.

Only Linux has inotify, and Python's library does not have it. So its two functions are called through ``ctypes``.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import sys
from typing import Final

try:
    import ctypes
except ImportError:  # some builds of Python have none
    ctypes = None  # type: ignore[assignment]  # a module, or nothing

__all__ = ["LogWatch"]

_IN_MODIFY: Final = 0x00000002
#: The watch ends with its first event. So writes cost nothing while nobody waits.
_IN_ONESHOT: Final = 0x80000000
#: More than all events that can wait: a watch has one, and a changed or overflowing one has a second.
_EVENTS_BYTES: Final = 4_096


class LogWatch:
    """Tells one thread of the next write to a file, and lets other threads wake it.

    Args:
        path: an existing file.

    Raises:
        OSError: this system has no inotify, or this user has too many of them.
    """

    def __init__(self, path: str) -> None:
        if sys.platform != "linux" or ctypes is None:
            raise OSError("this system has no inotify, or Python cannot call it")
        library = ctypes.CDLL(None, use_errno=True)
        start, self._add = library.inotify_init1, library.inotify_add_watch
        self._add.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
        self._errno = ctypes.get_errno
        self._path = os.fsencode(path)
        # Its flags are those of open().
        self._events = start(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._events < 0:
            raise OSError(self._errno(), os.strerror(self._errno()))
        try:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            os.close(self._events)
            raise
        self._both = select.poll()
        self._both.register(self._events, select.POLLIN)
        self._both.register(self._bell, select.POLLIN)

    def arm(self) -> None:
        """Begins to watch. Forgets earlier writes.

        Raises:
            OSError: the file is missing, or this user watches too many files.
        """
        with contextlib.suppress(BlockingIOError):
            os.read(self._events, _EVENTS_BYTES)
        if self._add(self._events, self._path, _IN_MODIFY | _IN_ONESHOT) < 0:
            raise OSError(self._errno(), os.strerror(self._errno()))

    def has_seen(self) -> bool:
        """Returns whether the file was written since :meth:`arm`."""
        return any(handle == self._events for handle, _ in self._both.poll(0))

    def wait(self, seconds: float) -> None:
        """Waits until the file is written or :meth:`wake` is called, at most *seconds*."""
        self._both.poll(max(0, math.ceil(seconds * 1000)))
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)

    def wake(self) -> None:
        """Ends the current or the next :meth:`wait`. Any thread may call it."""
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Ends the watch. Nothing may be called afterwards."""
        os.close(self._events)
        os.close(self._bell)
