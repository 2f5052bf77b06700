"""Calls the functions of each stage in a thread of its own, so that they may block."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from broadway_py.clock import Clock
from broadway_py.flow.stages.in_thread import joined

__all__ = ["StageThread"]

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class StageThread:
    """The thread of one stage. It is a daemon: a function that blocks cannot keep the process alive.

    Args:
        name: of the thread.
        clock: for the wait at the end.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        # At most one job, and None at the end.
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None

    async def run(self, job: Callable[[], Any]) -> Any:
        """Returns what *job* returns, or raises what it raises. The calls come one after the other."""
        if self._thread is None:
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._work,), name=self._name, daemon=True)
            self._thread.start()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((job, future))
        raised, value = await future
        if raised:
            raise value
        return value

    async def close(self) -> None:
        """Ends the thread. If a function does not return soon, nobody waits for it."""
        if self._thread is None:
            return
        self._jobs.put(None)
        await joined(self._thread, self._ended, self._clock)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, future = item
            try:
                outcome = (False, job())
            except BaseException as error:  # noqa: BLE001  # run() raises it again in the task of the stage
                outcome = (True, error)
            if not self._tell(_finish, future, outcome):
                return
            del item, job, future, outcome
        self._tell(self._ended.set)

    def _tell(self, call: Callable[..., object], *arguments: Any) -> bool:
        # The loop may be closed: a function may return at any time.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)
            return True
        return False


def _finish(future: asyncio.Future[Any], outcome: tuple[bool, Any]) -> None:
    if not future.done():
        future.set_result(outcome)
