"""The first thing that a process of ours does: take signals, before it imports anything that takes time.

Until then a signal does what it does to any program: it ends it, or, in process 1 of a container, nothing at all. This
module imports the standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from broadway_py import forks

__all__ = ["SIGNALS", "begin_command", "begin_worker", "begun", "hidden_variables", "noting"]

#: The signals that a daemon has a use for.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

#: Variables that make ``prometheus_client`` write its numbers to files for another process to add up. Ours adds them
#: up by itself; files of processes that are gone would be counted again.
HIDDEN: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")

# What a shell shows for a program that a signal ended, without the signal's number.
_ENDED_BY: Final = 128

_Handler = Callable[[int, FrameType | None], None]


class _State:
    """What this process has heard of signals before its main thread waits for them."""

    #: The main thread waits for signals, or has done so: what comes later is none of ours.
    is_over = False
    #: What came and can wait, each once.
    noted: Final[dict[int, None]] = {}
    #: Which of :data:`HIDDEN` there were.
    hidden: Final[list[str]] = []


def begin_command() -> None:
    """Take signals for the command, which has them blocked: SIGTERM and Ctrl-C end it at once while it starts.

    As process 1 of a container it stays behind as the one that passes signals on and reaps, and all else is done in a
    child of its own.
    """
    runs = sys.argv[1:2] == ["run"]
    if not runs:
        # The other commands are over in seconds, and Python's own Ctrl-C is right for them.
        _take({signal.SIGTERM: _leave_with(_ENDED_BY + signal.SIGTERM)})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    elif os.getpid() == 1 and hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, *_PASSED_ON, signal.SIGCHLD})
        child = os.fork()
        if child:
            os._exit(_serve_as_init(child))
        _take_for_run()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})
    else:
        _take_for_run()
    _hide_variables()


def begin_worker() -> None:
    """Take signals for a worker, which its supervisor has started with all of them blocked.

    Ctrl-C and a hang-up reach the whole group: the supervisor decides. They are not ignored, since programs that
    handlers start would ignore them, too.
    """
    _take(
        {
            signal.SIGTERM: _leave_with(0),
            signal.SIGINT: _drop,
            signal.SIGHUP: _drop,
            signal.SIGUSR1: _note,
        }
    )


def _take_for_run() -> None:
    _take(
        {
            signal.SIGTERM: _leave_with(0),
            signal.SIGINT: _leave_with(0),
            signal.SIGHUP: _note,
            signal.SIGUSR1: _note,
        }
    )


@contextlib.contextmanager
def noting() -> Iterator[None]:
    """Note which signals come while the block runs, until :func:`begun`. Outside the main thread: do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.is_over = False
    before = _take(dict.fromkeys(SIGNALS, _note))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def begun() -> list[int]:
    """The signals that have come and wait; from now on the main thread waits for them, and we leave them alone."""
    _State.is_over = True
    noted = list(_State.noted)
    _State.noted.clear()
    return noted


def hidden_variables() -> list[str]:
    """Names of the variables that were taken out of the environment, for the log."""
    return list(_State.hidden)


def _hide_variables() -> None:
    for name in HIDDEN:
        if os.environ.pop(name, None) is not None:
            _State.hidden.append(name)


def _take(handlers: dict[signal.Signals, _Handler]) -> dict[signal.Signals, _Handler | int | None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # Whoever started us may have them blocked: a supervisor does, and some programs do by mistake.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)

    def reset() -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number] or signal.SIG_DFL)

    forks.when_forked(reset)
    return before


def _leave_with(code: int) -> _Handler:
    def leave(_number: int, _frame: FrameType | None) -> None:
        # Not by an exception: code that is imported may catch it, and nothing is there to be cleaned up.
        if not _State.is_over:
            os._exit(code)

    return leave


def _note(number: int, _frame: FrameType | None) -> None:
    if not _State.is_over:
        _State.noted[number] = None


def _drop(_number: int, _frame: FrameType | None) -> None:
    """Nothing. But not SIG_IGN, which programs that are started from here would inherit."""


# --- process 1 of a container

# What people send to a container, besides the signals that a daemon has a use for.
_PASSED_ON: Final = (signal.SIGQUIT, signal.SIGUSR2)


def _serve_as_init(child: int) -> int:
    """Pass signals on to *child* and reap whatever has nobody else, until *child* has ended; its exit code."""
    waited_for = {*SIGNALS, *_PASSED_ON, signal.SIGCHLD}
    while True:
        came = signal.sigwaitinfo(waited_for)
        if came.si_signo != signal.SIGCHLD:
            # What the kernel sent for a key that was pressed has reached the whole group already.
            if came.si_code <= 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, came.si_signo)
            continue
        code = _reap(child)
        if code is not None:
            return code


def _reap(child: int) -> int | None:
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else _ENDED_BY - ended
    return code
