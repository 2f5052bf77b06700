"""Pipelines and their HTTP port in one event loop: start, watch over, drain."""

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

#: Tasks that a dump tells of: finding and writing them holds up the loop.
_MOST_TASKS: Final = 200


def quieten_collector() -> None:
    """Tell the garbage collector that what has been loaded stays, and to look less often.

    Messages come and go by reference counts; by default the collector would walk over every module and setting again
    after each 700 of them, which costs a fifth of the time per message.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class Service:
    """The body of a process that runs pipelines itself.

    One pipeline that crashes for good drains the others and ends the process with 1: whoever started it restarts it.

    Args:
        pipelines: built, not started.
        lag: measured while this runs.
        listening: held open while this runs, from before the first pipeline starts; None: nothing is.
        paused: names of pipelines that start paused; looked at when each has started.
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
        #: A pipeline's ``setup`` has raised.
        self.could_not_start = False

    @property
    def shutdown_timeout(self) -> float:
        """The longest of the pipelines': they drain side by side, under one deadline."""
        return max(pipeline.shutdown_timeout for pipeline in self._pipelines)

    @property
    def was_asked_to_stop(self) -> bool:
        """False when the pipelines ended by themselves."""
        return self._stop_asked

    async def run(self) -> int:
        """Run the pipelines until all have ended; the exit code.

        Raises:
            OptionsError: a pipeline, or the HTTP port, found a setting that is wrong; nothing runs any more.
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
        """Drain every pipeline."""
        self._stop_asked = True
        # Also those whose setup() still runs: it is cut off, for it may wait for something that never comes.
        for pipeline in self._pipelines:
            pipeline.request_stop()

    def give_up(self) -> None:
        """Cut every drain short."""
        self.stop()
        for pipeline in self._pipelines:
            pipeline.give_up()

    def log_state(self) -> None:
        """One log line per pipeline, and one per task of the loop."""
        for pipeline in self._pipelines:
            log.warning("state: pipeline", pipeline=pipeline.name, stats=repr(pipeline.stats()), **{ALL: True})
        tasks = asyncio.all_tasks()
        for task in islice(tasks, _MOST_TASKS):
            frames = [f"{f.f_code.co_filename}:{f.f_lineno} {f.f_code.co_name}" for f in task.get_stack(limit=20)]
            log.warning("state: task", task=task.get_name(), at=frames, **{ALL: True})
        if len(tasks) > _MOST_TASKS:
            log.warning("state: more tasks", tasks=len(tasks) - _MOST_TASKS)

    def abandon(self) -> None:
        """Nothing: worker processes of stages end with this one."""

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
            return  # stopped during its setup()
        except foreign_errors():
            # The others are drained: a pipeline that cannot start is a crash of the process.
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
            # A source that is away has its sentence; where its library noticed tells nobody anything.
            log.exception(
                "the pipeline crashed for good; stopping the others",
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
