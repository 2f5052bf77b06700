"""Whose turn it is to write: processes that share a file stand in line, so that none is starved.

SQLite lets whoever happens to ask at the right moment write; beside a busy neighbour that can be never. So who wants to
write takes a number, one above the last, and waits until the one before has finished. A number is a locked byte of a
file: whoever waits is woken by the kernel, and a process that dies gives its number back.

It is about fairness alone. That only one writes at a time is SQLite's own lock; so nothing is wrong, only unfair, when
a process cannot have its turn within :data:`PATIENCE` (another one was stopped while it had it) and goes on without.
Systems without locks of this kind, which is all but Linux, have no line.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import struct
import threading
import time
from collections.abc import Iterator
from typing import Final

from broadway_py.storage.modes import open_beside

__all__ = ["PATIENCE", "WriterQueue"]

#: Seconds in line before it is thought to be stuck …
PATIENCE: Final = 1.0
#: … and seconds without it after that.
_DETOUR: Final = 5.0
_HAS_LINES: Final = hasattr(fcntl, "F_OFD_SETLKW")


class WriterQueue:
    """The line before one file, for one thread of this process.

    Args:
        path: the file; ``-line`` is made beside it, and stays.

    Raises:
        OSError: it cannot be made or opened.
    """

    def __init__(self, path: str) -> None:
        self._numbers = _Numbers(f"{path}-line", path)
        self._path = path
        self._detour_until = 0.0
        self._helper: _Helper | None = None

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for the turn, have it for the block, and let the next one in."""
        number = self._enter()
        try:
            yield
        finally:
            if number is not None:
                self._numbers.give_back(number)

    def _enter(self) -> int | None:
        if not _HAS_LINES or time.monotonic() < self._detour_until:
            return None
        number = None
        if self._helper is None or not self._helper.is_in_line:
            number = self._numbers.try_to_draw()
            if number is not None and self._numbers.is_called(number, wait=False):
                return number
        if self._helper is None:
            self._helper = _Helper(self._numbers, self._path)
        called = self._helper.wait(number, PATIENCE)
        if called is None:
            self._detour_until = time.monotonic() + _DETOUR
        return called

    def close(self) -> None:
        """No longer use the file."""
        if self._helper is None:
            self._numbers.close()
        else:
            self._helper.end()


class _Numbers:
    """The file of the numbers: it holds the last one, and is locked at the bytes of those that are in use."""

    _LAST = struct.Struct("<q")
    #: Locked while a number is drawn.
    _DRAWING = 0
    #: The first number; the one before it is never drawn.
    _FIRST = 2

    def __init__(self, path: str, main: str) -> None:
        self._handle = open_beside(path, main)

    def draw(self) -> int:
        """The next number, to be given back; waits while somebody else draws one."""
        self._lock(self._DRAWING, fcntl.F_WRLCK, wait=True)
        return self._next()

    def try_to_draw(self) -> int | None:
        """The next number, to be given back; None when somebody else draws one right now."""
        return self._next() if self._lock(self._DRAWING, fcntl.F_WRLCK, wait=False) else None

    def _next(self) -> int:
        try:
            last = os.pread(self._handle, self._LAST.size, 0)
            number = max(self._FIRST, self._LAST.unpack(last)[0] + 1 if len(last) == self._LAST.size else 0)
            self._lock(number, fcntl.F_WRLCK, wait=True)  # nobody else has it
            # On a full disk the number stays the last one's, and two have it: they share a turn.
            with contextlib.suppress(OSError):
                os.pwrite(self._handle, self._LAST.pack(number), 0)
            return number
        finally:
            self.give_back(self._DRAWING)

    def is_called(self, number: int, *, wait: bool) -> bool:
        """Whether the one before *number* has finished, or has died; with *wait*, once that is so."""
        if not self._lock(number - 1, fcntl.F_RDLCK, wait=wait):
            return False
        self.give_back(number - 1)
        return True

    def give_back(self, number: int) -> None:
        """Let the next one pass."""
        self._lock(number, fcntl.F_UNLCK, wait=False)

    def close(self) -> None:
        """No longer use the file."""
        os.close(self._handle)

    def _lock(self, byte: int, kind: int, *, wait: bool) -> bool:
        # Locks of this open file, not of the process, so that two of one process exclude each other as well.
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._handle, command, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))
        except BlockingIOError:
            return False
        return True


class _Helper:
    """Waits in line in a thread of its own, for a wait for a lock can neither have a deadline nor be broken off."""

    def __init__(self, numbers: _Numbers, path: str) -> None:
        self._numbers = numbers
        #: A number, or None to draw one; False ends the thread.
        self._asked: queue.SimpleQueue[int | bool | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._is_wanted = False
        self._called: int | None = None
        #: Whether its thread waits for a turn, maybe one that is no longer wanted.
        self.is_in_line = False
        threading.Thread(target=self._live, name=f"broadway-turnstile:{path}", daemon=True).start()

    def wait(self, number: int | None, patience: float) -> int | None:
        """Stand in line with *number* (None: draw one) for *patience* seconds; the number that was called, if any."""
        with self._changed:
            self._is_wanted = True
            if not self.is_in_line:
                self.is_in_line = True
                self._asked.put(number)
            self._changed.wait_for(lambda: self._called is not None, patience)
            called, self._called, self._is_wanted = self._called, None, False
            return called

    def end(self) -> None:
        """End the thread, at once or when its wait ends; it closes the file."""
        self._asked.put(False)

    def _live(self) -> None:
        while (number := self._asked.get()) is not False:
            if number is None:
                number = self._numbers.draw()
            self._numbers.is_called(number, wait=True)
            with self._changed:
                self.is_in_line = False
                if self._is_wanted:
                    self._called = number
                    self._changed.notify()
                else:
                    self._numbers.give_back(number)  # too late: the caller has gone on without it
        self._numbers.close()
