"""Starts a worker process, exchanges frames with it over a socket, and waits for its exit."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVarTuple

from broadway_py.log import carried_setup
from broadway_py.process.connection import FrameConnection
from broadway_py.process.frames import Frame, dumps
from broadway_py.process.parent_socket import ParentSocket

__all__ = ["WorkerProcess"]

Ts = TypeVarTuple("Ts")

#: The kind of the first frame, which says what to run. The function gives all others their meaning.
_START: Final = 0

#: The search path is set to the parent's before any import. So the worker process can import what the parent can, and
#: a ``queue.py`` in the current directory hides no module (with ``-m`` it would). What imports make is not garbage, so
#: nothing is collected before the work begins: that is a fifth of the time.
_PROGRAM: Final = (
    "import gc, sys; gc.disable(); sys.path[:] = sys.argv[2:]; "
    "from broadway_py.process.child import main; main(int(sys.argv[1]))"
)

#: Signals such as Ctrl-C reach the whole process group, but a worker process must end only when its parent says so.
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WorkerProcess:
    """A running worker process. A thread waits for its exit; all else runs in the event loop and does not block.

    It is a new interpreter, which does not run the program of its parent again. It ends when *work* returns, and at
    once when its parent is gone.

    Args:
        work: called in the process, with the socket to this side and *arguments*. It is a function of a module, not of
            the program that was started.
        arguments: what else *work* is called with. They must pickle.
        take: called with each frame from the process, in order. It must not raise.
        ended: called when the process has exited, after its last frame.
        pass_fds: descriptors that the process gets too, under the same numbers. They may be closed afterwards.

    Raises:
        OSError: the process, or the thread that waits for its exit, cannot be started now. Nothing is left running.
    """

    def __init__(
        self,
        work: Callable[[ParentSocket, *Ts], object],
        arguments: tuple[*Ts],
        take: Callable[[Frame], object],
        ended: Callable[[], object],
        pass_fds: Sequence[int] = (),
    ) -> None:
        #: The exit code, or the negative number of the signal that killed it; None while it runs.
        self.exit: int | None = None
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._exited: asyncio.Future[None] = self._loop.create_future()
        setup = carried_setup()
        # Each part by itself: the log is set up before modules are imported for the work.
        start = dumps((None if setup is None else dumps(setup), dumps((work, arguments))))
        self._process, ours = _spawn(pass_fds)
        # If the other end is closed, the process exits, or user code has closed it. Then the process is of no use.
        self._connection = FrameConnection(ours, take, self.kill)
        self._thread = threading.Thread(target=self._wait, name=f"broadway-process-{self.pid}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            # There are too many threads. Without this thread, the exit would not be noticed.
            self._process.kill()
            self._process.wait()
            self._connection.close()
            raise OSError(errno.EAGAIN, "no thread can be started to wait for its exit") from error
        try:
            self._connection.open()
        except OSError:
            self.abandon()
            raise
        self.send(_START, start)

    @property
    def pid(self) -> int:
        """Returns the process id."""
        return self._process.pid

    def send(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame. It does nothing once the process has died."""
        self._connection.send(kind, body, job=job, position=position)

    def read(self) -> None:
        """Hands over all frames that have arrived, without waiting for the event loop."""
        self._connection.read()

    def kill(self) -> None:
        """Kills the process now."""
        self._process.kill()

    def abandon(self) -> None:
        """Kills the process now and closes the socket. Only its exit is still noted."""
        self.kill()
        self._connection.close()

    async def exited(self) -> None:
        """Waits until the process has exited."""
        await asyncio.shield(self._exited)
        # It has nothing left to do.
        self._thread.join()

    def _wait(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended; the exit does not matter now
            self._loop.call_soon_threadsafe(self._end, code)

    def _end(self, code: int) -> None:
        self.read()
        self.exit = code
        self._connection.close()
        if not self._exited.done():
            self._exited.set_result(None)
        self._ended()


def _spawn(pass_fds: Sequence[int]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Starts a new interpreter. Returns the process and this side's end of the socket."""
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        process = subprocess.Popen(  # noqa: S603  # starts this package in this interpreter
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *map(str, sys.path)],
            pass_fds=(theirs.fileno(), *pass_fds),
            stdin=subprocess.DEVNULL,
            stdout=2,  # to stderr: what user code prints is for people, but a program may read the parent's stdout
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return process, ours
