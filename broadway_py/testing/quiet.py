"""Knows when a pipeline is quiet: nothing more can happen in it until time passes or the test does something.

Each task of the event loop is looked at where it waits. What is inside the test (another task, a lock, the fake clock)
ends by itself or never. What is outside (a thread, a socket, a real timer) is waited for, in real time, up to a limit.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final
from weakref import WeakKeyDictionary

from broadway_py.errors import BroadwayError

__all__ = ["StillAtWork", "ThreadWatch", "place_of", "settle", "until_quiet"]

#: Seconds after which a loop that never rests (seconds of processor time), or a wait for the outside, is given up.
LIMIT_S: Final = 5.0

#: For loops that do not show what is ready to run.
_ROUNDS: Final = 60

#: Tasks that begin in these modules are those of pipelines. Others belong to the test, or to libraries.
_OF_PIPELINES: Final = ("broadway_py.pipeline.", "broadway_py.state.", "broadway_py.storage.", "broadway_py.testing.")
#: A wait through one of these modules is for a thread, a process or a file.
_OUTSIDE: Final = (
    "broadway_py.clock",
    "broadway_py.pipeline.callbacks.threads",
    "broadway_py.pipeline.processes.",
    "broadway_py.process.",
    "broadway_py.producers.rabbitmq.",
    "broadway_py.producers.sqs.",
    "broadway_py.state.",
    "broadway_py.storage.",
)
#: A wait in one of these modules is for another task of the loop.
_INSIDE: Final = frozenset({"asyncio.locks", "asyncio.queues", "asyncio.taskgroups", "asyncio.timeouts"})
#: A wait in this module ends when the test lets time pass, and not before.
_CLOCK: Final = "broadway_py.testing.clock"
#: A wait in this module is for a thread with a plain function.
_THREADS: Final = "broadway_py.pipeline.callbacks.threads"
#: Code in these modules was not written by the user.
_OF_LIBRARY: Final = ("asyncio.", "broadway_py.", "contextlib", "threading", "concurrent.", "queue")


class StillAtWork(BroadwayError, TimeoutError):
    """A pipeline did not become quiet within the limit of real time."""


# How many calls of settle() there are in each loop: each has a step of its own among those that are ready.
_settling: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()


async def settle(limit_s: float = LIMIT_S) -> None:
    """Lets the tasks of the event loop run until each waits for something that is not there yet.

    Raises:
        StillAtWork: some task runs again and again, for longer than *limit_s* seconds of processor time. On a busy
            machine these take longer, and prove as much.
    """
    loop = asyncio.get_running_loop()
    ready = getattr(loop, "_ready", None)
    if ready is None:
        for _ in range(_ROUNDS):
            await asyncio.sleep(0)
        return
    until = time.thread_time() + limit_s
    _settling[loop] = _settling.get(loop, 0) + 1
    try:
        # At least once: the loop then also looks at its sockets and timers, and what it finds is in *ready*.
        await asyncio.sleep(0)
        while len(ready) >= _settling[loop]:
            if time.thread_time() > until:
                raise StillAtWork(
                    f"not quiet after {limit_s:g} s of processor time: a task runs again and again without waiting for "
                    "anything, such as a loop around asyncio.sleep(0); let it wait for an event"
                )
            await asyncio.sleep(0)
    finally:
        _settling[loop] -= 1


class ThreadWatch:
    """Knows how many threads with plain functions work, and how many wait for a fake clock. Here there are none.

    A thread may work although no task waits for it any more: its time-out is over.
    """

    def __init__(self) -> None:
        #: Set when a thread has returned, or has begun to wait for the clock.
        self.changed = asyncio.Event()

    @property
    def at_work(self) -> int:
        """Returns how many threads have something to do and do not wait for the clock."""
        return 0

    @property
    def at_rest(self) -> int:
        """Returns how many threads wait for the clock."""
        return 0


async def until_quiet(limit_s: float = LIMIT_S, threads: ThreadWatch | None = None) -> None:
    """Returns when nothing more can happen in the pipelines of this loop until the fake clock moves or the test acts.

    It waits for what is outside of the loop: threads with plain functions, worker processes, files, sockets, and real
    timers.

    Args:
        limit_s: seconds of real time that it may wait.
        threads: what knows of threads that wait for the clock; None: none do.

    Raises:
        StillAtWork: something outside takes longer than *limit_s* seconds of real time.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    watch = ThreadWatch() if threads is None else threads
    while True:
        watch.changed.clear()
        await settle(limit_s)
        outside = _waits_outside(loop, watch)
        if not outside and watch.at_work == 0:
            return
        left_s = until - loop.time()
        if left_s <= 0:
            places = ", ".join(sorted({place_of(task) for task in outside})) or "a plain function past its time-out"
            raise StillAtWork(
                f"not quiet after {limit_s:g} s of real time: {places} waits for something outside of the test, or "
                "takes long. Give it a fake that answers at once, or one that takes time of the test's clock: "
                "await h.clock.sleep(…); the argument patience= sets the limit"
            )
        waits = [wait for task in outside if (wait := _wait_of(task)) is not None and not wait.done()]
        changed = asyncio.ensure_future(watch.changed.wait())
        try:
            await asyncio.wait([*waits, changed], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()


def _waits_outside(loop: asyncio.AbstractEventLoop, watch: ThreadWatch) -> list[asyncio.Task[Any]]:
    """Returns the tasks of pipelines that wait for something outside, or may do so."""
    outside: list[asyncio.Task[Any]] = []
    # Tasks in which user code waits for another task. It may be one that waits for the outside.
    held: list[asyncio.Task[Any]] = []
    may_be_woken = _has_sockets(loop)
    current = asyncio.current_task(loop)
    for task in asyncio.all_tasks(loop):
        if task is current:
            continue
        frames, is_whole = _chain_of(task)
        is_ours = bool(frames) and _module_of(frames[0]).startswith(_OF_PIPELINES)
        if frames and _module_of(frames[-1]) == _THREADS and watch.at_rest and not watch.at_work:
            continue
        if not is_whole or not _is_inside(task, frames):
            if is_ours:
                outside.append(task)
            else:
                may_be_woken = True
        elif is_ours and _code_of_user(frames) is not None and _module_of(frames[-1]) != _CLOCK:
            held.append(task)
    # What another task or a socket may end is not quiet. What only the test can end is.
    return [*outside, *held] if may_be_woken else outside


def _has_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Returns whether a socket or a pipe may wake the loop, other than the one by which threads wake it."""
    selector = getattr(loop, "_selector", None)
    registered = None if selector is None else selector.get_map()
    return registered is None or len(registered) > 1


def _wait_of(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """Returns the future that *task* waits for. anyio relies on the same attribute."""
    wait: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
    return wait


def _chain_of(task: asyncio.Task[Any]) -> tuple[list[FrameType], bool]:
    """Returns the frames of *task*, from the outermost one to the one that waits, and whether that is all of them."""
    frames: list[FrameType] = []
    step: object = task.get_coro()
    while step is not None:
        frame: FrameType | None
        if isinstance(step, CoroutineType):
            frame, step = step.cr_frame, step.cr_await
        elif isinstance(step, GeneratorType):
            frame, step = step.gi_frame, step.gi_yieldfrom
            if frame is not None and step is None and frame.f_code.co_name == "drive":
                # It sends to the coroutine by hand, to run each of its steps in a context (see pipeline/contexts.py).
                step = frame.f_locals.get("work")
        elif isinstance(step, AsyncGeneratorType):
            frame, step = step.ag_frame, step.ag_await
        elif (stepped := _generator_of(step)) is not None:
            frame, step = None, stepped
        else:
            # The last one is the iterator of a future. Anything else hides what it waits for.
            return frames, type(step).__name__ in ("FutureIter", "_asyncio.FutureIter")
        if frame is not None:
            frames.append(frame)
    return frames, True


def _generator_of(step: object) -> AsyncGeneratorType[Any, Any] | None:
    """Returns the asynchronous generator that *step* is one step of; None if it is something else."""
    if not type(step).__name__.startswith("async_generator_"):
        return None
    return next((one for one in gc.get_referents(step) if isinstance(one, AsyncGeneratorType)), None)


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_inside(task: asyncio.Task[Any], frames: list[FrameType]) -> bool:
    """Returns whether *task* waits for another task, for the fake clock, or for the test."""
    if not frames:
        return True
    if any(_module_of(frame).startswith(_OUTSIDE) for frame in frames):
        return False
    last = frames[-1]
    module, name = _module_of(last), last.f_code.co_name
    if module in _INSIDE or module.startswith("anyio."):
        return True
    if module == "asyncio.tasks" and name == "_wait":
        # With a time-out, a real timer ends it.
        return last.f_locals.get("timeout") is None and all(map(_ends_inside, last.f_locals.get("fs", ())))
    if module.startswith("broadway_py.") and not module.startswith("broadway_py.examples."):
        return True
    return _ends_inside(_wait_of(task))


def _ends_inside(wait: object) -> bool:
    """Returns whether only another task can end *wait*. Such a task is looked at by itself."""
    if isinstance(wait, asyncio.Task) or (isinstance(wait, asyncio.Future) and wait.done()):
        return True
    children = getattr(wait, "_children", None)  # of asyncio.gather
    return children is not None and all(map(_ends_inside, children))


def _code_of_user(frames: list[FrameType]) -> FrameType | None:
    """Returns the innermost frame that the user wrote; None if there is none."""
    for frame in reversed(frames):
        module = _module_of(frame)
        if module.startswith("broadway_py.examples.") or not module.startswith(_OF_LIBRARY):
            return frame
    return None


def place_of(task: asyncio.Task[Any]) -> str:
    """Returns where user code waits, for an error."""
    frames, _ = _chain_of(task)
    found = _code_of_user(frames)
    if found is None and frames and _module_of(frames[-1]) == _THREADS:
        found = _code_in_thread(task.get_name().split(".")[0])
    if found is None:
        return task.get_name()
    return f"{found.f_code.co_qualname} ({Path(found.f_code.co_filename).name}:{found.f_lineno})"


def _code_in_thread(pipeline: str) -> FrameType | None:
    """Returns the innermost frame of user code in a thread of *pipeline*."""
    running = sys._current_frames()
    for thread in threading.enumerate():
        if thread.name.startswith(f"{pipeline}.callback.") and thread.ident in running:
            frames: list[FrameType] = []
            frame: FrameType | None = running[thread.ident]
            while frame is not None:
                frames.insert(0, frame)
                frame = frame.f_back
            if (found := _code_of_user(frames)) is not None:
                return found
    return None
