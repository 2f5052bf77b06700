"""Starts, watches, drains and reloads the pipelines and their HTTP port in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import islice
from typing import Any, Final

from broadway_py.daemon.pipelines.roster import Roster
from broadway_py.daemon.process.collector import quieten_collector
from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.daemon.process.service_manager import service_manager, status_of
from broadway_py.daemon.reload.outcome import Reloaded
from broadway_py.daemon.reload.turns import ReloadTurns
from broadway_py.error_text import name_of, text_of
from broadway_py.errors import OptionsError, PipelineCrashed, PipelineNotRunning, ProducerError
from broadway_py.foreign import foreign_errors
from broadway_py.log import ALL, logger
from broadway_py.pipeline import Pipeline

__all__ = ["Reload", "Service"]

log = logger("broadway_py.daemon")

#: The most tasks that a dump logs: finding and writing them blocks the loop.
_MOST_TASKS: Final = 200

# In seconds: how long a pipeline is watched that was started for a trial, and how long past its deadline a pipeline may
# take to drain for a reload. It drains by its deadline, unless its own code keeps it from ending.
_TRIAL: Final = 10.0
_PATIENCE: Final = 5.0

_NO_SETTINGS: Final = Reloaded(
    refused=("the pipelines were given to broadway_py.run(), so there are no settings to read again",)
)


#: Carries out one reload of a service.
Reload = Callable[["Service"], Awaitable[Reloaded]]


class Service:
    """The body of a process that runs pipelines itself.

    When one pipeline crashes for good, the others are drained and the process ends with 1. The program that started it
    then restarts it.

    Args:
        roster: the pipelines, built but not started. A reload changes it.
        lag: the meter that runs while the pipelines run.
        listening: a context that is open while this runs. It is entered before the first pipeline starts. None: there
            is none.
        reload: carries out a reload of this service. None: the pipelines do not come from settings.
        reloads: the turns of the reloads. Others may ask there for one.
    """

    def __init__(
        self,
        roster: Roster,
        lag: LagMeter,
        *,
        listening: AbstractAsyncContextManager[object] | None = None,
        reload: Reload | None = None,
        reloads: ReloadTurns | None = None,
    ) -> None:
        self.roster = roster
        #: Set once the pipelines must end.
        self.stopping = asyncio.Event()
        self._reload = reload
        self._reloads = ReloadTurns() if reloads is None else reloads
        self._listening = listening
        self._code: int = ExitCode.CLEAN
        self._wrong: OptionsError | None = None
        self._lag = lag
        # How many of the first pipelines have not started yet.
        self._unstarted = 0
        self._group = asyncio.TaskGroup()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        # The names of pipelines that are drained for a reload. Their end says nothing about the process.
        self._leaving: set[str] = set()
        #: True if a pipeline could not start, because its ``setup`` raised for example.
        self.could_not_start = False

    @property
    def shutdown_timeout(self) -> float:
        """The longest timeout of the pipelines: they drain at the same time, under one deadline."""
        return max(pipeline.shutdown_timeout for pipeline in list(self.roster.pipelines.values()))

    @property
    def was_asked_to_stop(self) -> bool:
        """False if the pipelines ended by themselves."""
        return self.stopping.is_set()

    async def run(self) -> int:
        """Runs the pipelines until all have ended. Returns the exit code.

        Raises:
            OptionsError: a pipeline or the HTTP port found a setting that is wrong. Nothing runs any more.
        """
        quieten_collector()
        self._lag.start()
        try:
            with service_manager().watchdog(lambda: status_of(self.roster.stats())):
                async with self._listening or nullcontext(), self._group:
                    self._unstarted = len(self.roster.pipelines)
                    for pipeline in self.roster.pipelines.values():
                        self._spawn(pipeline, self._run_one(pipeline))
                    self._reloads.begin(self._carry_out_reload, self._group.create_task)
        finally:
            self._reloads.end()
            self._lag.stop()
        if self._wrong is not None:
            raise self._wrong
        return self._code

    def stop(self) -> None:
        """Drains every pipeline."""
        self.stopping.set()
        service_manager().stopping()
        self._reloads.end()
        # Pipelines whose setup() still runs are stopped too: it is cut off, because it may wait for something that
        # never comes.
        for pipeline in self.roster.pipelines.values():
            pipeline.request_stop()

    def give_up(self) -> None:
        """Cuts every drain short."""
        self.stop()
        for pipeline in self.roster.pipelines.values():
            pipeline.give_up()

    def reload(self) -> None:
        """Reads the settings again, and applies what has changed."""
        self._reloads.ask()

    def log_state(self) -> None:
        """Logs one line per pipeline and one per task of the loop."""
        for pipeline in self.roster.pipelines.values():
            log.warning("state: pipeline", pipeline=pipeline.name, stats=repr(pipeline.stats()), **{ALL: True})
        tasks = asyncio.all_tasks()
        for task in islice(tasks, _MOST_TASKS):
            frames = [f"{f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_name}" for f in task.get_stack(limit=20)]
            log.warning("state: task", task=task.get_name(), at=frames, **{ALL: True})
        if len(tasks) > _MOST_TASKS:
            log.warning("state: more tasks", tasks=len(tasks) - _MOST_TASKS)

    def abandon(self) -> None:
        """Does nothing: worker processes of stages end with this process."""

    # --- for reloads

    async def drain(self, pipeline: Pipeline[Any]) -> None:
        """Drains *pipeline*, while the others run on. Returns when it has ended, or the process must end."""
        self._leaving.add(pipeline.name)
        pipeline.request_stop()
        task = self._tasks.pop(pipeline.name, None)
        if task is None:  # it could not start
            return
        await asyncio.wait({task}, timeout=pipeline.shutdown_timeout + _PATIENCE)
        if not task.done():
            log.error("the pipeline does not end, so another cannot take its place", pipeline=pipeline.name)
            self.crash()
            return
        self._leaving.discard(pipeline.name)

    async def try_out(self, pipeline: Pipeline[Any]) -> str | None:
        """Starts *pipeline*. Returns why it cannot run, in words, and then it has ended; None: it runs.

        It is watched until it is connected, but not for longer than some seconds.
        """
        try:
            if not await self._start(pipeline):
                return None
        except OptionsError as wrong:
            return text_of(wrong)
        except foreign_errors() as failed:
            log.exception("the pipeline cannot start", pipeline=pipeline.name)
            return f"its start raised {name_of(failed)}"
        try:
            await pipeline.ready(_TRIAL)
        except PipelineCrashed as crash:
            await pipeline.stop()
            return text_of(crash)
        except (TimeoutError, PipelineNotRunning):
            pass  # its source is away, has ended, or the process must end
        self._tasks[pipeline.name] = self._group.create_task(
            self._until_ended(pipeline), name=f"pipeline {pipeline.name}"
        )
        return None

    def crash(self) -> None:
        """Drains every pipeline, and lets the process end with the exit code of a crash."""
        if self._code == ExitCode.CLEAN:
            self._code = ExitCode.CRASH
        self.stop()

    async def _carry_out_reload(self) -> Reloaded:
        return _NO_SETTINGS if self._reload is None else await self._reload(self)

    # --- one pipeline

    def _spawn(self, pipeline: Pipeline[Any], work: Coroutine[Any, Any, None]) -> None:
        self._tasks[pipeline.name] = self._group.create_task(work, name=f"pipeline {pipeline.name}")

    async def _run_one(self, pipeline: Pipeline[Any]) -> None:
        try:
            runs = await self._start(pipeline)
        except OptionsError as wrong:
            self._wrong = self._wrong or wrong
            self.stop()
            return
        except foreign_errors():
            # A pipeline that cannot start is a crash of the process, so the others are drained.
            log.exception("the pipeline cannot start", pipeline=pipeline.name)
            self.could_not_start = True
            self.crash()
            return
        self._unstarted -= 1
        if self._unstarted == 0:
            # A source that is away does not hold up the start: it is connected to as soon as it is there.
            service_manager().ready()
        if runs:
            await self._until_ended(pipeline)

    async def _start(self, pipeline: Pipeline[Any]) -> bool:
        """Starts *pipeline*. Returns False if it was stopped before it ran."""
        if self._must_end(pipeline):
            return False
        try:
            await pipeline.start()
        except PipelineNotRunning:
            return False  # it was stopped during its setup()
        if self._must_end(pipeline):  # since its setup() ran
            pipeline.request_stop()
        elif pipeline.name in self.roster.paused:
            await pipeline.pause()
        return True

    def _must_end(self, pipeline: Pipeline[Any]) -> bool:
        return self.was_asked_to_stop or pipeline.name in self._leaving

    async def _until_ended(self, pipeline: Pipeline[Any]) -> None:
        try:
            await pipeline.wait()
        except PipelineCrashed as crash:
            # If the source cannot be reached, its error text says enough. The traceback only shows where its library
            # noticed.
            is_leaving = self._is_leaving(pipeline)
            log.exception(
                "the pipeline crashed while it was drained for a reload"
                if is_leaving
                else "the pipeline crashed and does not restart; stopping the others",
                pipeline=pipeline.name,
                reason=text_of(crash),
                exc_info=not isinstance(crash.__cause__, ProducerError),
            )
            if not is_leaving:
                self.crash()
        report = await pipeline.stop()
        log.info("drained", pipeline=pipeline.name, in_time=report.in_time, outcomes=dict(report.outcomes))
        # What is left after a late drain for a reload is with the broker again, and the process goes on.
        if not report.in_time and not self._is_leaving(pipeline):
            self._code = ExitCode.LATE

    def _is_leaving(self, pipeline: Pipeline[Any]) -> bool:
        return pipeline.name in self._leaving and not self.was_asked_to_stop
