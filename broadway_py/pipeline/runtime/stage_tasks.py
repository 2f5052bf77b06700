"""Runs the tasks of a pipeline's stages: one task per stage, started again after a crash, up to a limit."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from broadway_py._core.backoff import Backoff
from broadway_py._core.restarts import Restarts
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import PipelineCrashed
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Failed, Plain
from broadway_py.pipeline.stages.services import Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Wake, first_completed

__all__ = ["StageTasks"]

log = logger("broadway_py.pipeline")


class StageTasks:
    """The tasks of one pipeline's stages.

    Args:
        services: the services of the pipeline.
        restarts: says how often a crashed stage may be started again.
        stop_wanted: set when a stop was asked for.
        give_up: set here when a stage has crashed and is not started again.
    """

    def __init__(
        self, services: Services, restarts: Restarts, *, stop_wanted: asyncio.Event, give_up: asyncio.Event
    ) -> None:
        #: Why the pipeline crashed.
        self.crash: PipelineCrashed | None = None
        #: Set when a stage was started or has ended, or a stop is wanted. The pipeline's own task waits for it.
        self.changed = Wake()
        self._services = services
        self._restarts = restarts
        self._stop_wanted = stop_wanted
        self._give_up = give_up
        self._tasks: dict[asyncio.Task[Any], PipelineStage] = {}
        self._log = log.bind(pipeline=services.name)

    def __len__(self) -> int:
        return len(self._tasks)

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """Returns True if *task* is the task of a stage, in which callbacks run."""
        return task in self._tasks

    def start(self, stage: PipelineStage) -> None:
        """Start the task of *stage*. A stage may also join while the others run."""
        task = asyncio.get_running_loop().create_task(self._supervise(stage), name=stage.name)
        stage.call.task = task
        # Forget tasks that have ended without a crash: over months there may be many.
        ended = [known for known, of in self._tasks.items() if known.done() and self._crash_of(known, of) is None]
        for known in ended:
            del self._tasks[known]
        self._tasks[task] = stage
        task.add_done_callback(lambda _: self.changed.set())
        self.changed.set()

    def add(self, task: asyncio.Task[Any], stage: PipelineStage) -> None:
        """Count *task*, which was started elsewhere, as a task of *stage*."""
        self._tasks[task] = stage

    def pending(self) -> set[asyncio.Task[Any]]:
        """Returns the tasks that have not ended."""
        return {task for task in self._tasks if not task.done()}

    def layer_of(self, task: asyncio.Task[Any]) -> str:
        """Returns the layer of the stage that *task* belongs to."""
        return self._tasks[task].layer

    def look_for_crash(self) -> None:
        """If a task has crashed, store the first crash in :attr:`crash`."""
        for task, stage in self._tasks.items():
            if self.crash is None and task.done():
                self.crash = self._crash_of(task, stage)

    async def _supervise(self, stage: PipelineStage) -> None:
        """Run *stage*. After a crash, the messages it was working on fail and it is started again."""
        backoff = Backoff(first_s=0.1, most_s=5.0)
        while True:
            try:
                await stage.run()
            except PipelineCrashed:
                raise
            except foreign_errors(cancellations=True) as error:
                if isinstance(error, asyncio.CancelledError) and (stage.call.cut or _is_being_cancelled()):
                    raise
                lost = list(stage.held)
                # The text of the error is left out: it may quote a payload or a password.
                self._log.error(
                    "a stage crashed",
                    stage=stage.layer,
                    index=stage.index,
                    messages=len(lost),
                    exception=name_of(error),
                    at=place_of(error),
                )
                for message in lost:
                    message.status = Failed("crashed", Plain(f"{stage.layer} crashed: {name_of(error)}"), error)
                stage.meter.failed["crashed"] += len(lost)
                await self._services.settler.settle(
                    (), lost, decided=partial(self._services.failures.note_crash, stage.layer, lost)
                )
                stage.reset_after_crash()
                if not self._restarts.crashed(self._services.clock.monotonic()):
                    if stage.journal is not None:
                        stage.journal.blame()
                    # A drain must not wait for a stage that is gone.
                    self._give_up.set()
                    raise PipelineCrashed(
                        f"pipeline {self._services.name!r}: {stage.layer} crashed too often "
                        f"({type(error).__name__}: see the log); raise max_restarts if this is expected"
                    ) from error
                await self._sleep_unless_stopped(backoff.failed())
            else:
                if stage.process is not None:
                    await stage.process.close()
                return

    async def _sleep_unless_stopped(self, seconds: float) -> None:
        await first_completed(self._stop_wanted.wait(), self._services.clock.sleep(seconds))

    def _crash_of(self, task: asyncio.Task[Any], stage: PipelineStage) -> PipelineCrashed | None:
        if task.cancelled():
            if stage.call.cut:
                return None
            return PipelineCrashed(f"pipeline {self._services.name!r}: {stage.layer} was cancelled from outside")
        error = task.exception()
        if error is None or isinstance(error, PipelineCrashed):
            return error
        crash = PipelineCrashed(f"pipeline {self._services.name!r}: {type(error).__name__} in {stage.layer}")
        crash.__cause__ = error
        return crash


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
