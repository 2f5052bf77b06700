"""The program of a worker process: runs the function that its parent names.

:mod:`broadway_py.process.worker_process` starts it in a new interpreter, with the number of an inherited socket.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import io
import pickle
import signal
import socket
import sys
from types import FrameType
from typing import Final

from broadway_py import forks
from broadway_py.process.parent_socket import ParentSocket

__all__ = ["main"]

#: On the kernel's scale up to 1000. When memory runs out, the kernel kills this process before its parent, which holds
#: the data.
_OOM_SCORE: Final = "500"


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Ignores a signal to the whole group (Ctrl-C, a service manager's stop): the parent decides when to end.

    SIG_IGN is not used because programs that user code starts would inherit it.
    """


def _become_worker() -> None:
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _ignore) for number in taken}
    # The parent has blocked these signals while this process starts.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, taken)

    def be_forked() -> None:
        # A process that user code forks must react to these signals as usual.
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    forks.when_forked(be_forked)
    forks.own_this_thread()
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Printed lines must not be lost when the process dies.
            stream.reconfigure(line_buffering=True)
    with (
        contextlib.suppress(OSError),  # not Linux, or not allowed
        open("/proc/self/oom_score_adj", "w", encoding="ascii") as score,  # noqa: PTH123  # pathlib takes 5 ms to load
    ):
        score.write(_OOM_SCORE)


def main(descriptor: int) -> None:
    """Run what the parent at the other end of the socket says."""
    _become_worker()
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)  # a program that user code starts would keep it open
    forks.when_forked(connection.close)
    parent = ParentSocket(connection)
    parent.start()
    log_setup, work = pickle.loads(parent.wait().body)  # noqa: S301  # from our own parent
    if log_setup is not None:
        pickle.loads(log_setup)()  # noqa: S301  # as above
    # To unpickle the function is to import its module.
    function, arguments = pickle.loads(work)  # noqa: S301  # as above
    # All that is here stays.
    gc.freeze()
    gc.enable()
    function(parent, *arguments)
