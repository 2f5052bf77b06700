"""The queue through which signals and threads reach the main thread. The main thread waits here and misses none."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from broadway_py import forks

__all__ = ["SignalQueue"]

T = TypeVar("T")

_WORD: Final = b"\0"


class SignalQueue(Generic[T]):
    """A queue that signals can put into.

    Waiting on a lock would not work. A signal that arrives just before the wait begins, or in another thread, does not
    wake the wait, and its handler would not run until something else wakes it. So the interpreter's own C handler
    writes the number of each signal into a socket, and the queue waits on that socket.
    """

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._meanings: Mapping[int, T] = {}
        # Sockets and not a pipe: after close() a late put() fails. With a pipe it could write into another file that
        # has got the same descriptor.
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def put(self, word: T) -> None:
        """Puts *word* into the queue. It may be called from any thread. Nothing happens once the queue is closed."""
        self._waiting.append(word)
        # A full socket wakes the reader as well, so it is no loss when one more byte does not fit.
        with contextlib.suppress(OSError):
            self._outside.send(_WORD)

    def take(self, deadline: float | None) -> T | None:
        """Waits for the next word, in order. Returns None once ``time.monotonic()`` has passed *deadline*."""
        poll = select.poll()
        poll.register(self._inside, select.POLLIN)
        while not self._waiting:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            # Rounded up, so that the loop does not spin through the last millisecond.
            poll.poll(None if left is None else int(left * 1000) + 1)
            self._read()
        return self._waiting.popleft()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._inside.recv(4096):
                if number in self._meanings:
                    self._waiting.append(self._meanings[number])

    @contextlib.contextmanager
    def signals(self, meanings: Mapping[int, T]) -> Iterator[None]:
        """Puts the word that *meanings* has for a signal into the queue, for each signal while the block runs.

        Call it in the main thread only. In a process that is forked meanwhile, signals put nothing here: they do what
        they did before.
        """
        if not meanings:
            yield
            return
        self._meanings = meanings
        descriptor = signal.set_wakeup_fd(self._outside.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, _ignore) for number in meanings}

        def put_back() -> None:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

        def be_forked() -> None:
            signal.set_wakeup_fd(-1)
            put_back()
            self.close()

        forget = forks.when_forked(be_forked)
        try:
            yield
        finally:
            forget()
            put_back()
            signal.set_wakeup_fd(descriptor)

    def close(self) -> None:
        """Closes the queue."""
        self._inside.close()
        self._outside.close()


def _ignore(_number: int, _frame: Any) -> None:
    """Does nothing. Without a handler the interpreter would not write to the socket."""
