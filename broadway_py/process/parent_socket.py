"""The end of the socket between a worker process and its parent that is in the worker process."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from broadway_py.process.frames import Frame, FrameReader, frame

__all__ = ["ParentSocket"]

_READ_BYTES: Final = 1 << 20


class ParentSocket:
    """The socket to the parent. A thread of its own reads it.

    So the process notices the parent's death, and can answer its parent, while it runs code that does not return. When
    the parent is gone, the process ends at once. It also does if what takes the frames raises.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        # Guards the way of the frames: who takes them, and which wait for that.
        self._has_come = threading.Condition()
        self._waiting: deque[Frame] = deque()
        self._take: Callable[[Frame], object] = self._keep

    def start(self) -> None:
        """Starts the thread that reads."""
        threading.Thread(target=self._run, name="broadway-parent", daemon=True).start()

    def send(self, kind: int, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Sends a frame to the parent, from any thread. It waits until the system has taken the frame."""
        try:
            with self._sending:
                self._socket.sendall(frame(kind, body, job=job, position=position))
        except OSError:
            self._leave()

    def wait(self) -> Frame:
        """Returns the next frame, and waits for it. Use it before :meth:`listen` only."""
        with self._has_come:
            self._has_come.wait_for(lambda: self._waiting)
            return self._waiting.popleft()

    def listen(self, take: Callable[[Frame], object]) -> None:
        """Has the reading thread call *take* with each frame from now on. Those that came before come first."""
        with self._has_come:
            while self._waiting:
                take(self._waiting.popleft())
            self._take = take

    def _keep(self, each: Frame) -> None:
        self._waiting.append(each)
        self._has_come.notify()

    def _run(self) -> None:
        try:
            self._read()
        except BaseException:  # noqa: BLE001  # from those who take the frames
            sys.excepthook(*sys.exc_info())
        finally:
            # Without this thread, the process would outlive its parent.
            self._leave()

    def _read(self) -> None:
        """Hands over frames until the parent is gone."""
        frames = FrameReader()
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                return
            for each in frames.feed(data):
                with self._has_come:
                    self._take(each)

    def _leave(self) -> None:
        """Ends the process at once. The parent is gone, so results are of no use, and user code may never return."""
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(1)
