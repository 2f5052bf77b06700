"""Reads an iterable in a thread of its own, as far as it was asked to."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.flow.operator_errors import errors_of_functions

__all__ = ["PATIENCE_S", "ThreadReader", "joined"]

#: How long the end of a flow waits for a ``next`` of the user that is under way, in seconds.
PATIENCE_S: Final = 1.0


class ThreadReader:
    """Reads an iterable in a thread, element by element. At most one ``next`` is under way.

    All but the thread itself runs in the event loop.

    Args:
        make: called in the thread before the first element; returns the iterable.
        tell: called in the event loop when there is something to take, and at the end.
        clock: for the wait at the end.
    """

    def __init__(self, make: Callable[[], Iterable[Any]], tell: Callable[[], object], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._tell_loop = tell
        self._loop = asyncio.get_running_loop()
        # Numbers of elements; None ends the thread. The next number is given when the elements of the last are taken.
        self._grants: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._granted = 0
        self._read: deque[Any] = deque()
        self._is_told = False
        self._must_close = False
        self._closed = asyncio.Event()
        #: True when nothing more will be read.
        self.has_ended = False
        #: What the iterable has raised.
        self.error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="flow.source", daemon=True)
        self._thread.start()

    @property
    def has_read(self) -> bool:
        """True if there is something to take."""
        return bool(self._read)

    def ask(self, count: int) -> None:
        """Lets the thread read so far ahead that it has *count* elements which were not taken."""
        if count > self._granted:
            self._grants.put(count - self._granted)
            self._granted = count

    def take(self, most: int) -> list[Any]:
        """Removes and returns what was read, at most so many elements."""
        # Before the look: what is read behind it is told again.
        self._is_told = False
        popleft = self._read.popleft
        taken = [popleft() for _ in range(min(most, len(self._read)))]
        self._granted -= len(taken)
        return taken

    async def close(self) -> None:
        """Ends the thread, and closes the iterator if it can be closed.

        If the user's ``next`` does not return soon, nobody waits for it: the thread closes the iterator later.
        """
        self._must_close = True
        self._grants.put(None)
        await joined(self._thread, self._closed, self._clock)

    # --- in the thread

    def _run(self) -> None:
        iterator: Iterator[Any] | None = None
        try:
            while not self._must_close and (count := self._grants.get()) is not None:
                if iterator is None:
                    iterator = iter(self._make())
                if not self._read_some(iterator, count):
                    break
        except errors_of_functions() as error:
            self.error = error
        finally:
            if (close := getattr(iterator, "close", None)) is not None:
                self._close(close)
            self.has_ended = True
            self._tell(self._end)

    def _read_some(self, iterator: Iterator[Any], count: int) -> bool:
        """Reads *count* elements. Returns False if the iterator has ended, or must be closed."""
        read, got = self._read, 0
        for element in islice(iterator, count):
            read.append(element)
            got += 1
            if not self._is_told:
                self._is_told = True
                self._tell(self._tell_loop)
            if self._must_close:
                return False
        return got == count

    def _close(self, close: Callable[[], object]) -> None:
        try:
            close()
        except errors_of_functions() as error:
            if self.error is None:
                self.error = error

    def _tell(self, call: Callable[[], object]) -> None:
        # The loop may be closed: the thread may return from a ``next`` at any time.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call)

    # --- in the loop

    def _end(self) -> None:
        self._closed.set()
        self._tell_loop()


async def joined(thread: threading.Thread, ended: asyncio.Event, clock: Clock) -> None:
    """Waits until *thread* has ended, also if this call is cancelled meanwhile; but no longer than the patience.

    Args:
        thread: it is about to end.
        ended: set at its end.
        clock: for the wait.
    """
    until = clock.monotonic() + PATIENCE_S
    cancelled: asyncio.CancelledError | None = None
    # Not in a task, which others could cancel: the end of an event loop cancels all tasks that it finds.
    while not ended.is_set():
        try:
            async with clock.timeout(max(0.0, until - clock.monotonic())):
                await ended.wait()
        except TimeoutError:
            break
        except asyncio.CancelledError as again:
            cancelled = again
    if ended.is_set():
        thread.join()
    if cancelled is not None:
        raise cancelled
