"""Runs several worker processes as one: starts, restarts, asks and drains them under one deadline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import count
from typing import Any, Final, Literal

from prometheus_client import REGISTRY
from prometheus_client.core import Metric

from broadway_py._core.backoff import Backoff
from broadway_py._core.exits import exit_text
from broadway_py.daemon.http.server import serve
from broadway_py.daemon.http.view import Told
from broadway_py.daemon.logs.logs import dropped_lines
from broadway_py.daemon.pipelines.owners import Owners, owners_of, partitions_text
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.daemon.settings.settings import Settings
from broadway_py.daemon.workers.merge_reports import (
    depart_metrics,
    label_worker,
    merge_metrics,
    merge_stats,
    retire,
    speaks_of_process,
)
from broadway_py.daemon.workers.messages import Act, Assignment, Command
from broadway_py.daemon.workers.poison_verdicts import PoisonVerdicts
from broadway_py.daemon.workers.worker_handle import WorkerHandle
from broadway_py.errors import OptionsError
from broadway_py.log import ALL, logger
from broadway_py.metrics import log_metrics, pipeline_metrics, process_metrics
from broadway_py.pipeline import Pipeline
from broadway_py.pipeline.runtime.topology import topology_of
from broadway_py.pipeline.stats import PipelineStats

__all__ = ["GRACE", "Supervisor"]

log = logger("broadway_py.daemon")

#: Seconds after the deadline at which the supervisor itself ends. Workers end or are killed before that.
GRACE: Final = 1.8
_KILL_AFTER: Final = 1.4

# In seconds: how long a scrape waits for new numbers, how long a command may take, and the silence of a worker at which
# /livez fails.
_FRESH: Final = 0.3
_CARRIED_OUT: Final = 10.0
_SILENT: Final = 10.0
# Seconds of silence after which a scrape does not wait for a worker any more. Each worker reports every second.
_LATE: Final = 2.5
# Seconds that a worker may take to import and build its pipelines before /livez fails.
_STARTING: Final = 60.0


class Supervisor:
    """The body of a process whose pipelines run in workers. It is also the view for the HTTP port.

    Args:
        settings: the checked settings.
        pipelines: built from *settings* and never started. Only their names, stages and timeouts are used.
    """

    def __init__(self, settings: Settings, pipelines: Sequence[Pipeline[Any]]) -> None:
        self._settings = settings
        self._pipelines = {pipeline.name: pipeline for pipeline in pipelines}
        self._owners = owners_of(pipelines, settings.workers)
        self._handles: dict[int, WorkerHandle] = {}
        # When each worker that does not run now was last heard of.
        self._last_words: dict[int, float] = {}
        # Why workers that should run do not run.
        self._absent: dict[int, str] = {}
        # Workers whose sources have ended and that will not run again.
        self._ended: set[int] = set()
        self._restarts = 0
        self._paused: set[str] = set()
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._numbers = count(1)
        self._code: int = ExitCode.CLEAN
        self._wrong: OptionsError | None = None
        self._lag = LagMeter()
        self._verdicts = PoisonVerdicts(settings.workers)
        # What is kept of workers that are gone. It begins with zeros, so that every series exists from the start.
        self._gone = {name: retire(one.stats(), state="starting") for name, one in self._pipelines.items()}
        self._gone_metrics: list[Metric] = []

    @property
    def shutdown_timeout(self) -> float:
        """The longest timeout of the pipelines."""
        return max(pipeline.shutdown_timeout for pipeline in self._pipelines.values())

    async def run(self) -> int:
        """Keeps the workers running until all have ended by themselves or on request. Returns the worst exit code.

        Raises:
            OptionsError: a worker or the HTTP port found a setting that is wrong. No worker runs any more.
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
            for handle in self._handles.values():
                handle.kill()
            self._verdicts.close()
        if self._wrong is not None:
            raise self._wrong
        return self._code

    def stop(self) -> None:
        """Drains all workers at once. Kills those that are left after the deadline."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._ask_all("stop")
        for handle in self._handles.values():
            if handle.report is None:
                handle.terminate()
        self._kill_in(self.shutdown_timeout + _KILL_AFTER)

    def give_up(self) -> None:
        """Tells all workers to do their last steps at once."""
        self.stop()
        self._ask_all("now")
        self._kill_in(_KILL_AFTER)

    def log_state(self) -> None:
        """Logs one line per worker and per pipeline. The workers add their own lines."""
        for index, handle in self._handles.items():
            log.warning("state: worker", index=index, pid=handle.pid, **{ALL: True})
        for one in self.stats():
            log.warning("state: pipeline", pipeline=one.name, stats=repr(one), **{ALL: True})
        self._ask_all("dump")

    def abandon(self) -> None:
        """Kills the workers, because no supervisor will be left to command them."""
        for handle in list(self._handles.values()):
            handle.kill()

    # --- keeping workers alive

    async def _keep(self, index: int) -> None:
        deaths = Backoff(first_s=1.0, most_s=30.0, healthy_s=60.0)
        refusals = Backoff(first_s=1.0, most_s=15.0)
        while not self._stopping.is_set():
            try:
                handle = self._handles[index] = WorkerHandle(
                    self._assignment(index), self._note_change, self._verdicts.descriptor
                )
            except (OSError, MemoryError) as failed:
                # Most likely there are no free descriptors, memory or processes. There may be some later.
                delay = refusals.failed()
                self._note_refusal(index, failed, delay)
                await self._sleep(delay)
                continue
            refusals = Backoff(first_s=1.0, most_s=15.0)
            self._absent.pop(index, None)
            log.info("worker started", index=index, pid=handle.pid)
            code = await handle.exited()
            del self._handles[index]
            self._last_words[index] = handle.heard_at
            ended = handle.final is not None and handle.final.ended and code == ExitCode.CLEAN
            self._keep_numbers(handle, restarts=not ended)
            if handle.refused is not None:
                self._wrong = self._wrong or OptionsError((), handle.refused)
                self.stop()
                return
            if ended:
                self._ended.add(index)
                return
            if handle.final is not None and not handle.final.started and not self._stopping.is_set():
                # The process ends as it does with one worker. The program that started the daemon sees the exit code
                # and starts it again.
                log.error("a worker could not start its pipelines; stopping the others", index=index)
                self._code = ExitCode.CRASH
                self.stop()
                return
            if self._stopping.is_set():
                self._note_exit(handle, code)
                return
            suspects = self._verdicts.died(index, code, handle.peak_kib)
            delay = deaths.failed(asyncio.get_running_loop().time() - handle.started_at)
            self._absent[index] = f"it has died ({exit_text(code)}) and is started again"
            log.error(
                "worker died; starting it again",
                index=index,
                exit=exit_text(code),
                suspects=suspects,
                seconds=round(delay, 3),
            )
            await self._sleep(delay)
            self._restarts += not self._stopping.is_set()

    async def _sleep(self, seconds: float) -> None:
        """Waits for *seconds*, or until the stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _note_refusal(self, index: int, failed: OSError | MemoryError, delay: float) -> None:
        reason = "out of memory" if isinstance(failed, MemoryError) else failed.strerror or str(failed)
        self._absent[index] = f"it cannot be started for now: {reason}"
        log.error("a worker cannot be started; trying again", index=index, reason=reason, seconds=round(delay, 3))

    def _assignment(self, index: int) -> Assignment:
        return Assignment(
            settings=self._settings,
            index=index,
            workers=self._settings.workers,
            paused=frozenset(self._paused),
            search_path=tuple(sys.path),
        )

    def _note_exit(self, handle: WorkerHandle, code: int) -> None:
        if code == ExitCode.CLEAN:
            return
        log.error("worker did not end cleanly", index=handle.index, exit=exit_text(code))
        late = code == ExitCode.LATE or handle.was_killed
        self._code = ExitCode.LATE if late or self._code == ExitCode.LATE else ExitCode.CRASH

    def _keep_numbers(self, handle: WorkerHandle, *, restarts: bool) -> None:
        if handle.report is None:
            return
        state: Any = "starting" if restarts and not self._stopping.is_set() else "stopped"
        for name, last in handle.report.pipelines.items():
            self._gone[name] = merge_stats([], [retire(last, state=state), self._gone[name]])
        self._gone_metrics = merge_metrics([self._gone_metrics, depart_metrics(handle.report.metrics)])

    def _ask_all(self, act: Act) -> None:
        for handle in self._handles.values():
            handle.ask(act)

    def _kill_in(self, seconds: float) -> None:
        def kill() -> None:
            self.abandon()
            for index, handle in self._handles.items():
                log.error("worker did not end in time; killing it", index=index, pid=handle.pid)

        asyncio.get_running_loop().call_later(seconds, kill)

    def _note_change(self) -> None:
        self._verdicts.forget_cleared()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _until(self, is_done: Callable[[WorkerHandle], bool], seconds: float) -> None:
        """Waits until *is_done* is true for every running worker, but at most *seconds*."""
        handles = list(self._handles.values())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not all(is_done(handle) for handle in handles):
                    await self._changed.wait()

    # --- what the HTTP port shows and does

    async def refresh(self) -> None:
        """Asks every worker for a report. A report that does not come in time is at most a second old.

        A silent worker is not waited for.
        """
        number = next(self._numbers)
        for handle in self._handles.values():
            handle.ask_for_report(number)
        await self._until(lambda handle: handle.has_reported(number) or self._silence(handle) > _LATE, _FRESH)

    def stats(self) -> Sequence[PipelineStats]:
        """Returns one merged snapshot per pipeline."""
        return [
            merge_stats(
                [handle.report.pipelines[name] for handle in self._handles.values() if handle.report],
                [self._gone[name]],
            )
            for name in self._pipelines
        ]

    def topologies(self) -> Mapping[str, Mapping[str, Any]]:
        """Returns the stages of each pipeline as a worker has them, with the readers of all workers."""
        return {
            name: topology_of(
                name,
                pipeline._sources.producers_of_daemon,
                pipeline.processors,
                pipeline.batchers,
                pipeline.aggregators,
            )
            for name, pipeline in self._pipelines.items()
        }

    def owners(self) -> Owners:
        """Returns which worker owns which partitions, of each pipeline whose sources are parted."""
        return self._owners

    def metrics(self) -> Iterator[Metric]:
        """Yields our metrics, then the workers' default registries added up, with a label on metrics of one process."""
        reports = {str(index): handle.report for index, handle in self._handles.items() if handle.report is not None}
        yield from pipeline_metrics(self.stats())
        lags = {"supervisor": self._lag.seconds, **{index: one.lag_seconds for index, one in reports.items()}}
        yield from process_metrics(lags, self._restarts, self._silences())
        own = [label_worker(family, "supervisor") for family in REGISTRY.collect() if speaks_of_process(family)]
        own += log_metrics(dropped_lines())
        theirs = [[label_worker(family, index) for family in one.metrics] for index, one in reports.items()]
        yield from merge_metrics([own, self._gone_metrics, *theirs])

    def _silence(self, handle: WorkerHandle) -> float:
        return asyncio.get_running_loop().time() - handle.heard_at

    def _silences(self) -> dict[str, float]:
        """Returns the seconds since each worker was heard of, without workers whose sources have ended."""
        now = asyncio.get_running_loop().time()
        heard = {**self._last_words, **{index: handle.heard_at for index, handle in self._handles.items()}}
        return {str(index): now - heard[index] for index in sorted(heard) if index not in self._ended}

    def _is_silent(self, handle: WorkerHandle) -> bool:
        return self._silence(handle) > (_SILENT if handle.report is not None else _STARTING)

    def not_alive(self) -> Sequence[str]:
        """Returns the workers that are silent for ten seconds, or for sixty if they have sent no report yet."""
        return [
            f"worker {index} has not answered for {self._silence(handle):.0f} s"
            for index, handle in self._handles.items()
            if self._is_silent(handle)
        ]

    def not_ready(self) -> Mapping[str, Sequence[str]]:
        """Returns, by pipeline, the reasons of each worker that is not ready."""
        return {name: [*self._reasons(name)] for name in self._pipelines}

    def _reasons(self, name: str) -> Iterator[str]:
        for index in range(self._settings.workers):
            handle = self._handles.get(index)
            worker = f"worker {index}"
            if name in self._owners:
                # Nobody else takes them over.
                worker += f" ({partitions_text(self._owners[name][index])})"
            if handle is None and index in self._absent:
                yield f"{worker}: {self._absent[index]}"
            elif handle is not None and self._is_silent(handle):
                yield f"{worker}: it has not answered for {self._silence(handle):.0f} s"
            elif handle is None or handle.report is None:
                state = self._gone[name].state
                yield f"{worker}: {state}"
            elif (trouble := handle.report.pipelines[name].trouble) is not None:
                yield f"{worker}: {trouble}"

    async def pause(self, pipeline: str) -> Told:
        """Pauses *pipeline* in every worker, also in those that start later."""
        self._paused.add(pipeline)
        return await self._carry_out("pause", pipeline)

    async def resume(self, pipeline: str) -> Told:
        """Resumes *pipeline* in every worker."""
        self._paused.discard(pipeline)
        return await self._carry_out("resume", pipeline)

    async def _carry_out(self, act: Literal["pause", "resume"], pipeline: str) -> Told:
        number = next(self._numbers)
        handles = dict(self._handles)
        for handle in handles.values():
            handle.control(Command(act, number, pipeline))
        await self._until(lambda handle: handle.has_answered(number) or self._is_silent(handle), _CARRIED_OUT)
        not_heard: dict[int, str] = {}
        for index in range(self._settings.workers):
            reason = None if index in self._ended else self._why_not(handles.get(index), number, act)
            if reason is not None:
                not_heard[index] = reason
        await self.refresh()
        return Told([index for index in range(self._settings.workers) if index not in not_heard], not_heard)

    def _why_not(self, handle: WorkerHandle | None, number: int, act: Literal["pause", "resume"]) -> str | None:
        """Returns why *handle* has not carried out the control of *number*, or None if it has."""
        will_start = f"it will start {'paused' if act == 'pause' else 'running'}"
        if handle is None:
            return f"it does not run now; {will_start}"
        if handle.has_answered(number):
            refusal = handle.refusal(number)
            return f"{refusal}; {will_start}" if refusal is not None and handle.has_ended else refusal
        if handle.report is None:
            return "it is still starting; it will do so once it runs"
        return f"it has not answered for {self._silence(handle):.0f} s; it will do so once it answers"
