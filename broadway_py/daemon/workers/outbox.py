"""The commands of a supervisor to one worker. They are written into a pipe without waiting for the worker to read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import struct
from typing import Final

from broadway_py.daemon.workers.messages import Assignment, Command

__all__ = ["Outbox"]

_LENGTH: Final = struct.Struct("!i")
_MOST: Final = 0x7FFFFFFF


class Outbox:
    """Sends commands into a pipe, in the form that ``multiprocessing.connection.Connection.recv`` reads.

    A worker that is stopped, or whose commands thread does not run, reads nothing. Its pipe is full after some hundred
    commands. So commands that do not fit into the pipe wait here. Only the last of each kind is kept, because only the
    last one counts. All methods are called in the event loop.

    Args:
        descriptor: the write end of the pipe, which :meth:`close` closes.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        os.set_blocking(descriptor, False)
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        # By kind and pipeline: at most one control of each kind for each pipeline, and one of each other kind.
        self._waiting: dict[tuple[str, str], Command] = {}
        self._is_watching = False

    def begin(self, assignment: Assignment) -> None:
        """Sends the assignment. It goes before everything else, however long it is."""
        self._unsent += _packed(assignment)
        self._write()

    def put(self, command: Command) -> None:
        """Sends *command* as soon as there is room. Nothing happens once the worker has died."""
        if self._descriptor is None:
            return
        kind = "pause" if command.act == "resume" else command.act
        self._waiting.pop((kind, command.pipeline), None)
        self._waiting[kind, command.pipeline] = command
        self._write()

    def close(self) -> None:
        """Closes the pipe, when the worker has ended."""
        self._watch(wanted=False)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
        self._unsent.clear()
        self._waiting.clear()

    def _write(self) -> None:
        if self._descriptor is None:
            return
        try:
            while self._unsent or self._waiting:
                if not self._unsent:
                    self._unsent += _packed(self._waiting.pop(next(iter(self._waiting))))
                del self._unsent[: os.write(self._descriptor, self._unsent)]
        except BlockingIOError:
            self._watch(wanted=True)
            return
        except OSError:  # it died: its exit is handled elsewhere
            self._unsent.clear()
            self._waiting.clear()
        self._watch(wanted=False)

    def _watch(self, *, wanted: bool) -> None:
        if self._descriptor is None or wanted == self._is_watching:
            return
        self._is_watching = wanted
        with contextlib.suppress(OSError):
            if wanted:
                self._loop.add_writer(self._descriptor, self._write)
            else:
                self._loop.remove_writer(self._descriptor)


def _packed(message: Assignment | Command) -> bytes:
    body = pickle.dumps(message)
    if len(body) > _MOST:
        raise ValueError(f"expected settings of less than 2 GiB, got {len(body):,} bytes pickled")
    return _LENGTH.pack(len(body)) + body
