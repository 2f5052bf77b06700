"""Cleans up a child process that user code forks, so that it does not act for its parent.

``multiprocessing`` with its method "fork" (the default on Linux before Python 3.14), ``os.fork`` and ``pty.fork`` copy
the whole process: its signal handlers, the socket that they write to, the pipes to a supervisor, the HTTP port. The
copy must end when it gets a signal, and not pass the signal on to its parent. It must not go on as a second daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["leave_if_forked", "own_this_thread", "part_with", "when_forked"]

# These signals are blocked during a fork: one that the child got before its handlers are reset would go to the parent.
_HELD: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT})

_resets: dict[object, Callable[[], object]] = {}
_masks: dict[int, set[int | signal.Signals]] = {}


class _Thread(threading.local):
    owner: int | None = None


_thread: Final = _Thread()


class _Process:
    #: The number of forks between the first process and this one.
    generation = 0


def when_forked(reset: Callable[[], object]) -> Callable[[], None]:
    """Registers *reset*, to be called first in every process that is forked from now on.

    The last function that was registered is called first. Returns a function that removes *reset* again.
    """
    token = object()
    _resets[token] = reset

    def forget() -> None:
        _resets.pop(token, None)

    return forget


def part_with(descriptors: Iterable[int]) -> None:
    """Disconnects a forked child from *descriptors* of its parent, without sending anything to their other ends.

    Each descriptor is not closed, but replaced by one for the null device: the objects that own them would later close
    other descriptors with the same numbers.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def own_this_thread() -> None:
    """Marks this thread as one that runs the library's code, which calls user code.

    A child that user code forks in it must not go on with the library's code.
    """
    _thread.owner = _Process.generation


def leave_if_forked(error: BaseException | None = None) -> None:
    """Ends this process if user code forked it in a thread of the library and then returned to the library's code.

    Such a child has copies of the connections, so all its work would be done twice. Its exit code is that of *error* if
    that is a ``SystemExit``, 1 for any other error, and 0 without an error.
    """
    # The first test is for speed: this is called for every chunk, mostly in a process that was not forked at all.
    if _Process.generation and _thread.owner is not None and _thread.owner != _Process.generation:
        os._exit(_code_of(error))


def _code_of(error: BaseException | None) -> int:
    if not isinstance(error, SystemExit):
        return int(error is not None)
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _before() -> None:
    if _resets:
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)


def _in_parent() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _in_child() -> None:
    _Process.generation += 1
    mask = _masks.pop(threading.get_ident(), None)
    _masks.clear()
    resets = list(_resets.values())
    _resets.clear()
    try:
        for reset in reversed(resets):
            reset()
    finally:
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
