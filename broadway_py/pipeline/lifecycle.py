"""The life of a pipeline: setup, running, draining, teardown; and the calls that wait for its end."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from dataclasses import replace
from typing import Any, TypeVar

from broadway_py.errors import CalledInsideCallback, PipelineNotRunning
from broadway_py.foreign import foreign_errors
from broadway_py.pipeline.callbacks.definition import Callbacks
from broadway_py.pipeline.callbacks.threads import CallbackThreads
from broadway_py.pipeline.contexts import take_over
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.pipeline.runtime.drain import DrainReport
from broadway_py.pipeline.runtime.run import PipelineRun
from broadway_py.pipeline.stats import PipelineState
from broadway_py.stage import first_completed

__all__ = ["LifeCycle", "all_running"]

R = TypeVar("R")

_LAST_WORD_S = 0.1

_running: weakref.WeakSet[LifeCycle] = weakref.WeakSet()


def all_running() -> list[str]:
    """Returns the names of the pipelines that run in this process."""
    return sorted(one.name for one in list(_running) if one.is_running)


class LifeCycle:
    """The life cycle of one pipeline object, which runs once.

    Args:
        name: the pipeline's name.
        callbacks: the pipeline's callbacks; ``setup`` and ``teardown`` are called here.
        build: makes the stages after ``setup`` has run, with the threads in which plain callbacks run.
        publishers: what callbacks publish with. They live from before ``setup`` until after ``teardown``.
        let_publish: starts the publishers.
    """

    def __init__(
        self,
        name: str,
        callbacks: Callbacks,
        build: Callable[[CallbackThreads], PipelineRun],
        *,
        publishers: Publishers,
        let_publish: Callable[[], None],
    ) -> None:
        self.name = name
        #: The running stages; None before ``setup`` has ended.
        self.run: PipelineRun | None = None
        # The phase without the states that only the stages know (paused, draining): see :attr:`state`.
        self._phase: PipelineState = "new"
        self._callbacks = callbacks
        self._build = build
        self._publishers = publishers
        self._let_publish = let_publish
        self._root: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def state(self) -> PipelineState:
        """Returns the state of the pipeline."""
        if self.is_running and self.run is not None:
            if self.run.is_draining:
                return "draining"
            if self.run.gate.paused:
                return "paused"
        return self._phase

    @property
    def is_running(self) -> bool:
        """Returns True from the start of the stages to their end, also while they drain."""
        return self._phase == "running"

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The task in which ``setup``, the stages and ``teardown`` run; None before the start."""
        return self._root

    @property
    def is_over(self) -> bool:
        """Returns True once everything has ended, ``teardown`` included."""
        return self._root is not None and self._root.done()

    async def start(self) -> None:
        """Run ``setup``, then start the stages."""
        if self._phase != "new":
            raise PipelineNotRunning(f"pipeline {self.name!r} was started before; a pipeline runs once, make a new one")
        self._phase = "starting"
        self._loop = asyncio.get_running_loop()
        is_set_up: asyncio.Future[None] = self._loop.create_future()
        # This task is in no task group: stop() and __aexit__ wait for it.
        self._root = self._loop.create_task(self._main(is_set_up), name=f"{self.name}.pipeline")
        try:
            await asyncio.shield(is_set_up)
        except asyncio.CancelledError:
            self._root.cancel()
            await asyncio.wait({self._root})
            raise

    async def _main(self, is_set_up: asyncio.Future[None]) -> None:
        threads = CallbackThreads(self.name)
        try:
            run = await self._set_up(threads, is_set_up)
            if run is None:
                return
            _running.add(self)
            try:
                await run.run()
            finally:
                _running.discard(self)
                self._phase = "stopped" if run.crash is None else "crashed"
                await self._own_callback(threads, "teardown")
        finally:
            try:
                await self._publishers.close()
            finally:
                threads.close()

    async def _set_up(self, threads: CallbackThreads, is_set_up: asyncio.Future[None]) -> PipelineRun | None:
        """Run ``setup`` and build the stages. Returns None if that failed; the caller of ``start`` gets the error."""
        try:
            self._let_publish()
            await self._own_callback(threads, "setup")
            self.run = self._build(threads)
        except BaseException as error:
            # An error that the caller of start() gets is not raised here too. Ctrl-C and the end of the loop are.
            raised_in_setup = foreign_errors()
            self._phase = "stopped"
            stopped = isinstance(error, asyncio.CancelledError)
            try:
                await self._own_callback(threads, "teardown")
            finally:
                is_set_up.set_exception(
                    PipelineNotRunning(f"pipeline {self.name!r} was stopped during its setup") if stopped else error
                )
                # Marks the error as read: the caller of start() may be gone.
                is_set_up.exception()
            if stopped or isinstance(error, raised_in_setup):
                return None
            raise
        self._phase = "running"
        self.run.announce()
        is_set_up.set_result(None)
        return self.run

    async def _own_callback(self, threads: CallbackThreads, name: str) -> None:
        callback = getattr(self._callbacks, name)
        if callback is None:
            return
        if self._callbacks.is_async[name]:
            await callback()
            return
        # Context variables that it sets must be visible afterwards, as if it had run in this task.
        before = copy_context()
        context = before.copy()
        try:
            await threads.run(callback, context=context)
        finally:
            take_over(context, before)

    async def ready(self, timeout_s: float | None) -> None:
        """Wait until every producer is connected."""
        run = self.needs_run("ready")
        if not self.is_running:
            raise run.crash or PipelineNotRunning(f"ready(): {self.shown}")
        try:
            async with run.clock.timeout(timeout_s):
                await first_completed(_all_opened(run), self.ended())
            if not all(source.live.opened.is_set() for source in run.stages.sources):
                raise run.crash or PipelineNotRunning(f"pipeline {self.name!r} stopped before it was ready")
        except TimeoutError:
            away = next(source for source in run.stages.sources if not source.live.opened.is_set())
            raise TimeoutError(
                f"pipeline {self.name!r} was not ready within {timeout_s:g} s: "
                f"{away.ledger.producer}: {away.live.trouble}"
            ) from None

    async def stop(self, timeout_s: float | None) -> DrainReport:
        """Drain, and wait for the end. Returns the report of the drain."""
        if self._root is None:
            self._phase = "stopped"
        self.stop_wanted(timeout_s)
        await self.ended()
        return DrainReport({}, in_time=True) if self.run is None else self.run.drain.report()

    def request_stop(self) -> None:
        """Begin to drain. May be called from any thread."""
        if self._loop is not None:
            # If the loop has closed, nothing runs that could be stopped.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.stop_wanted)

    def stop_wanted(self, timeout_s: float | None = None) -> None:
        """Begin to drain. May be called only from the pipeline's own loop."""
        if self.run is not None:
            self.run.drain.request_stop(timeout_s)
        elif self._root is not None:
            # setup() still runs and may never return.
            self._root.cancel()

    def give_up(self) -> None:
        """Do the last steps of the drain now."""
        if self.run is not None:
            self.run.drain.give_up()
        elif self._root is not None:
            self._root.cancel()

    def kill(self) -> None:
        """Cancel everything, and run no ``teardown``, as if the process had died. For test kits.

        What the tasks still tell their sources must be ignored there.
        """
        self._callbacks = replace(self._callbacks, teardown=None)
        if self._root is not None:
            self._root.cancel()

    async def wait(self) -> None:
        """Wait for the end. Raises the error if the pipeline crashed."""
        run = self.needs_run("wait")
        await self.ended()
        if run.crash is not None:
            raise run.crash

    async def ended(self) -> None:
        """Wait for the end, whatever caused it."""
        if self._root is not None:
            await asyncio.wait({self._root})
            if not self._root.cancelled() and (error := self._root.exception()) is not None:
                raise error

    async def unless_ended(self, call: str, work: Coroutine[Any, Any, R]) -> R:
        """Run *work*, but do not wait for it longer than the pipeline lives. Returns its result.

        *call* is the name of the method that the user called.
        """
        doing = asyncio.ensure_future(work)
        try:
            await first_completed(doing, self.ended())
            if not doing.done():
                # The last settlements of the drain may reach *work* only now.
                await asyncio.wait({doing}, timeout=_LAST_WORD_S)
            if doing.done():
                return doing.result()
            raise PipelineNotRunning(f"{call}(): pipeline {self.name!r} ended before the outcome was known")
        finally:
            doing.cancel()

    @property
    def shown(self) -> str:
        """Returns the name and state of the pipeline for error texts."""
        return f"pipeline {self.name!r} is {self.state}"

    def needs_run(self, call: str) -> PipelineRun:
        """Returns the stages for *call*. Raises if there are none yet."""
        if self.run is None:
            raise PipelineNotRunning(f"{call}(): {self.shown}; start it first")
        return self.run

    def needs_running(self, call: str) -> PipelineRun:
        """Returns the stages for *call*. Raises before they run and after they have ended."""
        run = self.needs_run(call)
        if not self.is_running:
            raise PipelineNotRunning(f"{call}(): {self.shown}")
        return run

    def refuse_inside(self, call: str) -> None:
        """Raise if *call* comes from one of the pipeline's own tasks: it would wait for itself."""
        task = asyncio.current_task()
        if task is not None and (task is self._root or (self.run is not None and self.run.tasks.owns(task))):
            raise CalledInsideCallback(call)


async def _all_opened(run: PipelineRun) -> None:
    for source in run.stages.sources:
        await source.live.opened.wait()
