"""Worker processes for plain ``def`` callbacks that compute. Each stage has one and sends it chunks or batches."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from broadway_py._core.backoff import Backoff
from broadway_py._core.exits import exit_text
from broadway_py.clock import Clock
from broadway_py.error_text import name_of, place_of, text_of
from broadway_py.errors import OptionsError, Unavailable, gathered
from broadway_py.log import logger
from broadway_py.message import Failed, Message
from broadway_py.options import Batcher, Processors
from broadway_py.pipeline.processes.child import serve
from broadway_py.pipeline.processes.jobs import ChunkJob, Job
from broadway_py.pipeline.processes.protocol import Kind, Recipe
from broadway_py.process.frames import Frame, dumps
from broadway_py.process.packed_errors import PackedError, unpack_error
from broadway_py.process.worker_process import WorkerProcess
from broadway_py.stage import Wake

__all__ = ["CallbackProcess", "CallbackProcesses", "layers_in_processes"]

log = logger("broadway_py.pipeline")

#: Seconds that a worker process may take to end after it was asked to; then it is killed. This is real time, not the
#: time of the pipeline's clock.
_END_S: Final = 1.0


def layers_in_processes(pipeline: object, processors: Processors, batchers: Mapping[str, Batcher]) -> frozenset[str]:
    """Returns the names of the layers whose callbacks are to run in worker processes.

    Raises:
        OptionsError: a callback cannot run there; the text says why, and what to do.
    """
    layers: set[str] = set()
    wrong: list[OptionsError] = []
    if processors.executor == "process":
        layers.add("processors")
        with gathered(wrong):
            _check(pipeline, "handle_message", ("processors", "executor"))
    for key, batcher in batchers.items():
        if batcher.executor == "process":
            layers.add(f"batch_processors:{key}")
            with gathered(wrong):
                _check(pipeline, "handle_batch", ("batchers", key, "executor"))
    if wrong:
        raise OptionsError.of(wrong)
    return frozenset(layers)


def _check(pipeline: object, callback: str, path: Sequence[str]) -> None:
    cls = type(pipeline)
    for name in (callback, "setup_worker"):
        if inspect.iscoroutinefunction(getattr(pipeline, name, None)):
            raise OptionsError(
                path,
                f"'process' takes plain functions, and {cls.__qualname__}.{name} is async; "
                f"write `def {name}`, or leave the executor out",
            )
    problem = _import_problem(cls)
    if problem is not None:
        raise OptionsError(path, f"'process' needs a class that a worker process can import, and {problem}")


def _import_problem(cls: type) -> str | None:
    name = f"{cls.__module__}.{cls.__qualname__}"
    if cls.__module__ == "__main__":
        return f"{cls.__qualname__} is defined in the program that was started; move it to a module that it imports"
    if "<locals>" in cls.__qualname__:
        return f"{name} is defined inside a function; define it at the top of its module"
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not cls:
        return f"{name} is not the class that is found under this name; give it a name of its own in its module"
    return None


class CallbackProcesses:
    """Makes the worker processes of one pipeline's stages. Create it after ``setup`` has run.

    Args:
        pipeline: the pipeline. Each worker process gets an object of its class, with its name and context.
        layers: names of the layers whose stages need a worker process.
        request_stop: called when a callback calls ``self.request_stop()``.

    Raises:
        OptionsError: the context cannot be pickled.
    """

    def __init__(self, pipeline: Any, layers: frozenset[str], request_stop: Callable[[], None]) -> None:
        cls, context = type(pipeline), pipeline.context
        try:
            packed = dumps(context)
        except Exception as error:
            raise OptionsError(
                ("context",),
                f"expected something that can be pickled, for executor='process', got {type(context).__name__}: "
                f"{name_of(error)}: {text_of(error)}; make in setup_worker() what cannot be sent to a worker process",
            ) from error
        self._recipe = Recipe(cls.__module__, cls.__qualname__, pipeline.name, packed, tracing=pipeline.tracing)
        self._clock: Clock = pipeline.clock
        self._layers = layers
        self._request_stop = request_stop

    def make(self, layer: str, stage: str, timeout_s: float | None) -> CallbackProcess | None:
        """Returns the worker process of *stage*; None if its layer has none."""
        if layer not in self._layers:
            return None
        return CallbackProcess(self._recipe, stage, self._clock, self._request_stop, timeout_s)


class CallbackProcess:
    """The worker process of one stage. It is started when it is first needed, and again after a death.

    The stage uses it from its own task, one call at a time. A call that is cancelled kills the worker process; results
    that came before are kept.

    Args:
        recipe: says which pipeline object the worker process makes.
        stage: name of the stage, for the log.
        clock: the pipeline's clock.
        request_stop: called when a callback calls ``self.request_stop()``.
        timeout_s: seconds that a callback may take for a message or a batch; None for no limit.
    """

    def __init__(
        self, recipe: Recipe, stage: str, clock: Clock, request_stop: Callable[[], None], timeout_s: float | None = None
    ) -> None:
        self._recipe = recipe
        self._clock = clock
        self._request_stop = request_stop
        self._timeout_s = timeout_s
        self._log = log.bind(pipeline=recipe.name, stage=stage)
        self._wake = Wake()
        self._child: WorkerProcess | None = None
        # What it has sent, and was not processed yet.
        self._frames: deque[Frame] = deque()
        # Worker processes that were killed and may not have exited yet.
        self._killed: list[WorkerProcess] = []
        self._job: Job | None = None
        self._number = 0
        # True if the current worker process has finished at least one message.
        self._proven = False
        # How many worker processes in a row ended before they finished a message, and the wait before the next start.
        self._fruitless = 0
        self._pause_s = 0.0
        self._backoff = _new_backoff()

    async def run(self, job: Job) -> None:
        """Run *job* in worker processes.

        Returns once each message has a result, has failed or was taken back. Failures of messages or worker processes
        are never raised.
        """
        self._job = job
        try:
            while job.next_group():
                child = await self._ready_child(job)
                if child is None:
                    return
                await self._run_group(child, job)
        except asyncio.CancelledError:
            if self._child is not None:
                self._child.read()
                self._take_frames(job)
            raise
        finally:
            self._job = None
            if job.unfinished():
                self.kill()

    def take_back(self, wanted: Callable[[Message[Any]], bool]) -> list[Message[Any]]:
        """Take out and return those messages of the current chunk that no callback has seen and *wanted* accepts.

        The worker process may have to be asked. The messages that it leaves out are passed to the chunk's ``taken``
        later.
        """
        if not isinstance(self._job, ChunkJob):
            return []
        out, places = self._job.take_back(wanted)
        if places and self._child is not None:
            self._child.send(Kind.TAKE_BACK, dumps(places), job=self._number)
        return out

    def kill(self) -> None:
        """Kill the worker process now."""
        if self._child is not None:
            self._child.abandon()
            self._killed = [child for child in self._killed if child.exit is None]
            self._killed.append(self._child)
            self._child = None

    async def close(self) -> None:
        """Let the worker process end. Kill it if it does not end, or if it still works."""
        try:
            if self._child is not None and self._job is None:
                self._child.send(Kind.CLOSE)
                await _gone([self._child])
        finally:
            self.kill()
            self._wake.close()
        await _gone(self._killed)

    # --- one job

    async def _run_group(self, child: WorkerProcess, job: Job) -> None:
        if job.first() is None:
            return  # all messages were taken back while the worker process started
        self._number += 1
        kind, body = job.to_send()
        child.send(kind, body, job=self._number)
        deadline = self._deadline()
        while True:
            if self._take_frames(job):
                deadline = self._deadline()
            if job.first() is None:
                return
            if child.exit is not None:
                self._note_death(child, job)
                return
            if deadline is not None and self._clock.monotonic() >= deadline:
                # It may have finished in time, and the event loop was late to read the result.
                child.read()
                if not self._frames:
                    await self._kill_overdue(child, job)
                    return
            else:
                await self._wake.wait_until(deadline, self._clock)

    def _deadline(self) -> float | None:
        return None if self._timeout_s is None else self._clock.monotonic() + self._timeout_s

    def _take_frames(self, job: Job) -> bool:
        progress = False
        while self._frames:
            frame = self._frames.popleft()
            if frame.job == self._number and job.take(frame):
                progress = True
        if progress:
            self._proven = True
            if self._fruitless:
                self._fruitless, self._pause_s, self._backoff = 0, 0.0, _new_backoff()
        return progress

    async def _kill_overdue(self, child: WorkerProcess, job: Job) -> None:
        running = job.what_runs()
        child.kill()
        self._log.warning(
            "a callback ran past its time-out; its worker process was killed", callback=job.callback, pid=child.pid
        )
        await child.exited()
        self._child = None
        self._take_frames(job)
        job.worker_is_gone()
        job.overdue(running, self._timeout_s or 0.0)

    def _note_death(self, child: WorkerProcess, job: Job) -> None:
        how = exit_text(child.exit or 0)
        self._log.warning(
            "a worker process died", callback=job.callback, pid=child.pid, exit=how, messages=len(job.in_hand)
        )
        self._child = None
        job.worker_is_gone()
        job.died(how, fresh=not self._proven)
        if not self._proven:
            self._note_fruitless()

    # --- start and end of the worker process

    async def _ready_child(self, job: Job) -> WorkerProcess | None:
        """Returns the worker process, ready for a job; None if it cannot start, and then all open messages failed."""
        if self._child is not None:
            if self._child.exit is None:
                return self._child
            how = exit_text(self._child.exit)
            self._log.warning("a worker process died while it had nothing to do", pid=self._child.pid, exit=how)
            self._child = None
        if self._pause_s:
            await self._clock.sleep(self._pause_s)
        try:
            child = self._child = self._start()
        except OSError as error:
            self._note_refusal(job, "starting a process", error)
            return None
        self._proven = False
        while child.exit is None or self._frames:
            while self._frames:
                frame = self._frames.popleft()
                if frame.kind == Kind.READY:
                    return child
                if frame.kind == Kind.REFUSED:
                    await self._discard(child, job, frame.body)
                    return None
            await self._wake.wait()
        self._note_refusal(job, "starting", RuntimeError(f"it died: {exit_text(child.exit)}"))
        return None

    def _start(self) -> WorkerProcess:
        frames = self._frames = deque[Frame]()

        def take(frame: Frame) -> None:
            if frame.kind == Kind.STOP:
                self._request_stop()
            else:
                frames.append(frame)
                self._wake.set()

        return WorkerProcess(serve, (self._recipe,), take, self._wake.set)

    async def _discard(self, child: WorkerProcess, job: Job, refused: bytes) -> None:
        step: str
        error: PackedError
        step, error = pickle.loads(refused)  # noqa: S301  # from our own worker process
        # Killed because it does not end by itself if the user's code has left a thread running.
        self.kill()
        await child.exited()
        self._note_refusal(job, step, unpack_error(error))

    def _note_refusal(self, job: Job, step: str, error: BaseException) -> None:
        self._child = None
        self._note_fruitless()
        self._log.error(
            "a worker process could not start",
            step=step,
            exception=name_of(error),
            at=place_of(error),
            messages=len(job.unfinished()),
            seconds=round(self._pause_s, 3),
        )
        # Unavailable, because this is not the fault of the messages.
        sentence = f"the worker process could not start; {step} raised {name_of(error)}: {text_of(error)}"
        unavailable = Unavailable(sentence)
        unavailable.__cause__ = error
        job.fail(Failed("crashed", sentence, unavailable))

    def _note_fruitless(self) -> None:
        self._fruitless += 1
        # The first death may be the fault of its message, so the next worker process starts at once.
        self._pause_s = self._backoff.failed() if self._fruitless > 1 else 0.0


def _new_backoff() -> Backoff:
    return Backoff(first_s=0.2, most_s=5.0)


async def _gone(children: Sequence[WorkerProcess]) -> None:
    """Wait until *children* have exited, at most :data:`_END_S` seconds."""
    exits = [asyncio.ensure_future(child.exited()) for child in children]
    if exits:
        await asyncio.wait(exits, timeout=_END_S)
    for each in exits:
        each.cancel()
