"""One worker process: builds the pipelines from its assignment, runs them, reports, and obeys its supervisor.

It is started by ``python -m broadway_py.daemon``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Coroutine, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

from prometheus_client import REGISTRY

from broadway_py import forks
from broadway_py.daemon.http.view import LocalView
from broadway_py.daemon.logs import logs
from broadway_py.daemon.pipelines.changes import apply
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.daemon.pipelines.reloading import Reloading
from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.pipelines.service import Service
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.process.main_thread import ExitCode, Request, Watch, bounded
from broadway_py.daemon.reload.resolved import Resolved
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.daemon.workers.messages import (
    Answer,
    Applied,
    Assignment,
    Command,
    FromWorker,
    LastReport,
    Refused,
    Report,
)
from broadway_py.errors import OptionsError
from broadway_py.log import logger
from broadway_py.metrics import log_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.poison.isolation import Isolation
from broadway_py.pipeline.poison.journal import Journal

__all__ = ["GRACE", "main"]

log = logger("broadway_py.daemon")

#: Seconds after the deadline at which a worker ends without its event loop. The supervisor waits a little longer.
GRACE: Final = 1.0

# Seconds between two reports that the supervisor has not asked for.
_EVERY: Final = 1.0

# A service manager may send SIGTERM to every process of the group, besides the supervisor's command. Both together are
# one request, so the second does not mean "at once" here. Ctrl-C and a hang-up are dropped from the start, because the
# supervisor decides what to do.
_SIGNALS: Final[Mapping[int, Request]] = {signal.SIGTERM: Request.DRAIN, signal.SIGUSR1: Request.DUMP}


class _SupervisorPipes:
    """The two pipes to the supervisor.

    A blocked event loop must miss neither a command nor the supervisor's death. A supervisor that does not read must
    not block the event loop. So commands, controls and reports have one thread each.
    """

    def __init__(self, commands: Connection, reports: Connection) -> None:
        self._commands = commands
        self._reports = reports
        #: The reloads of this worker, and the settings that the next one applies.
        self.reloads = ReloadTurns(is_worker=True)
        self.settings: Resolved | None = None
        self._sending = threading.Lock()
        # The supervisor waits for at most one report, and for at most one control of each pipeline.
        self._asked: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._controls: queue.SimpleQueue[Command] = queue.SimpleQueue()
        # A process that a handler forks must not hold the pipes: the supervisor would wait for it to close them.
        forks.when_forked(commands.close)
        forks.when_forked(reports.close)

    def send(self, message: FromWorker) -> None:
        """Sends *message*. Blocks while the supervisor does not read.

        Raises:
            OSError: the supervisor is gone.
        """
        with self._sending:
            self._reports.send(message)

    def send_last(self, message: FromWorker) -> None:
        """Sends *message* before the process ends, unless the supervisor is gone or does not read for a while."""

        def attempt() -> None:
            with contextlib.suppress(OSError):
                self.send(message)

        bounded(attempt)

    def start(self, view: LocalView, watch: Watch) -> None:
        """Starts the threads that obey and report."""
        for target, name in (
            (lambda: self._obey(watch), "commands"),
            (lambda: self._control(view, watch), "controls"),
            (lambda: self._report(view, watch), "reports"),
        ):
            threading.Thread(target=target, name=f"broadway-{name}", daemon=True).start()

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
            elif command.act == "reload":
                # It takes as long as a drain, and the other commands must not wait for it.
                threading.Thread(
                    target=self._tell, args=(watch, self._reload(command)), name="broadway-reload-answer", daemon=True
                ).start()
            elif command.act == "report":
                self._asked.put(command.number)
            else:
                self._controls.put(command)

    async def _reload(self, command: Command) -> Applied:
        assert command.settings is not None  # noqa: S101  # a reload has some
        self.settings = command.settings
        return Applied(command.number, await asyncio.shield(self.reloads.ask()))

    def _control(self, view: LocalView, watch: Watch) -> None:
        while True:
            command = self._controls.get()
            if not self._tell(watch, _carry_out(view, command)):
                return

    def _report(self, view: LocalView, watch: Watch) -> None:
        while True:
            try:
                number = self._asked.get(timeout=_EVERY)
            except queue.Empty:
                number = 0
            if not self._tell(watch, _snapshot_in_loop(view, number)):
                return

    def _tell(self, watch: Watch, work: Coroutine[Any, Any, FromWorker]) -> bool:
        """Runs *work* in the loop and sends its result. Returns False when that has no more use."""
        try:
            # This waits as long as the event loop is blocked. The supervisor notices the silence.
            self.send(watch.submit(work).result())
        except (OSError, concurrent.futures.CancelledError):
            return False  # the supervisor is gone, or the loop has ended: the main thread does the rest
        return True


_REQUESTS: Final = {"stop": Request.DRAIN, "now": Request.NOW, "dump": Request.DUMP}


async def _carry_out(view: LocalView, command: Command) -> Answer:
    refused: str | None = None
    try:
        if command.change is not None:
            told = await view.change(command.pipeline, command.change)
        else:
            told = await (view.pause if command.act == "pause" else view.resume)(command.pipeline)
        refused = next(iter(told.not_heard.values()), None)
    except OptionsError as impossible:
        refused = str(impossible)
    if refused is not None:
        log.warning("the worker could not carry out a command", command=command.act, reason=refused)
    return Answer(command.number, command.act, command.pipeline, refused)


async def _snapshot_in_loop(view: LocalView, number: int) -> Report:
    return _snapshot(view, number)


def _snapshot(view: LocalView, number: int = 0) -> Report:
    return Report(
        pipelines={one.name: one for one in view.roster.stats_of_all()},
        metrics=(*log_metrics(logs.dropped_lines()), *REGISTRY.collect()),
        lag_seconds=view.lag_seconds,
        number=number,
    )


def main(commands_fd: int, reports_fd: int, journal_fd: int) -> int:
    """Runs one worker, which has taken its signals before. Returns its exit code."""
    for descriptor in (commands_fd, reports_fd, journal_fd):
        os.set_inheritable(descriptor, False)  # else a program that a handler starts holds the pipes open
    pipes = _SupervisorPipes(
        commands := Connection(commands_fd, writable=False), Connection(reports_fd, readable=False)
    )
    try:
        assignment: Assignment = commands.recv()
    except EOFError:
        return ExitCode.CLEAN  # the supervisor has ended meanwhile
    sys.path[:] = assignment.search_path
    settings = assignment.settings.settings
    logs.configure(settings.log, worker=assignment.index)
    try:
        return _run(assignment, pipes, Isolation(Journal(journal_fd, settings.workers), assignment.index))
    except OptionsError as wrong:
        pipes.send_last(Refused(str(settings.located(wrong))))
        return ExitCode.USAGE


def _run(assignment: Assignment, pipes: _SupervisorPipes, isolation: Isolation) -> int:
    def prepare(pipeline: Pipeline[Any]) -> None:
        pipeline._isolation = isolation

    def read() -> Resolved:
        assert pipes.settings is not None  # noqa: S101  # they come with the command
        isolation.see(pipes.settings.settings.workers)
        return pipes.settings

    settings = assignment.settings.settings
    pipelines = build_pipelines(settings, share=(assignment.index, settings.workers))
    for pipeline in pipelines:
        prepare(pipeline)
        for name, change in assignment.changes:
            if name == pipeline.name:
                apply(pipeline, change)
    lag = LagMeter()
    roster = Roster(pipelines)
    roster.paused |= assignment.paused
    reloading = Reloading(assignment.settings, read, worker=assignment.index, prepare=prepare)
    service = Service(roster, lag, reload=reloading, reloads=pipes.reloads)
    view = LocalView(roster, lag, pipes.reloads)
    watch = Watch(service, grace=GRACE, signals=_SIGNALS)
    pipes.start(view, watch)
    code = watch.run()
    # Until here a crash may be attributed to the messages in work.
    isolation.end()
    if code != ExitCode.LATE:
        last = LastReport(_snapshot(view), ended=not service.was_asked_to_stop, started=not service.could_not_start)
        pipes.send_last(last)
    return code
