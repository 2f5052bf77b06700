"""One worker process as its stage sees it: started, spoken to over a socket, watched until it has exited."""

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

#: Before anything is imported, the search path is the parent's: what that can import, the worker process can, and a
#: ``queue.py`` that lies where the command was given hides nothing (as it would with ``-m``).
_PROGRAM: Final = (
    "import sys; sys.path[:] = sys.argv[2:]; "
    "from broadway_py.pipeline.processes.child import main; main(int(sys.argv[1]))"
)

#: Ctrl-C and the like reach the whole group; a worker process obeys its parent alone.
_BLOCKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ChildHandle:
    """A running worker process. Everything but the waiting for its exit is done in the event loop, and nothing blocks.

    Args:
        recipe: what it is to make.
        changed: called whenever there is something new: a frame, or the exit.
        request_stop: called when a callback wants the pipeline to stop.

    Raises:
        OSError: no process can be started now, or no thread that waits for its exit; nothing is left behind.
    """

    def __init__(self, recipe: Recipe, changed: Callable[[], None], request_stop: Callable[[], None]) -> None:
        #: Its exit code, or the signal that killed it, negative; None while it runs.
        self.exit: int | None = None
        #: What it said and nobody has looked at.
        self.frames: deque[Frame] = deque()
        self._loop = asyncio.get_running_loop()
        self._changed = changed
        self._request_stop = request_stop
        self._exited: asyncio.Future[None] = self._loop.create_future()
        self._reader = FrameReader()
        # One job is under way at a time, so no more than that ever waits here.
        self._unsent = bytearray()
        body = dumps(recipe)
        self._process, self._socket = _spawn()
        try:
            threading.Thread(target=self._wait, name=f"broadway-process-{self.pid}", daemon=True).start()
        except RuntimeError as error:
            # There are too many threads for now: then nobody would hear of its exit.
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
        """The process."""
        return self._process.pid

    def send(self, kind: Kind, body: bytes = b"", *, job: int = 0) -> None:
        """Say something. Nothing happens once it has died."""
        if self._is_open:
            self._unsent += frame(kind, body, job=job)
            self._write()

    def read(self) -> None:
        """Take in what it has said so far, without waiting for the event loop to notice."""
        while self._is_open:
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                # It exits, or a callback has closed what is not its own: then it is of no use any more.
                self._loop.remove_reader(self._socket.fileno())
                self.kill()
                return
            for each in self._reader.feed(data):
                if each.kind is Kind.STOP:
                    self._request_stop()
                else:
                    self.frames.append(each)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def abandon(self) -> None:
        """End it now, and hear no more of it than its exit."""
        self.kill()
        self._hang_up()

    async def exited(self) -> None:
        """Wait for its exit."""
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
            self._unsent.clear()  # it died: its exit says so
        self._loop.remove_writer(self._socket.fileno())

    def _wait(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it all interest
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
    """A fresh interpreter, and our end of the socket to it."""
    ours, theirs = socket.socketpair()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        process = subprocess.Popen(  # noqa: S603  # our own module, in this interpreter
            [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *map(str, sys.path)],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=2,  # what a callback prints is for people, as what it logs: our own output may be a program's input
        )
    except BaseException:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    ours.setblocking(False)
    return process, ours
