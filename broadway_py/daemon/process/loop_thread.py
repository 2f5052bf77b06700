"""Runs the event loop in its own thread, so that no handler can keep the main thread from ending the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

from broadway_py import forks
from broadway_py.daemon.process.block_watch import BlockWatch
from broadway_py.error_text import clipped, described, error_texts_are_shown, name_of, place_of
from broadway_py.errors import OptionsError
from broadway_py.log import logger

__all__ = ["Body", "LoopThread", "new_event_loop"]

log = logger("broadway_py.daemon")

T = TypeVar("T")

# The most frames that are logged of the loop's stack.
_MOST_FRAMES: Final = 30

# Seconds that tasks which are left at the end may take to end.
_CLEANUP: Final = 1.0


class Body(Protocol):
    """The work that runs in the loop.

    All methods except :attr:`shutdown_timeout` and :meth:`abandon` are called in the loop.
    """

    @property
    def shutdown_timeout(self) -> float:
        """The most seconds that a drain may take."""

    async def run(self) -> int:
        """Runs until no work is left, or until :meth:`stop` has ended it. Returns the exit code.

        Raises:
            OptionsError: a setting turned out to be wrong.
        """

    def stop(self) -> None:
        """Starts the drain."""

    def give_up(self) -> None:
        """Cuts the drain short: cancels, gives back and closes."""

    def reload(self) -> None:
        """Reads the settings again and applies what has changed. It returns at once."""

    def log_state(self) -> None:
        """Writes the current state to the log."""

    def abandon(self) -> None:
        """Ends everything that would outlive this process.

        The main thread calls it at the end, when the loop does not answer.
        """


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Returns a new event loop: that of uvloop if it is installed, else that of the standard library."""
    try:
        import uvloop  # noqa: PLC0415  # an optional package
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class LoopThread:
    """Runs one :class:`Body` in a daemonic thread.

    Args:
        body: the work to run.
        finished: called in that thread with the exit code, or with the OptionsError that ended the body.
    """

    def __init__(self, body: Body, finished: Callable[[int | OptionsError], None]) -> None:
        self._body = body
        self._finished = finished
        self._loop = new_event_loop()
        self._loop.set_exception_handler(_log_unhandled)
        self._thread = threading.Thread(target=self._run, name="broadway-loop", daemon=True)
        self._watch = BlockWatch(self.call, lambda: self._thread.ident)

    def start(self) -> None:
        """Starts the thread and its watch."""
        self._thread.start()
        self._watch.start()

    def call(self, callback: Callable[[], object]) -> None:
        """Runs *callback* in the loop as soon as possible. Nothing happens once the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs *work* in the loop. If the loop has ended, the returned future is cancelled at once."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            ended: concurrent.futures.Future[T] = concurrent.futures.Future()
            ended.cancel()
            return ended

    def join(self, timeout: float) -> None:
        """Waits at most *timeout* seconds for the thread to end."""
        self._thread.join(timeout)

    def stack(self) -> str:
        """Returns the current stack of the loop's thread, as text without values."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        return (
            "".join(traceback.format_stack(frame, limit=_MOST_FRAMES)) if frame is not None else "the thread has ended"
        )

    def _run(self) -> None:
        forks.own_this_thread()
        asyncio.set_event_loop(self._loop)
        outcome: int | OptionsError = 1
        try:
            outcome = self._until_done(self._loop.create_task(self._body.run(), name="broadway"))
        except OptionsError as wrong:
            outcome = wrong
        except BaseException as error:
            forks.leave_if_forked(error)
            log.exception("the daemon crashed")
        finally:
            self._watch.stop()
            self._finished(outcome)
            self._clean_up()

    def _until_done(self, body: asyncio.Task[int]) -> int:
        while True:
            try:
                return self._loop.run_until_complete(body)
            except (SystemExit, KeyboardInterrupt) as error:
                # Such an error leaves the loop when it comes from a task that a callback has started. It is no signal:
                # only the main thread gets signals.
                forks.leave_if_forked(error)
                if body.done():
                    raise
                log.error(  # noqa: TRY400  # the place says enough: the stack is that of the loop
                    "a task of user code tried to end the process; only the task has ended",
                    exception=name_of(error),
                    at=place_of(error),
                )

    def _clean_up(self) -> None:
        # The default executor is not waited for: a thread that hangs in it must not keep the process alive.
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        with contextlib.suppress(Exception):
            if left:
                self._loop.run_until_complete(asyncio.wait(left, timeout=_CLEANUP))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


def _log_unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own handler prints the reprs of tasks and futures. They include results and error texts.
    error = context.get("exception")
    about: dict[str, Any] = {}
    if isinstance(error, BaseException):
        about = {"exception": name_of(error), "stack": described(error, with_text=error_texts_are_shown())}
    log.error(
        "an error came to the event loop, because no task waited for it",
        reason=clipped(str(context.get("message")), 500),
        **about,
    )
