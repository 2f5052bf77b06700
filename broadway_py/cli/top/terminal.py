"""The terminal of ``broadway top``: keys without a line break, its size, and that it is as before at the end."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final, NoReturn

from broadway_py.cli.top.screen import Key, Keys

__all__ = ["Terminal", "Woken"]

#: Seconds within which the bytes of one key come.
_ONE_KEY_S: Final = 0.05
_RESIZED: Final = b"r"
_SUSPEND: Final = b"z"
_NEWS: Final = b"n"


class Woken:
    """Why :meth:`Terminal.wait` has returned."""

    def __init__(self, keys: list[Key], *, must_suspend: bool = False) -> None:
        self.keys = keys
        self.must_suspend = must_suspend


class Terminal:
    """Standard input and the signals of the terminal. Use it as :meth:`opened`, in the main thread."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        #: Whether keys can be read: standard input is a terminal and has not ended.
        self.has_keys = os.isatty(self._input)
        self._keys = Keys()
        self._before: list[Any] | None = None
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Takes the keys one by one in the block, without showing them, and turns SIGTERM and SIGHUP into an exit.

        However the block ends, the terminal is then as it was.
        """
        handlers = {
            signal.SIGTERM: _end,
            signal.SIGHUP: _end,
            signal.SIGWINCH: lambda *_: self._wake(_RESIZED),
            signal.SIGTSTP: lambda *_: self._wake(_SUSPEND),
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            self.take_keys()
            yield
        finally:
            self.give_back()
            for number, handler in before.items():
                signal.signal(number, handler)

    def take_keys(self) -> None:
        """Turns off the line editing and the echo of the terminal."""
        if self.has_keys:
            self._before = termios.tcgetattr(self._input)
            tty.setcbreak(self._input, termios.TCSANOW)

    def give_back(self) -> None:
        """Restores the terminal as it was."""
        if self._before is not None:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._input, termios.TCSANOW, self._before)
            self._before = None

    def suspend(self) -> None:
        """Stops this process, as Ctrl-Z asks, until it is continued."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def news(self) -> None:
        """Ends the wait. May be called from any thread."""
        self._wake(_NEWS)

    def _wake(self, why: bytes) -> None:
        with suppress(BlockingIOError):  # enough of them are waiting
            os.write(self._wake_write, why)

    def wait(self, timeout: float) -> Woken:
        """Waits for keys, for news, or for a change of the terminal, at most *timeout* seconds."""
        readers = [self._wake_read, *([self._input] if self.has_keys else [])]
        ready, _, _ = select.select(readers, [], [], _ONE_KEY_S if self._keys.is_waiting else timeout)
        keys = [] if ready else self._keys.flush()
        must_suspend = False
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                must_suspend = _SUSPEND in os.read(self._wake_read, 4096)
        if self._input in ready:
            data = self._read()
            self.has_keys = bool(data)
            keys += self._keys.feed(data)
        return Woken(keys, must_suspend=must_suspend)

    def _read(self) -> bytes:
        try:
            return os.read(self._input, 4096)
        except OSError:  # the terminal is gone
            return b""


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
