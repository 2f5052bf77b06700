"""Watches the threads in which the plain callbacks of a pipeline run."""

from __future__ import annotations

import asyncio
import contextlib

from broadway_py.pipeline.callbacks.threads import CallbackThreads
from broadway_py.testing.clock import FakeClock
from broadway_py.testing.quiet import ThreadWatch

__all__ = ["CallbackThreadWatch"]


class CallbackThreadWatch(ThreadWatch):
    """Knows which threads of a pipeline work, and which of them wait for its clock.

    Args:
        clock: the clock of the pipeline.
    """

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self._threads: CallbackThreads | None = None
        self._loop = asyncio.get_running_loop()
        clock._note_blocked = self._note_blocked

    def watch(self, threads: CallbackThreads | None) -> None:
        """Watches the threads of another pipeline; None: of none."""
        self._threads = threads
        if threads is not None:
            threads.returned = self.changed.set

    @property
    def at_work(self) -> int:
        """Returns how many threads have something to do and do not wait for the clock."""
        return 0 if self._threads is None else max(0, self._threads.running - self.at_rest)

    @property
    def at_rest(self) -> int:
        """Returns how many threads wait for the clock."""
        return self._clock.blocked

    def _note_blocked(self) -> None:
        # If the loop has closed, no test waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.changed.set)
