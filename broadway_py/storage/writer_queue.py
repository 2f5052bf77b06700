"""Decides which process may write next: processes that share a file form a queue, so that each gets its turn.

SQLite lets the process write that happens to ask at the right moment. Beside a busy neighbour another process may never
get its turn. So a process that wants to write takes a number, one above the last, and waits until the process with the
number before has finished. A number is a locked byte of a file. The kernel wakes the process that waits for the lock,
and a process that dies gives its number back.

The queue is only for fairness. SQLite's own lock makes sure that only one process writes at a time. So nothing is
wrong, only unfair, when a process cannot have its turn within :data:`PATIENCE` (another process was stopped during its
turn) and continues without. Only Linux has locks of this kind. Other systems have no queue.
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

#: Seconds of waiting before the queue counts as stuck …
PATIENCE: Final = 1.0
#: … and seconds in which the queue is not used after that.
_DETOUR: Final = 5.0
_HAS_LINES: Final = hasattr(fcntl, "F_OFD_SETLKW")


class WriterQueue:
    """The queue before one file, for one thread of this process.

    Args:
        path: the file. ``-line`` is created beside it, and stays.

    Raises:
        OSError: the file of the queue cannot be created or opened.
    """

    def __init__(self, path: str) -> None:
        self._numbers = _Numbers(f"{path}-line", path)
        self._path = path
        self._detour_until = 0.0
        self._helper: _Helper | None = None

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Waits for the turn, has it while the block runs, and then lets the next one in."""
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
        """Ends the use of the file."""
        if self._helper is None:
            self._numbers.close()
        else:
            self._helper.end()


class _Numbers:
    """The file of the numbers: it holds the last number, and the bytes of the numbers in use are locked."""

    _LAST = struct.Struct("<q")
    #: This byte is locked while a number is drawn.
    _DRAWING = 0
    #: The first number. The number before it is never drawn.
    _FIRST = 2

    def __init__(self, path: str, main: str) -> None:
        self._handle = open_beside(path, main)

    def draw(self) -> int:
        """Returns the next number, which must be given back. Waits while another caller draws one."""
        self._lock(self._DRAWING, fcntl.F_WRLCK, wait=True)
        return self._next()

    def try_to_draw(self) -> int | None:
        """Returns the next number, which must be given back, or None if another caller is drawing one now."""
        return self._next() if self._lock(self._DRAWING, fcntl.F_WRLCK, wait=False) else None

    def _next(self) -> int:
        try:
            last = os.pread(self._handle, self._LAST.size, 0)
            number = max(self._FIRST, self._LAST.unpack(last)[0] + 1 if len(last) == self._LAST.size else 0)
            self._lock(number, fcntl.F_WRLCK, wait=True)  # nobody else has it
            # On a full disk the last number stays in the file. Then two have the same number and share a turn.
            with contextlib.suppress(OSError):
                os.pwrite(self._handle, self._LAST.pack(number), 0)
            return number
        finally:
            self.give_back(self._DRAWING)

    def is_called(self, number: int, *, wait: bool) -> bool:
        """Returns whether the holder of the number before *number* has finished or died. *wait* waits for that."""
        if not self._lock(number - 1, fcntl.F_RDLCK, wait=wait):
            return False
        self.give_back(number - 1)
        return True

    def give_back(self, number: int) -> None:
        """Unlocks *number*, so that the next one can pass."""
        self._lock(number, fcntl.F_UNLCK, wait=False)

    def close(self) -> None:
        """Ends the use of the file."""
        os.close(self._handle)

    def _lock(self, byte: int, kind: int, *, wait: bool) -> bool:
        # The locks belong to this open file and not to the process, so that two in one process exclude each other too.
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        try:
            fcntl.fcntl(self._handle, command, struct.pack("hhqqi", kind, os.SEEK_SET, byte, 1, 0))
        except BlockingIOError:
            return False
        return True


class _Helper:
    """Waits in the queue in its own thread, because a wait for a lock can have no deadline and cannot be cancelled."""

    def __init__(self, numbers: _Numbers, path: str) -> None:
        self._numbers = numbers
        #: A number, or None to draw one. False ends the thread.
        self._asked: queue.SimpleQueue[int | bool | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._is_wanted = False
        self._called: int | None = None
        #: True while the thread waits for a turn, even if it is no longer wanted.
        self.is_in_line = False
        threading.Thread(target=self._live, name=f"broadway-writer-queue:{path}", daemon=True).start()

    def wait(self, number: int | None, patience: float) -> int | None:
        """Waits with *number* (None: draw one) for *patience* seconds. Returns the number whose turn it is, or None."""
        with self._changed:
            self._is_wanted = True
            if not self.is_in_line:
                self.is_in_line = True
                self._asked.put(number)
            self._changed.wait_for(lambda: self._called is not None, patience)
            called, self._called, self._is_wanted = self._called, None, False
            return called

    def end(self) -> None:
        """Ends the thread, at once or when its wait ends. The thread closes the file."""
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
                    self._numbers.give_back(number)  # too late: the caller has continued without it
        self._numbers.close()
