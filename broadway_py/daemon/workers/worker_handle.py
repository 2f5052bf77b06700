"""One worker process as its supervisor sees it, from start to exit."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final

from broadway_py.daemon.process.startup import SIGNALS
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.workers.messages import (
    Act,
    Answer,
    Applied,
    Assignment,
    Command,
    FromWorker,
    LastReport,
    Refused,
    Report,
)
from broadway_py.daemon.workers.outbox import Outbox
from broadway_py.log import logger
from broadway_py.pipeline.poison.memory import to_kib

__all__ = ["WorkerHandle"]

log = logger("broadway_py.daemon")

# Seconds that reading a worker's last messages may take once it has exited.
_LAST_WORDS: Final = 0.5


class WorkerHandle:
    """A running worker. It is made in the event loop, and nothing here blocks the loop.

    Args:
        assignment: the worker's assignment.
        changed: called in the loop at every message and at the exit.
        journal: descriptor of the in-flight journal, which the worker inherits.

    Raises:
        OSError: the worker cannot be started, because descriptors, memory or processes are missing. Nothing of it is
            left.
    """

    def __init__(self, assignment: Assignment, changed: Callable[[], None], journal: int) -> None:
        self.index = assignment.index
        self.report: Report | None = None
        self.final: LastReport | None = None
        #: Why the worker refused its settings.
        self.refused: str | None = None
        #: True once :meth:`kill` was called.
        self.was_killed = False
        self._loop = asyncio.get_running_loop()
        self.started_at = self._loop.time()
        self.heard_at = self.started_at
        self._changed = changed
        # The numbers of the last report that is wanted, that was requested from the worker, and that has come.
        self._wanted = self._asked = self._reported = 0
        # The number of the last control that was answered. Controls are carried out in order.
        self._answered = 0
        # The number and the result of the last reload that has ended.
        self._applied: Applied | None = None
        # The number of the last control of each kind and pipeline that could not be carried out, and why.
        self._refusals: dict[tuple[Act, str], tuple[int, str]] = {}
        self._exit: asyncio.Future[int] = self._loop.create_future()
        #: The most memory that the worker has used, in KiB. It is known after the exit.
        self.peak_kib = 0
        self._reaping = threading.Lock()
        self._process, commands, self._reports = _spawn(journal)
        self._outbox = Outbox(commands)
        reading = threading.Thread(target=self._read, name=f"broadway-worker-{self.index}-reports", daemon=True)
        waiting = threading.Thread(
            target=self._wait, args=(reading,), name=f"broadway-worker-{self.index}-exit", daemon=True
        )
        try:
            waiting.start()
            reading.start()
        except RuntimeError as failed:
            self._undo(waiting)
            raise OSError(errno.EAGAIN, f"{os.strerror(errno.EAGAIN)}: {failed}") from failed
        self._outbox.begin(assignment)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def ask(self, act: Act) -> None:
        """Sends a command that the worker does not answer."""
        self._outbox.put(Command(act))

    def ask_for_report(self, number: int) -> None:
        """Asks for a report of *number*. Only one request is sent at a time, however often this is called."""
        self._wanted = max(self._wanted, number)
        if self._asked == self._reported:
            self._asked = self._wanted
            self._outbox.put(Command("report", self._asked))

    def control(self, command: Command) -> None:
        """Asks to change a pipeline. The worker answers. A newer control of its kind replaces one that is unsent."""
        self._outbox.put(command)

    def applied(self, number: int) -> Reloaded | None:
        """Returns the result of the reload of *number*, or None if it has not ended."""
        return self._applied.result if self._applied is not None and self._applied.number == number else None

    def terminate(self) -> None:
        """Sends SIGTERM. A worker that does not read its commands yet ends at once."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills the worker now. It may be called from any thread."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._reaping:
            if self._process.returncode is None:
                os.kill(self.pid, number)

    def has_reported(self, number: int) -> bool:
        """Returns True once the report of *number* has come, or the worker has ended."""
        return self._reported >= number or self._exit.done()

    def has_answered(self, number: int) -> bool:
        """Returns True once the control of *number* is done or refused, or the worker has ended."""
        return self._answered >= number or self._exit.done()

    @property
    def has_ended(self) -> bool:
        """True once the process is gone."""
        return self._exit.done()

    def refusal(self, number: int) -> str | None:
        """Returns why the answered control of *number* was not carried out, or None if it was."""
        if self._answered < number:
            return "it has ended"
        return next((why for refused, why in self._refusals.values() if refused == number), None)

    async def exited(self) -> int:
        """Waits for the end of the process. Returns its exit code, or the negative number of the ending signal."""
        return await asyncio.shield(self._exit)

    def _undo(self, waiting: threading.Thread) -> None:
        self.kill()
        if waiting.ident is None:
            # No thread waits for the process, so it is reaped here. This takes no time: it is being killed and has
            # little memory.
            self._reap()
        self._outbox.close()
        self._reports.close()

    def _read(self) -> None:
        while True:
            try:
                message: FromWorker = self._reports.recv()
            except (EOFError, OSError):
                return
            except Exception:
                # Another program has written into the pipe, so nothing that comes next can be trusted.
                log.exception("a worker sent something that cannot be read; killing it", index=self.index, pid=self.pid)
                self.kill()
                return
            self._in_loop(self._take, message)

    def _wait(self, reading: threading.Thread) -> None:
        # Until the process is reaped no other process gets its number, so kill() cannot hit another one.
        if hasattr(os, "waitid"):  # not on macOS before Python 3.13
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping:
                code = self._reap()
        else:
            code = self._reap()
        if reading.ident is not None:
            reading.join(_LAST_WORDS)
        self._in_loop(self._end, code)

    def _reap(self) -> int:
        # Popen is not used, because it does not tell how much memory the process has used.
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
            self._note_report(message.number)
        elif isinstance(message, LastReport):
            self.final = message
            self.report = message.report
        elif isinstance(message, Refused):
            self.refused = message.sentence
        elif isinstance(message, Applied):
            self._applied = message
        else:
            self._note_answer(message)
        self._changed()

    def _note_report(self, number: int) -> None:
        if number == self._asked > self._reported:
            self._reported = number
            if self._wanted > number:  # asked for after it was made, perhaps
                self.ask_for_report(self._wanted)

    def _note_answer(self, answer: Answer) -> None:
        self._answered = max(self._answered, answer.number)
        if answer.refused is not None:
            self._refusals[answer.act, answer.pipeline] = (answer.number, answer.refused)

    def _end(self, code: int) -> None:
        self._outbox.close()
        self._reports.close()
        if not self._exit.done():
            self._exit.set_result(code)
        self._changed()


def _spawn(journal: int) -> tuple[subprocess.Popen[bytes], int, Connection]:
    """Starts a new interpreter. Returns it with our ends of its two pipes: first commands, then reports."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        commands_in, commands_out = os.pipe()
        theirs.callback(os.close, commands_in)
        ours.callback(os.close, commands_out)
        reports_in, reports_out = multiprocessing.Pipe(duplex=False)
        theirs.callback(reports_out.close)
        ours.callback(reports_in.close)
        given = (commands_in, reports_out.fileno(), journal)
        # The signals are blocked, so that one that arrives early waits until the worker has taken them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process = subprocess.Popen(  # noqa: S603  # our own module, in this interpreter
                [sys.executable, "-m", "broadway_py.daemon", *map(str, given)],
                pass_fds=given,
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.pop_all()
    return process, commands_out, reports_in
