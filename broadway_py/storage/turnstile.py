"""Whose turn it is to write: processes that share a file stand in line, so that none is starved.

SQLite lets whoever happens to ask at the right moment write; beside a busy neighbour that can be never. Two locked
files make a turnstile: who wants to write waits at the *gate*, and whoever is through it waits for the *turn*. Who has
just finished finds the next one already inside the gate, and has to get in line.

It is about fairness alone. That only one writes at a time is SQLite's own lock; so nothing is wrong, only unfair, when
a process cannot have its turn within :data:`PATIENCE` (another one was stopped while it had it) and goes on without.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Final

__all__ = ["PATIENCE", "Turnstile"]

#: Seconds in line before it is thought to be stuck …
PATIENCE: Final = 1.0
#: … and seconds without it after that.
_DETOUR: Final = 5.0


class Turnstile:
    """The line before one file, for one thread of this process.

    Args:
        path: the file; ``-gate`` and ``-turn`` are made beside it, are empty, and stay.

    Raises:
        OSError: one of the two cannot be made or opened.
    """

    def __init__(self, path: str) -> None:
        self._gate = _opened(f"{path}-gate")
        try:
            self._turn = _opened(f"{path}-turn")
        except OSError:
            os.close(self._gate)
            raise
        self._path = path
        self._detour_until = 0.0
        self._helper: _Helper | None = None

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Wait for the turn, have it for the block, and let the next one in."""
        has_turn = self._enter()
        try:
            yield
        finally:
            if has_turn:
                fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _enter(self) -> bool:
        if time.monotonic() < self._detour_until:
            return False
        if _try(self._gate):
            has_turn = _try(self._turn)
            fcntl.flock(self._gate, fcntl.LOCK_UN)
            if has_turn:
                return True
        if self._helper is None:
            self._helper = _Helper(self._gate, self._turn, self._path)
        if self._helper.wait(PATIENCE):
            return True
        self._detour_until = time.monotonic() + _DETOUR
        return False

    def close(self) -> None:
        """No longer use the file."""
        if self._helper is not None:
            self._helper.end()
        else:
            _close(self._gate, self._turn)


class _Helper:
    """Waits in line in a thread of its own, for a wait for a lock can neither have a deadline nor be broken off."""

    def __init__(self, gate: int, turn: int, path: str) -> None:
        self._gate = gate
        self._turn = turn
        self._asked: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._is_wanted = False
        self._is_in_line = False
        self._has_turn = False
        threading.Thread(target=self._live, name=f"broadway-turnstile:{path}", daemon=True).start()

    def wait(self, patience: float) -> bool:
        """Stand in line for at most *patience* seconds; whether the turn is the caller's now."""
        with self._changed:
            self._is_wanted = True
            if not self._is_in_line:
                self._is_in_line = True
                self._asked.put(True)
            self._changed.wait_for(lambda: self._has_turn, patience)
            has_turn, self._has_turn, self._is_wanted = self._has_turn, False, False
            return has_turn

    def end(self) -> None:
        """End the thread, at once or when its wait ends; it closes the files."""
        self._asked.put(False)

    def _live(self) -> None:
        while self._asked.get():
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            fcntl.flock(self._turn, fcntl.LOCK_EX)
            fcntl.flock(self._gate, fcntl.LOCK_UN)
            with self._changed:
                self._is_in_line = False
                if self._is_wanted:
                    self._has_turn = True
                    self._changed.notify()
                else:
                    # Too late: the caller has gone on without it.
                    fcntl.flock(self._turn, fcntl.LOCK_UN)
        _close(self._gate, self._turn)


def _opened(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _close(*handles: int) -> None:
    for handle in handles:
        os.close(handle)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
