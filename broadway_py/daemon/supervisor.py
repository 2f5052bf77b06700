"""Several worker processes seen as one: started, restarted, asked, added up, drained under one deadline."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count
from typing import Any, Final

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py._core.backoff import Backoff
from broadway_py.daemon.fold import depart, depart_metrics, fold_metrics, fold_stats, label_worker, speaks_of_process
from broadway_py.daemon.http import serve
from broadway_py.daemon.inquest import Inquest
from broadway_py.daemon.lag import LagMeter
from broadway_py.daemon.life import Life
from broadway_py.daemon.messages import Assignment, Command
from broadway_py.daemon.settings import Settings
from broadway_py.daemon.watch import ExitCode
from broadway_py.errors import OptionsError
from broadway_py.log import ALL, logger
from broadway_py.metrics import pipeline_metrics, process_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["GRACE", "Supervisor"]

log = logger("broadway_py.daemon")

#: Seconds after the deadline at which the supervisor itself leaves; workers leave, or are killed, before.
GRACE: Final = 1.8
_KILL_AFTER: Final = 1.4

# Seconds: how long a scrape waits for fresh numbers, a command for its end, and /livez for a word of a worker.
_FRESH: Final = 0.3
_CARRIED_OUT: Final = 10.0
_SILENT: Final = 10.0
# Seconds that a worker may take to import and build its pipelines before /livez complains.
_STARTING: Final = 60.0


class Supervisor:
    """The body of a process whose pipelines run in workers; also what its HTTP port shows.

    Args:
        settings: checked.
        pipelines: built from *settings* and never started: their names, stages and time-outs are looked at.
    """

    def __init__(self, settings: Settings, pipelines: Sequence[Pipeline[Any]]) -> None:
        self._settings = settings
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._lives: dict[int, Life] = {}
        self._restarts = 0
        self._paused: set[str] = set()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._numbers = count(1)
        self._code: int = ExitCode.CLEAN
        self._wrong: OptionsError | None = None
        self._lag = LagMeter()
        self._inquest = Inquest(settings.workers)
        # What is kept of workers that are gone; to begin with, zeros, so that every series is there at once.
        self._gone = {name: depart(one.stats(), state="starting") for name, one in self._pipelines.items()}
        self._gone_metrics: list[Metric] = []

    @property
    def shutdown_timeout(self) -> float:
        """The longest of the pipelines'."""
        return max(pipeline.shutdown_timeout for pipeline in self._pipelines.values())

    async def run(self) -> int:
        """Keep the workers running until all have ended by themselves or were asked to; the worst exit code.

        Raises:
            OptionsError: a worker, or the HTTP port, found a setting that is wrong; no worker runs any more.
        """
        self._lag.start()
        try:
            async with AsyncExitStack() as stack:
                if self._settings.http is not None:
                    await stack.enter_async_context(serve(self._settings.http, self))
                async with asyncio.TaskGroup() as tasks:
                    for index in range(self._settings.workers):
                        tasks.create_task(self._keep(index), name=f"worker {index}")
        finally:
            self._lag.stop()
            for life in self._lives.values():
                life.kill()
            self._inquest.close()
        if self._wrong is not None:
            raise self._wrong
        return self._code

    def stop(self) -> None:
        """Drain all workers at once; kill those that are left after the deadline."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._tell_all(Command("stop"))
        self._kill_in(self.shutdown_timeout + _KILL_AFTER)

    def give_up(self) -> None:
        """Tell all workers to do their last steps at once."""
        self.stop()
        self._tell_all(Command("now"))
        self._kill_in(_KILL_AFTER)

    def log_state(self) -> None:
        """One log line per worker and pipeline; the workers add their own."""
        for index, life in self._lives.items():
            log.warning("state: worker", index=index, pid=life.pid, **{ALL: True})
        for one in self.stats():
            log.warning("state: pipeline", pipeline=one.name, stats=repr(one), **{ALL: True})
        self._tell_all(Command("dump"))

    # --- keeping workers alive

    async def _keep(self, index: int) -> None:
        backoff = Backoff(first_s=1.0, most_s=30.0, healthy_s=60.0)
        while not self._stopping.is_set():
            life = self._lives[index] = Life(self._assignment(index), self._note_change, self._inquest.descriptor)
            log.info("worker started", index=index, pid=life.pid)
            code = await life.exited()
            del self._lives[index]
            ended = life.final is not None and life.final.ended and code == ExitCode.CLEAN
            self._keep_numbers(life, restarts=not ended)
            if life.refused is not None:
                self._wrong = self._wrong or OptionsError((), life.refused)
                self.stop()
                return
            if ended:
                return
            if self._stopping.is_set():
                self._note_exit(life, code)
                return
            suspects = self._inquest.died(index, code, life.peak_kib)
            delay = backoff.failed(asyncio.get_running_loop().time() - life.started_at)
            log.error(
                "worker died; starting it again",
                index=index,
                exit=_exit_text(code),
                suspects=suspects,
                seconds=round(delay, 3),
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            self._restarts += not self._stopping.is_set()

    def _assignment(self, index: int) -> Assignment:
        return Assignment(
            settings=self._settings,
            index=index,
            workers=self._settings.workers,
            paused=frozenset(self._paused),
            search_path=tuple(sys.path),
        )

    def _note_exit(self, life: Life, code: int) -> None:
        if code == ExitCode.CLEAN:
            return
        log.error("worker did not end cleanly", index=life.index, exit=_exit_text(code))
        late = code == ExitCode.LATE or life.was_killed
        self._code = ExitCode.LATE if late or self._code == ExitCode.LATE else ExitCode.CRASH

    def _keep_numbers(self, life: Life, *, restarts: bool) -> None:
        if life.report is None:
            return
        state: Any = "starting" if restarts and not self._stopping.is_set() else "stopped"
        for name, last in life.report.pipelines.items():
            self._gone[name] = fold_stats([], [depart(last, state=state), self._gone[name]])
        self._gone_metrics = fold_metrics([self._gone_metrics, depart_metrics(life.report.metrics)])

    def _tell_all(self, command: Command) -> None:
        for life in self._lives.values():
            life.send(command)

    def _kill_in(self, seconds: float) -> None:
        def kill() -> None:
            for index, life in self._lives.items():
                log.error("worker did not leave in time; killing it", index=index, pid=life.pid)
                life.kill()

        asyncio.get_running_loop().call_later(seconds, kill)

    def _note_change(self) -> None:
        self._inquest.forget_cleared()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _until_answered(self, number: int, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(life.has_answered(number) for life in list(self._lives.values())):
                    await self._changed.wait()
                return True
        return False

    # --- what the HTTP port shows and does

    async def refresh(self) -> None:
        """Ask every worker for a report; what has not come in time is at most a second old."""
        number = next(self._numbers)
        self._tell_all(Command("report", number))
        await self._until_answered(number, _FRESH)

    def stats(self) -> Sequence[PipelineStats]:
        """One folded snapshot per pipeline."""
        return [
            fold_stats(
                [life.report.pipelines[name] for life in self._lives.values() if life.report], [self._gone[name]]
            )
            for name in self._pipelines
        ]

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """The stages of each pipeline, as each worker has them."""
        return {name: pipeline.topology() for name, pipeline in self._pipelines.items()}

    def metrics(self) -> Iterator[Metric]:
        """Ours, then the workers' default registries added up, then what is said of each process."""
        reports = {str(index): life.report for index, life in self._lives.items() if life.report is not None}
        yield from pipeline_metrics(self.stats())
        lags = {"supervisor": self._lag.seconds, **{index: one.lag_seconds for index, one in reports.items()}}
        yield from process_metrics(lags, self._restarts)
        own = [label_worker(family, "supervisor") for family in REGISTRY.collect() if speaks_of_process(family)]
        theirs = [[label_worker(family, index) for family in one.metrics] for index, one in reports.items()]
        yield from fold_metrics([own, self._gone_metrics, *theirs])

    def not_alive(self) -> Sequence[str]:
        """Workers that have not been heard of for ten seconds."""
        now = asyncio.get_running_loop().time()
        silences = {
            index: now - life.heard_at
            for index, life in self._lives.items()
            if now - life.heard_at > (_SILENT if life.report is not None else _STARTING)
        }
        return [f"worker {index} has not answered for {seconds:.0f} s" for index, seconds in silences.items()]

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """By pipeline, the reasons of each worker that is not ready."""
        return {name: [*self._reasons(name)] for name in self._pipelines}

    def _reasons(self, name: str) -> Iterator[str]:
        for index in range(self._settings.workers):
            life = self._lives.get(index)
            if life is None or life.report is None:
                state = self._gone[name].state
                yield f"worker {index}: {state}"
            elif (trouble := life.report.pipelines[name].trouble) is not None:
                yield f"worker {index}: {trouble}"

    async def pause(self, pipeline: str) -> None:
        """Pause it in every worker, also in those that start later."""
        self._paused.add(pipeline)
        await self._carry_out("pause", pipeline)

    async def resume(self, pipeline: str) -> None:
        """Resume it in every worker."""
        self._paused.discard(pipeline)
        await self._carry_out("resume", pipeline)

    async def _carry_out(self, act: Any, pipeline: str) -> None:
        number = next(self._numbers)
        self._tell_all(Command(act, number, pipeline))
        if await self._until_answered(number, _CARRIED_OUT):
            await self.refresh()


def _exit_text(code: int) -> str:
    if code >= 0:
        return str(code)
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
