"""Starts, watches and drains the pipelines and their HTTP port in one event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from itertools import islice
from typing import Any, Final

from broadway_py.daemon.process.loop_lag import LagMeter
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.error_text import text_of
from broadway_py.errors import OptionsError, PipelineCrashed, PipelineNotRunning, ProducerError
from broadway_py.foreign import foreign_errors
from broadway_py.log import ALL, logger
from broadway_py.pipeline import Pipeline

__all__ = ["Service", "quieten_collector"]

log = logger("broadway_py.daemon")

#: The most tasks that a dump logs: finding and writing them blocks the loop.
_MOST_TASKS: Final = 200


def quieten_collector() -> None:
    """Makes the garbage collector run less often and leave out the objects that exist now.

    Messages are freed by their reference counts. By default the collector would walk over every module and setting
    again after each 700 messages, which costs a fifth of the time per message. It looks at new objects in portions of
    some thousand, so that the event loop is held for some milliseconds only. It looks at all objects, with all open
    windows, only after some 20 million were made and kept: with a million keys this takes some tenths of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 3, 1_300)


class Service:
    """The body of a process that runs pipelines itself.

    When one pipeline crashes for good, the others are drained and the process ends with 1. The program that started it
    then restarts it.

    Args:
        pipelines: the pipelines, built but not started.
        lag: the meter that runs while the pipelines run.
        listening: a context that is open while this runs. It is entered before the first pipeline starts. None: there
            is none.
        paused: names of pipelines that start paused. It is read when each pipeline has started.
    """

    def __init__(
        self,
        pipelines: Sequence[Pipeline[Any]],
        lag: LagMeter,
        *,
        listening: AbstractAsyncContextManager[object] | None = None,
        paused: Collection[str] = (),
    ) -> None:
        self._pipelines = pipelines
        self._listening = listening
        self._paused = paused
        self._stop_asked = False
        self._code: int = ExitCode.CLEAN
        self._wrong: OptionsError | None = None
        self._lag = lag
        #: True if a pipeline could not start, because its ``setup`` raised for example.
        self.could_not_start = False

    @property
    def shutdown_timeout(self) -> float:
        """The longest timeout of the pipelines: they drain at the same time, under one deadline."""
        return max(pipeline.shutdown_timeout for pipeline in self._pipelines)

    @property
    def was_asked_to_stop(self) -> bool:
        """False if the pipelines ended by themselves."""
        return self._stop_asked

    async def run(self) -> int:
        """Runs the pipelines until all have ended. Returns the exit code.

        Raises:
            OptionsError: a pipeline or the HTTP port found a setting that is wrong. Nothing runs any more.
        """
        quieten_collector()
        self._lag.start()
        try:
            async with self._listening or nullcontext(), asyncio.TaskGroup() as tasks:
                for pipeline in self._pipelines:
                    tasks.create_task(self._run_one(pipeline), name=f"pipeline {pipeline.name}")
        finally:
            self._lag.stop()
        if self._wrong is not None:
            raise self._wrong
        return self._code

    def stop(self) -> None:
        """Drains every pipeline."""
        self._stop_asked = True
        # Pipelines whose setup() still runs are stopped too: it is cut off, because it may wait for something that
        # never comes.
        for pipeline in self._pipelines:
            pipeline.request_stop()

    def give_up(self) -> None:
        """Cuts every drain short."""
        self.stop()
        for pipeline in self._pipelines:
            pipeline.give_up()

    def log_state(self) -> None:
        """Logs one line per pipeline and one per task of the loop."""
        for pipeline in self._pipelines:
            log.warning("state: pipeline", pipeline=pipeline.name, stats=repr(pipeline.stats()), **{ALL: True})
        tasks = asyncio.all_tasks()
        for task in islice(tasks, _MOST_TASKS):
            frames = [f"{f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_name}" for f in task.get_stack(limit=20)]
            log.warning("state: task", task=task.get_name(), at=frames, **{ALL: True})
        if len(tasks) > _MOST_TASKS:
            log.warning("state: more tasks", tasks=len(tasks) - _MOST_TASKS)

    def abandon(self) -> None:
        """Does nothing: worker processes of stages end with this process."""

    async def _run_one(self, pipeline: Pipeline[Any]) -> None:
        if self.was_asked_to_stop:
            return
        try:
            await pipeline.start()
        except OptionsError as wrong:
            self._wrong = self._wrong or wrong
            self.stop()
            return
        except PipelineNotRunning:
            return  # it was stopped during its setup()
        except foreign_errors():
            # A pipeline that cannot start is a crash of the process, so the others are drained.
            log.exception("the pipeline cannot start", pipeline=pipeline.name)
            self.could_not_start = True
            self._crashed()
            return
        await self._begin(pipeline)
        await self._until_ended(pipeline)

    async def _begin(self, pipeline: Pipeline[Any]) -> None:
        if self.was_asked_to_stop:  # while its setup() ran
            pipeline.request_stop()
        elif pipeline.name in self._paused:
            await pipeline.pause()

    async def _until_ended(self, pipeline: Pipeline[Any]) -> None:
        try:
            await pipeline.wait()
        except PipelineCrashed as crash:
            # If the source cannot be reached, its error text says enough. The traceback only shows where its library
            # noticed.
            log.exception(
                "the pipeline crashed and does not restart; stopping the others",
                pipeline=pipeline.name,
                reason=text_of(crash),
                exc_info=not isinstance(crash.__cause__, ProducerError),
            )
            self._crashed()
        report = await pipeline.stop()
        log.info("drained", pipeline=pipeline.name, in_time=report.in_time, outcomes=dict(report.outcomes))
        if not report.in_time:
            self._code = ExitCode.LATE

    def _crashed(self) -> None:
        if self._code == ExitCode.CLEAN:
            self._code = ExitCode.CRASH
        self.stop()
