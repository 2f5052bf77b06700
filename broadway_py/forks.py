"""What a process that user code forks off must not have of this one.

``multiprocessing`` with its method "fork" (the default on Linux before Python 3.14), ``os.fork`` and ``pty.fork`` copy
the whole process: its signal handlers, the socket that these write to, the pipes to a supervisor, the HTTP port. The
copy must die of a signal instead of passing it on to its parent, and it must not go on as a second daemon.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["leave_if_forked", "own_this_thread", "part_with", "when_forked"]

# Signals wait while a fork is under way: one that the child got before its handlers are reset would go to the parent.
_HELD: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT})

_resets: dict[object, Callable[[], object]] = {}
_masks: dict[int, set[int | signal.Signals]] = {}


class _Thread(threading.local):
    owner: int | None = None


_thread: Final = _Thread()


class _Process:
    #: How many forks lie between the first process and this one.
    generation = 0


def when_forked(reset: Callable[[], object]) -> Callable[[], None]:
    """Call *reset* in every process that is forked off from now on, before anything else runs there.

    The last one registered is called first. Gives a function that takes it back.
    """
    token = object()
    _resets[token] = reset

    def forget() -> None:
        _resets.pop(token, None)

    return forget


def part_with(descriptors: Iterable[int]) -> None:
    """In a forked child: let go of *descriptors* of its parent without a word to whoever is at their other end.

    Each is replaced by one that leads nowhere, not closed: the objects that stand for them would close others of the
    same number.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)


def own_this_thread() -> None:
    """Say that this thread runs our code, which calls that of users: a child that is forked in there is not ours."""
    _thread.owner = _Process.generation


def leave_if_forked(error: BaseException | None = None) -> None:
    """End this process if user code has forked it off in a thread of ours, and has then returned into our code.

    That child has copies of our connections: whatever it did next would be done twice. Its exit code is that of
    *error* if it is a ``SystemExit``, 1 for another one, and 0 without.
    """
    # The first look is for speed: it is taken for every chunk, mostly in a process that was not forked at all.
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
