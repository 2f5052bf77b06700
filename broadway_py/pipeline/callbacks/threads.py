"""Threads for plain ``def`` callbacks. They are daemon threads, so a handler that blocks cannot keep a process alive.

Python's standard executor is not used because its threads are joined at interpreter exit.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from broadway_py import forks

__all__ = ["CallbackThreads"]

_Job = tuple[Callable[[], Any], contextvars.Context, asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class CallbackThreads:
    """Holds as many threads as callbacks run at one time.

    Each stage runs one callback at a time, so there are never more threads, or jobs in the queue, than stages.
    Everything except the threads' own loop runs in the event loop.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = 0
        self._idle = 0
        #: How many threads run although their caller has stopped waiting for them.
        self.stuck = 0
        #: Called whenever a thread returns, if it is set. A test kit waits for threads.
        self.returned: Callable[[], object] | None = None
        # What to call when a thread returns whose caller has stopped waiting.
        self._awaited: dict[asyncio.Future[Any], Callable[[], None]] = {}

    @property
    def running(self) -> int:
        """Returns how many threads have a job, whether or not its caller still waits."""
        return self._started - self._idle

    async def run(
        self,
        job: Callable[[], Any],
        came_back: Callable[[], None] | None = None,
        context: contextvars.Context | None = None,
    ) -> Any:
        """Run *job* in a thread, in *context* (None: a copy of the caller's context).

        Returns its result, or raises its error. If the caller is cancelled, the thread goes on alone. Its result is
        then dropped, and *came_back* is called when it returns.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._idle == 0:
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}.callback.{self._started}", daemon=True).start()
        else:
            self._idle -= 1
        self._jobs.put((job, contextvars.copy_context() if context is None else context, loop, future))
        try:
            raised, value = await future
        except asyncio.CancelledError:
            if future.cancelled():
                self.stuck += 1
                if came_back is not None:
                    self._awaited[future] = came_back
            elif came_back is not None:
                came_back()
            raise
        if raised:
            raise value
        return value

    def _work(self) -> None:
        forks.own_this_thread()
        while (item := self._jobs.get()) is not None:
            job, context, loop, future = item
            try:
                outcome = (False, context.run(job))
            except BaseException as error:  # noqa: BLE001  # run() raises it again in the caller's task
                outcome = (True, error)
            forks.leave_if_forked(outcome[1] if outcome[0] else None)
            del job, context, item
            try:
                loop.call_soon_threadsafe(self._finish, future, outcome)
            except RuntimeError:
                return  # the loop has closed, so no caller waits
            del future, outcome

    def _finish(self, future: asyncio.Future[Any], outcome: tuple[bool, Any]) -> None:
        self._idle += 1
        if future.done():
            self.stuck -= 1
            came_back = self._awaited.pop(future, None)
            if came_back is not None:
                came_back()
        else:
            future.set_result(outcome)
        if self.returned is not None:
            self.returned()

    def is_out(self, came_back: Callable[[], None]) -> bool:
        """Returns True while a thread runs whose caller has stopped waiting, and *came_back* will be called for it."""
        return came_back in self._awaited.values()

    def close(self) -> None:
        """Let the threads end. A stuck thread ends with the process."""
        for _ in range(self._started):
            self._jobs.put(None)
