"""Where signals and threads leave word for the main thread, which waits here and misses none."""

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

    Waiting on a lock would not do: a signal that arrives just before the wait begins, or in another thread, does not
    wake it, and its handler would not run until something else does. So the interpreter's own C handler writes the
    number of each signal into a socket, and the waiting is done on that.
    """

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._meanings: Mapping[int, T] = {}
        # Sockets rather than a pipe: once closed, a late put() fails instead of writing into somebody else's file.
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def put(self, word: T) -> None:
        """Leave *word*, from any thread; nothing happens once the mailbox is closed."""
        self._waiting.append(word)
        # A full socket wakes the reader as well as one more byte would.
        with contextlib.suppress(OSError):
            self._outside.send(_WORD)

    def take(self, deadline: float | None) -> T | None:
        """Wait for the next word, in order; None once ``time.monotonic()`` has passed *deadline*."""
        poll = select.poll()
        poll.register(self._inside, select.POLLIN)
        while not self._waiting:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            # Rounded up, so that it does not spin through the last millisecond.
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
        """While the block runs each signal leaves the word that *meanings* has for it. Main thread only.

        Signals to a process that is forked off meanwhile leave nothing here: they do there what they did before.
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
        """Take nothing more."""
        self._inside.close()
        self._outside.close()


def _ignore(_number: int, _frame: Any) -> None:
    """A handler there must be, or the interpreter would not write to the socket."""
