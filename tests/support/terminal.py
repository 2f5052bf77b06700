"""A program on a real pseudo-terminal: what it shows, the keys that it gets, and how it leaves the terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.daemon import ROOT
from tests.support.eventually import PATIENCE

__all__ = ["OnTerminal", "on_terminal"]

# The program gets the terminal as its own, so that Ctrl-C and a new size reach it as signals.
_TAKE: str = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, '-m', 'broadway_py', *sys.argv[1:]])"
)
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\r")
#: A page begins here.
_HOME = "\x1b[H"
#: What a terminal is told to leave the alternate screen, and to show its cursor.
_LEAVE, _CURSOR = "\x1b[?1049l", "\x1b[?25h"


class OnTerminal:
    """``broadway`` with *arguments* on a terminal of *size* (rows, columns)."""

    def __init__(self, arguments: Sequence[str], size: tuple[int, int], environ: dict[str, str]) -> None:
        self._master, self._slave = pty.openpty()
        termios.tcsetwinsize(self._slave, size)
        self._before = termios.tcgetattr(self._slave)
        # pytest's workers have a width in their environment, which would count more than that of the terminal.
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE, *arguments],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            env={**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environ},
        )
        #: All that it has written.
        self.written = ""
        self._seen = 0

    def until(self, *texts: str) -> str:
        """Wait for a page, drawn after what an earlier wait has seen, with all of *texts*. Returns the page."""
        end = time.monotonic() + PATIENCE
        while True:
            pages = [_CONTROL.sub("", page) for page in self.written[self._seen :].split(_HOME)]
            for page in pages:
                if all(text in page for text in texts):
                    self._seen = len(self.written)
                    return page
            shown = "\n".join(pages[-2:])
            assert self._more(end - time.monotonic()), f"expected {texts} on a page within {PATIENCE} s; got:\n{shown}"

    def press(self, keys: str) -> None:
        """Send keys. What was drawn before counts as seen."""
        while self._more(0.0):
            pass
        self._seen = len(self.written)
        os.write(self._master, keys.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal a new size. What was drawn before counts as seen."""
        while self._more(0.0):
            pass
        self._seen = len(self.written)
        termios.tcsetwinsize(self._master, (rows, columns))

    def until_stopped(self) -> None:
        """Wait until the program has stopped itself, as for Ctrl-Z."""
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
        while self._more(0.0):
            pass

    def exit_code(self) -> int:
        """Wait for its end, and read the rest of what it has written."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"expected that it ends; it has written:\n{self.written[-2000:]}"
            self._more(0.05)
        while self._more(0.0):
            pass
        return self.process.returncode

    def is_clean(self) -> bool:
        """Whether the terminal is as before: echo and line editing, the first screen, and its cursor."""
        mine = self.written.rfind(_LEAVE)
        return (
            termios.tcgetattr(self._slave) == self._before
            and mine > self.written.rfind("\x1b[?1049h")
            and self.written.rfind(_CURSOR) > self.written.rfind("\x1b[?25l")
        )

    @property
    def after(self) -> str:
        """What it has written after it left the alternate screen, without control sequences."""
        return _CONTROL.sub("", self.written[self.written.rfind(_LEAVE) :])

    def hang_up(self) -> None:
        """Close the terminal, as a lost connection does."""
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def close(self) -> None:
        """End it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for end in (self._master, self._slave):
            if end >= 0:
                os.close(end)

    def _more(self, timeout: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout))
        if ready:
            self.written += os.read(self._master, 65536).decode(errors="replace")
        return bool(ready)


@contextmanager
def on_terminal(
    *arguments: str | Path, size: tuple[int, int] = (24, 80), environ: dict[str, str] | None = None
) -> Iterator[OnTerminal]:
    """A program on a terminal, which does not outlive the block."""
    running = OnTerminal([str(one) for one in arguments], size, environ or {})
    try:
        yield running
    finally:
        running.close()
