"""The main thread: it waits for signals and deadlines, and ends the process when the event loop cannot."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from broadway_py.daemon.logs import logs
from broadway_py.daemon.process.loop_thread import Body, LoopThread
from broadway_py.daemon.process.signal_queue import SignalQueue
from broadway_py.daemon.process.startup import begun
from broadway_py.errors import OptionsError
from broadway_py.log import ALL, logger

__all__ = ["SIGNALS", "ExitCode", "Request", "Watch", "bounded", "leave"]

log = logger("broadway_py.daemon")

# A second signal within this many seconds counts as the same request. The terminal or the service manager sends a
# signal to the whole group, and `timeout`, npm and shells then pass it on to this process again.
_ONE_WISH: Final = 1.0

# Seconds that logging may take before the process ends without it: the program that reads our output may hang.
_LOGGING: Final = 0.3
# The most threads, and frames of each, that a dump logs.
_MOST_THREADS: Final = 200
_MOST_FRAMES: Final = 30


class ExitCode:
    """The exit codes of the process."""

    CLEAN: Final = 0
    CRASH: Final = 1
    USAGE: Final = 2
    #: The drain ran out of time. The messages that were left have been given back, or are left to the broker.
    LATE: Final = 75


class Request(Enum):
    """The requests that a running process accepts from outside."""

    #: Drain. When it comes again after more than a second, do the last steps at once.
    STOP = "stop"
    #: Drain. A second request changes nothing.
    DRAIN = "drain"
    #: Do the last steps at once.
    NOW = "now"
    DUMP = "dump"
    #: Read the settings again, and apply what has changed.
    RELOAD = "reload"


#: The request that each signal of a daemon stands for.
SIGNALS: Final[Mapping[int, Request]] = {
    signal.SIGTERM: Request.STOP,
    signal.SIGINT: Request.STOP,
    signal.SIGHUP: Request.RELOAD,
    signal.SIGUSR1: Request.DUMP,
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Finished:
    outcome: int | OptionsError


class Watch:
    """Runs a :class:`Body` in a thread and makes sure that it ends.

    Args:
        body: the work to run.
        grace: seconds after the drain's deadline, or after the second signal, at which the process ends without the
            loop.
        signals: the request of each signal. Outside the main thread no signals can be taken.
        monotonic: the clock that decides whether two requests to stop are one.
    """

    def __init__(
        self,
        body: Body,
        *,
        grace: float = 1.5,
        signals: Mapping[int, Request] = SIGNALS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._body = body
        self._grace = grace
        self._signals = signals if threading.current_thread() is threading.main_thread() else {}
        self._events: SignalQueue[Request | _Finished] = SignalQueue()
        self._thread = LoopThread(body, lambda outcome: self._events.put(_Finished(outcome)))
        self._leave_at: float | None = None
        self._monotonic = monotonic
        self._stopping_since: float | None = None

    def request(self, what: Request) -> None:
        """Asks for *what*. It may be called from any thread."""
        self._events.put(what)

    def submit(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Runs *work* in the loop. It may be called from any thread. The future is cancelled if the loop has ended."""
        return self._thread.submit(work)

    def run(self) -> int:
        """Blocks until the body has ended or its time is up. Returns the exit code.

        Raises:
            OptionsError: the body found a setting that is wrong.
        """
        try:
            with self._events.signals(self._signals):
                if self._signals:
                    for number in begun():
                        if number in self._signals:
                            self._events.put(self._signals[number])
                self._thread.start()
                return self._until_finished()
        finally:
            self._events.close()

    def _until_finished(self) -> int:
        while True:
            event = self._events.take(self._leave_at)
            if event is None:
                self._body.abandon()
                self._log_blocked()
                return ExitCode.LATE
            if isinstance(event, _Finished):
                self._thread.join(self._grace)
                if isinstance(event.outcome, OptionsError):
                    raise event.outcome
                return event.outcome
            self._handle(event)

    def _handle(self, event: Request) -> None:
        if event is Request.DUMP:
            for name, stack in _stacks():
                log.warning("state: thread", thread=name, stack=stack, **{ALL: True})
            self._thread.call(self._body.log_state)
        elif event is Request.RELOAD:
            self._thread.call(self._body.reload)
        elif self._stopping_since is None:
            self._begin(self._body.shutdown_timeout)
            if event is Request.NOW:
                self._hurry()
        elif event is Request.NOW or (event is Request.STOP and self._is_another_wish(self._stopping_since)):
            self._hurry()

    def _is_another_wish(self, since: float) -> bool:
        return self._monotonic() - since > _ONE_WISH

    def _begin(self, timeout: float) -> None:
        self._stopping_since = self._monotonic()
        self._leave_at = time.monotonic() + timeout + self._grace
        log.info("stopping", shutdown_timeout=timeout)
        self._thread.call(self._body.stop)

    def _hurry(self) -> None:
        at_once = time.monotonic() + self._grace
        self._leave_at = at_once if self._leave_at is None else min(self._leave_at, at_once)
        log.warning("stopping at once")
        self._thread.call(self._body.give_up)

    def _log_blocked(self) -> None:
        bounded(
            lambda: log.error(
                "the drain ran out of time and the event loop does not answer; the process ends without it",
                stack=self._thread.stack(),
            )
        )


def _stacks() -> Iterator[tuple[str, str]]:
    """Yields the name and the stack of each thread. The stack is limited to the innermost frames."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in list(sys._current_frames().items())[:_MOST_THREADS]:
        yield str(names.get(ident, ident)), "".join(traceback.format_stack(frame, limit=_MOST_FRAMES))


def bounded(action: Callable[[], object], seconds: float = _LOGGING) -> None:
    """Runs *action*, but waits for it at most *seconds*. Does not run it when no thread can be started."""
    speaker = threading.Thread(target=action, name="broadway-last-words", daemon=True)
    with contextlib.suppress(RuntimeError):
        speaker.start()
        speaker.join(seconds)


def _flush() -> None:
    logs.flush()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # closed since the start
            stream.flush()


def leave(code: int, *, at_once: bool = False) -> None:
    """Ends this process with *code* within a second, whatever threads still run.

    Clean-up that others have registered with ``atexit`` runs, unless it hangs too. It does not run with *at_once* or
    for :attr:`ExitCode.LATE`.
    """
    if at_once or code == ExitCode.LATE:
        bounded(_flush)
        os._exit(code)
    guard = threading.Timer(1.0, os._exit, (code,))
    guard.daemon = True
    try:
        guard.start()
    except RuntimeError:  # no thread can be started, so no code of others runs that could hang
        os._exit(code)
    sys.exit(code)
