"""One worker process: builds the pipelines from its assignment, runs them, reports, and obeys its supervisor.

Started as ``python -m broadway_py.daemon.worker COMMANDS REPORTS JOURNAL``, with the numbers of two inherited pipes
and of the file of the in-flight journal.
"""

from __future__ import annotations

import concurrent.futures
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Final

from prometheus_client import REGISTRY

from broadway_py._core.costs import all_costs
from broadway_py.daemon import logs
from broadway_py.daemon.lag import LagMeter
from broadway_py.daemon.loader import build_pipelines
from broadway_py.daemon.messages import Answer, Assignment, Command, FromWorker, Refused, Report
from broadway_py.daemon.messages import Final as LastReport
from broadway_py.daemon.service import Service
from broadway_py.daemon.view import LocalView
from broadway_py.daemon.watch import ExitCode, Request, Watch, bounded, leave
from broadway_py.errors import BroadwayError, OptionsError
from broadway_py.log import logger
from broadway_py.metrics import request_metrics
from broadway_py.pipeline.journal import Journal
from broadway_py.pipeline.probation import Probation

__all__ = ["GRACE", "main"]

log = logger("broadway_py.daemon")

#: Seconds after the deadline at which a worker leaves without its event loop; the supervisor waits a little longer.
GRACE: Final = 1.0

# Seconds between two reports that nobody asked for.
_EVERY: Final = 1.0

# SIGTERM may come from a service manager to every process of the group, besides the supervisor's command: both
# together are one request, so the second does not mean "at once" here.
_SIGNALS: Final[Mapping[int, Request]] = {signal.SIGTERM: Request.DRAIN, signal.SIGUSR1: Request.DUMP}


class _Link:
    """The two pipes to the supervisor, each with a thread: a blocked event loop must neither miss a command nor the
    supervisor's death, and a supervisor that does not read must not block the event loop.
    """

    def __init__(self, commands: Connection, reports: Connection) -> None:
        self._commands = commands
        self._reports = reports
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[Command] = queue.SimpleQueue()

    def send(self, message: FromWorker) -> None:
        """Blocks while the supervisor does not read. Raises OSError once it is gone."""
        with self._sending:
            self._reports.send(message)

    def start(self, view: LocalView, watch: Watch) -> None:
        """Obey and report from now on."""
        threading.Thread(target=self._obey, args=(watch,), name="broadway-commands", daemon=True).start()
        threading.Thread(target=self._report, args=(view, watch), name="broadway-reports", daemon=True).start()

    def _obey(self, watch: Watch) -> None:
        while True:
            try:
                command: Command = self._commands.recv()
            except (EOFError, OSError):
                log.warning("the supervisor is gone; draining")
                watch.request(Request.DRAIN)
                return
            request = _REQUESTS.get(command.act)
            if request is not None:
                watch.request(request)
            else:
                self._jobs.put(command)

    def _report(self, view: LocalView, watch: Watch) -> None:
        while True:
            try:
                command = self._jobs.get(timeout=_EVERY)
            except queue.Empty:
                command = Command("report")
            try:
                # Waits as long as the event loop is blocked: the supervisor notices the silence.
                self.send(watch.submit(_carry_out(view, command)).result())
            except (OSError, concurrent.futures.CancelledError):
                return  # the supervisor is gone, or the loop has ended: the main thread does the rest


_REQUESTS: Final = {"stop": Request.DRAIN, "now": Request.NOW, "dump": Request.DUMP}


async def _carry_out(view: LocalView, command: Command) -> FromWorker:
    if command.act == "report":
        return _snapshot(view, command.number)
    act = view.pause if command.act == "pause" else view.resume
    try:
        await act(command.pipeline)
    except BroadwayError as refused:
        log.warning("the command could not be carried out", command=command.act, reason=str(refused))
    return Answer(command.number)


def _snapshot(view: LocalView, number: int = 0) -> Report:
    return Report(
        pipelines={one.name: one for one in view.stats()},
        metrics=(*request_metrics(all_costs()), *REGISTRY.collect()),
        lag_seconds=view.lag_seconds,
        number=number,
    )


def main(commands_fd: int, reports_fd: int, journal_fd: int) -> int:
    """Run one worker; its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for descriptor in (commands_fd, reports_fd, journal_fd):
        os.set_inheritable(descriptor, False)  # or a program started by a handler would hold the pipes open
    link = _Link(commands := Connection(commands_fd, writable=False), Connection(reports_fd, readable=False))
    assignment: Assignment = commands.recv()
    sys.path[:] = assignment.search_path
    logs.configure(assignment.settings.log, worker=assignment.index)
    try:
        return _run(assignment, link, Probation(Journal(journal_fd, assignment.workers), assignment.index))
    except OptionsError as wrong:
        link.send(Refused(str(assignment.settings.located(wrong))))
        return ExitCode.USAGE


def _run(assignment: Assignment, link: _Link, probation: Probation) -> int:
    pipelines = build_pipelines(assignment.settings, share=(assignment.index, assignment.workers))
    for pipeline in pipelines:
        pipeline._probation = probation
    lag = LagMeter()
    service = Service(pipelines, lag, paused=assignment.paused)
    view = LocalView(pipelines, lag)
    watch = Watch(service, grace=GRACE, signals=_SIGNALS)
    # The supervisor has them blocked while a worker starts: what came meanwhile is delivered once run() takes it.
    link.start(view, watch)
    code = watch.run(started=_unblock)
    probation.end()
    if code != ExitCode.LATE:
        bounded(lambda: link.send(LastReport(_snapshot(view), ended=not service.was_asked_to_stop)))
    return code


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    leave(main(*map(int, sys.argv[1:4])))
