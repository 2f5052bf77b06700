"""Takes signals at the start of a process, before it imports anything that takes time.

Until then a signal does what it does to any program: it ends it. In process 1 of a container it does nothing at all.
This module imports the standard library alone.
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

#: The signals that a daemon uses.
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

#: Variables that make ``prometheus_client`` write its numbers to files, for another process to add up. The daemon adds
#: them up itself. With the files, the numbers of processes that have ended would be counted twice.
HIDDEN: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")

# A shell shows this plus the signal's number for a program that a signal ended.
_ENDED_BY: Final = 128

_Handler = Callable[[int, FrameType | None], None]


class _State:
    """The signals that this process got before its main thread waits for them."""

    #: The main thread waits for signals or has done so. This module ignores signals that come later.
    is_over = False
    #: The signals that came and can wait, each once.
    noted: Final[dict[int, None]] = {}
    #: The variables of :data:`HIDDEN` that were set.
    hidden: Final[list[str]] = []


def begin_command() -> None:
    """Takes signals for the command, which starts with them blocked. SIGTERM and Ctrl-C end it at once while it starts.

    As process 1 of a container, this process only passes signals on and reaps. A child process does all other work.
    """
    runs = sys.argv[1:2] == ["run"]
    if not runs:
        # The other commands end in seconds, and Python's own handling of Ctrl-C is right for them.
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
    """Takes signals for a worker. Its supervisor has started it with all of them blocked.

    Ctrl-C and a hang-up reach the whole process group, and the supervisor decides what to do. They are not set to
    "ignore", because programs that handlers start would inherit that.
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
    """Notes which signals come while the block runs, until :func:`begun`. Outside the main thread it does nothing."""
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
    """Returns the signals that were noted. From now on the main thread waits for signals, and not this module."""
    _State.is_over = True
    noted = list(_State.noted)
    _State.noted.clear()
    return noted


def hidden_variables() -> list[str]:
    """Returns the names of the variables that were removed from the environment, for the log."""
    return list(_State.hidden)


def _hide_variables() -> None:
    for name in HIDDEN:
        if os.environ.pop(name, None) is not None:
            _State.hidden.append(name)


def _take(handlers: dict[signal.Signals, _Handler]) -> dict[signal.Signals, _Handler | int | None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    # The parent process may have blocked them: a supervisor does, and some programs do so by mistake.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)

    def reset() -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before[number] or signal.SIG_DFL)

    forks.when_forked(reset)
    return before


def _leave_with(code: int) -> _Handler:
    def leave(_number: int, _frame: FrameType | None) -> None:
        # An exception would not do: code that is being imported may catch it. There is nothing to clean up yet.
        if not _State.is_over:
            os._exit(code)

    return leave


def _note(number: int, _frame: FrameType | None) -> None:
    if not _State.is_over:
        _State.noted[number] = None


def _drop(_number: int, _frame: FrameType | None) -> None:
    """Does nothing. SIG_IGN would not do: programs that are started from here would inherit it."""


# --- process 1 of a container

# Signals that people send to a container, besides those that a daemon uses.
_PASSED_ON: Final = (signal.SIGQUIT, signal.SIGUSR2)


def _serve_as_init(child: int) -> int:
    """Passes signals on to *child* and reaps orphaned processes until *child* has ended. Returns its exit code."""
    waited_for = {*SIGNALS, *_PASSED_ON, signal.SIGCHLD}
    while True:
        came = signal.sigwaitinfo(waited_for)
        if came.si_signo != signal.SIGCHLD:
            # A signal that the kernel sent for a key on the terminal has reached the whole group already.
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
