"""One worker process as its supervisor sees it: from start to exit."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

from broadway_py.daemon.messages import Assignment, Command, FromWorker, Refused, Report
from broadway_py.daemon.messages import Final as LastReport
from broadway_py.pipeline.memory import to_kib

__all__ = ["Life"]

# Seconds that reading what a worker said last may take once it has exited.
_LAST_WORDS: Final = 0.5


class Life:
    """A running worker. Made in the event loop.

    Args:
        assignment: what it is to do.
        changed: called in the loop at every report and at the exit.
        journal: descriptor of the in-flight journal, which it inherits.
    """

    def __init__(self, assignment: Assignment, changed: Callable[[], None], journal: int) -> None:
        self.index = assignment.index
        self.report: Report | None = None
        self.final: LastReport | None = None
        #: Why it refused its settings.
        self.refused: str | None = None
        #: True once :meth:`kill` was called.
        self.was_killed = False
        self._loop = asyncio.get_running_loop()
        self.started_at = self._loop.time()
        self.heard_at = self.started_at
        self._changed = changed
        # Commands are carried out in order, so one number tells all.
        self._answered = 0
        self._exit: asyncio.Future[int] = self._loop.create_future()
        #: The most memory that it has had, in KiB; known after its exit.
        self.peak_kib = 0
        self._reaping = threading.Lock()
        self._process, self._commands, self._reports = _spawn(journal)
        self.send_first(assignment)
        reading = threading.Thread(target=self._read, name=f"broadway-worker-{self.index}-reports", daemon=True)
        reading.start()
        threading.Thread(
            target=self._wait, args=(reading,), name=f"broadway-worker-{self.index}-exit", daemon=True
        ).start()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def send_first(self, assignment: Assignment) -> None:
        """Tell it what to run."""
        with contextlib.suppress(OSError):  # it died at once: its exit says so
            self._commands.send(assignment)

    def send(self, command: Command) -> None:
        """Ask it for something; nothing happens once it has died."""
        with contextlib.suppress(OSError):
            self._commands.send(command)

    def kill(self) -> None:
        """End it now."""
        self.was_killed = True
        with self._reaping:
            if self._process.returncode is None:
                os.kill(self.pid, signal.SIGKILL)

    def has_answered(self, number: int) -> bool:
        """True once the command of this number is done, or nobody is left to do it."""
        return self._answered >= number or self._exit.done()

    async def exited(self) -> int:
        """Wait for the end of the process: its exit code, or the signal that killed it, negative."""
        return await asyncio.shield(self._exit)

    def _read(self) -> None:
        while True:
            try:
                message: FromWorker = self._reports.recv()
            except (EOFError, OSError):
                return
            self._in_loop(self._take, message)

    def _wait(self, reading: threading.Thread) -> None:
        # Until it is reaped nobody else gets its number, so that kill() cannot hit another.
        if hasattr(os, "waitid"):  # not on macOS before Python 3.13
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping:
                code = self._reap()
        else:
            code = self._reap()
        reading.join(_LAST_WORDS)
        self._in_loop(self._end, code)

    def _reap(self) -> int:
        # Not by Popen, which does not tell how much memory it has had.
        _, status, usage = os.wait4(self.pid, 0)
        self.peak_kib = to_kib(usage.ru_maxrss)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode

    def _in_loop(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all interest
            self._loop.call_soon_threadsafe(callback, *args)

    def _take(self, message: FromWorker) -> None:
        self.heard_at = self._loop.time()
        if isinstance(message, Report):
            self.report = message
            self._answered = max(self._answered, message.number)
        elif isinstance(message, LastReport):
            self.final = message
            self.report = message.report
        elif isinstance(message, Refused):
            self.refused = message.sentence
        else:
            self._answered = max(self._answered, message.number)
        self._changed()

    def _end(self, code: int) -> None:
        self._commands.close()
        self._reports.close()
        if not self._exit.done():
            self._exit.set_result(code)
        self._changed()


def _spawn(journal: int) -> tuple[subprocess.Popen[bytes], Connection, Connection]:
    """A fresh interpreter, and our ends of its two pipes."""
    commands_in, commands_out = multiprocessing.Pipe(duplex=False)
    reports_in, reports_out = multiprocessing.Pipe(duplex=False)
    theirs = (commands_in.fileno(), reports_out.fileno(), journal)
    # A signal that arrives while the worker is still importing waits until it can be obeyed.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process = subprocess.Popen(  # noqa: S603  # our own module, in this interpreter
            [sys.executable, "-m", "broadway_py.daemon.worker", *map(str, theirs)],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        commands_in.close()
        reports_out.close()
    return process, commands_out, reports_in
