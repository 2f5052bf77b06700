"""One worker process as its supervisor sees it: from start to exit."""

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
from broadway_py.daemon.workers.messages import Act, Answer, Assignment, Command, FromWorker, Refused, Report
from broadway_py.daemon.workers.messages import Final as LastReport
from broadway_py.daemon.workers.outbox import Outbox
from broadway_py.log import logger
from broadway_py.pipeline.poison.memory import to_kib

__all__ = ["WorkerHandle"]

log = logger("broadway_py.daemon")

# Seconds that reading what a worker said last may take once it has exited.
_LAST_WORDS: Final = 0.5


class WorkerHandle:
    """A running worker. Made in the event loop, where nothing here waits.

    Args:
        assignment: what it is to do.
        changed: called in the loop at every report and at the exit.
        journal: descriptor of the in-flight journal, which it inherits.

    Raises:
        OSError: it cannot be started, for want of descriptors, memory or processes; nothing is left of it.
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
        # Numbers of the last report that was asked for, that was sent for, and that has come.
        self._wanted = self._asked = self._reported = 0
        # Controls are carried out in order, so one number tells all.
        self._answered = 0
        # Why the last control of a pipeline could not be carried out, by its number.
        self._refusals: dict[str, tuple[int, str]] = {}
        self._exit: asyncio.Future[int] = self._loop.create_future()
        #: The most memory that it has had, in KiB; known after its exit.
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
        """The process."""
        return self._process.pid

    def ask(self, act: Act) -> None:
        """Ask it for something that it does not answer."""
        self._outbox.put(Command(act))

    def ask_for_report(self, number: int) -> None:
        """Ask it for a report of *number*. There is one request at a time, however often it is asked."""
        self._wanted = max(self._wanted, number)
        if self._asked == self._reported:
            self._asked = self._wanted
            self._outbox.put(Command("report", self._asked))

    def control(self, command: Command) -> None:
        """Ask it to pause or to resume a pipeline. It answers; an earlier wish that it has not read is forgotten."""
        self._outbox.put(command)

    def terminate(self) -> None:
        """Ask it to end by a signal: before it runs, when it does not read its commands yet, it leaves at once."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now. From any thread."""
        self.was_killed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self._reaping:
            if self._process.returncode is None:
                os.kill(self.pid, number)

    def has_reported(self, number: int) -> bool:
        """True once the report of this number is there, or nobody is left to make it."""
        return self._reported >= number or self._exit.done()

    def has_answered(self, number: int) -> bool:
        """True once the control of this number is done or refused, or nobody is left to do it."""
        return self._answered >= number or self._exit.done()

    @property
    def has_ended(self) -> bool:
        """True once its process is gone."""
        return self._exit.done()

    def refusal(self, number: int) -> str | None:
        """Why the control of this number, which is answered, was not carried out; None if it was."""
        if self._answered < number:
            return "it has ended"
        return next((why for refused, why in self._refusals.values() if refused == number), None)

    async def exited(self) -> int:
        """Wait for the end of the process: its exit code, or the signal that killed it, negative."""
        return await asyncio.shield(self._exit)

    def _undo(self, waiting: threading.Thread) -> None:
        self.kill()
        if waiting.ident is None:
            # Nobody else waits for it. It takes no time: it is being killed, and has no memory to speak of.
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
                # Something else has written into its pipe. What would come next can be anything.
                log.exception("a worker says what cannot be understood; killing it", index=self.index, pid=self.pid)
                self.kill()
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
        if reading.ident is not None:
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
            self._note_report(message.number)
        elif isinstance(message, LastReport):
            self.final = message
            self.report = message.report
        elif isinstance(message, Refused):
            self.refused = message.sentence
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
            self._refusals[answer.pipeline] = (answer.number, answer.refused)

    def _end(self, code: int) -> None:
        self._outbox.close()
        self._reports.close()
        if not self._exit.done():
            self._exit.set_result(code)
        self._changed()


def _spawn(journal: int) -> tuple[subprocess.Popen[bytes], int, Connection]:
    """A fresh interpreter, and our ends of its two pipes: a descriptor for commands, reports to be received."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        commands_in, commands_out = os.pipe()
        theirs.callback(os.close, commands_in)
        ours.callback(os.close, commands_out)
        reports_in, reports_out = multiprocessing.Pipe(duplex=False)
        theirs.callback(reports_out.close)
        ours.callback(reports_in.close)
        given = (commands_in, reports_out.fileno(), journal)
        # A signal that arrives before the worker has taken them waits until it has.
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
