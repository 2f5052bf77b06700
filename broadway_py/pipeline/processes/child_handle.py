"""Starts a worker process for a stage, exchanges frames with it over a socket, and waits for its exit."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from broadway_py.pipeline.processes.pickling import dumps
from broadway_py.pipeline.processes.protocol import Frame, FrameReader, Kind, Recipe, frame

__all__ = ["ChildHandle"]

_READ_BYTES: Final = 1 << 18

#: The search path is set to the parent's before any import. So the worker process can import what the parent can, and
#: a ``queue.py`` in the current directory hides no module (with ``-m`` it would).
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from broadway_py.pipeline.processes.child import main; main(int(sys.argv[1]))"
)

#: Signals such as Ctrl-C reach the whole process group, but a worker process must end only when its parent says so.
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildHandle:
    """A running worker process. A thread waits for its exit; all else runs in the event loop and does not block.

    Args:
        recipe: says which pipeline object the process makes.
        changed: called on each new event: a frame, or the exit.
        request_stop: called when a callback wants the pipeline to stop.

    Raises:
        OSError: the process, or the thread that waits for its exit, cannot be started now. Nothing is left running.
    """

    def __init__(self, recipe: Recipe, changed: Callable[[], None], request_stop: Callable[[], None]) -> None:
        #: The exit code, or the negative number of the signal that killed it; None while it runs.
        self.exit: int | None = None
        #: The received frames that were not processed yet.
        self.frames: deque[Frame] = deque()
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._request_stop = request_stop
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._reader = FrameReader()
        # There is one job at a time, so never more than one job waits here.
        self._unsent = bytearray()
        body = dumps(recipe)
        self._process, self._socket = _spawn()
        try:
            threading.Thread(target=self._wait, name=f"broadway-process-{self.pid}", daemon=True).start()
        except RuntimeError as error:
            # There are too many threads. Without this thread, the exit would not be noticed.
            self._process.kill()
            self._process.wait()
            self._socket.close()
            raise OSError(errno.EAGAIN, "no thread can be started to wait for its exit") from error
        try:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)
        except OSError:
            self._process.kill()
            self._socket.close()
            raise
        self.send(Kind.RECIPE, body)

    @property
    def pid(self) -> int:
        """Returns the process id."""
        return self._process.pid

    def send(self, kind: Kind, body: bytes = b"", *, job: int = 0) -> None:
        """Send a frame. Does nothing once the process has died."""
        if self._is_open:
            self._unsent += frame(kind, body, job=job)
            self._write()

    def read(self) -> None:
        """Read all frames that have arrived, without waiting for the event loop."""
        while self._is_open:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # The process exits, or a callback has closed the socket. Then the process is of no use.
                self._loop.remove_reader(self._socket.fileno())
                self.kill()
                return
            for each in self._reader.feed(data):
                if each.kind is Kind.STOP:
                    self._request_stop()
                else:
                    self.frames.append(each)

    def kill(self) -> None:
        """Kill the process now."""
        self._process.kill()

    def abandon(self) -> None:
        """Kill the process now and close the socket. Only its exit is still noted."""
        self.kill()
        self._hang_up()

    async def exited(self) -> None:
        """Wait until the process has exited."""
        await asyncio.shield(self._exited)

    def _on_readable(self) -> None:
        self.read()
        self._changed()

    def _write(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
        except BlockingIOError:
            self._loop.add_writer(self._socket.fileno(), self._write)
            return
        except OSError:
            self._unsent.clear()  # the process died; its exit is reported
        self._loop.remove_writer(self._socket.fileno())

    def _wait(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended; the exit does not matter now
            self._loop.call_soon_threadsafe(self._end, code)

    def _end(self, code: int) -> None:
        self.read()
        self.exit = code
        self._hang_up()
        if not self._exited.done():
            self._exited.set_result(None)
        self._changed()

    @property
    def _is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def _hang_up(self) -> None:
        if self._is_open:
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._unsent.clear()


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Starts a new interpreter. Returns the process and this side's end of the socket."""
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        process = subprocess.Popen(  # noqa: S603  # starts this package in this interpreter
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *map(str, sys.path)],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=2,  # to stderr: what a callback prints is for people, but a program may read the parent's stdout
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    ours.setblocking(False)
    return process, ours
