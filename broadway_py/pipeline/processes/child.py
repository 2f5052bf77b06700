"""The program of a worker process: makes its pipeline object, then runs callbacks on the messages of its stage.

:mod:`broadway_py.pipeline.processes.child_handle` starts it in a new interpreter, with the number of an inherited
socket.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import faulthandler
import io
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from types import FrameType, SimpleNamespace
from typing import Any, Final

from broadway_py import forks
from broadway_py.message import BatchInfo, Failed, Message
from broadway_py.pipeline.processes.pickling import dumps, failed_result, pack_error, pack_result, unpack_message
from broadway_py.pipeline.processes.protocol import BatchBody, ChunkBody, Frame, FrameReader, Kind, Recipe, frame
from broadway_py.pipeline.settlement.failures import fail, failure_from, reconcile, refused_return

__all__ = ["main"]

_READ_BYTES: Final = 1 << 20
#: On the kernel's scale up to 1000. When memory runs out, the kernel kills this process before its parent, which holds
#: the messages.
_OOM_SCORE: Final = "500"


class _ParentSocket:
    """The socket to the parent. A thread of its own reads it.

    So the process notices the parent's death, and answers when the parent takes messages back, while a callback runs.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.jobs: SimpleQueue[Frame] = SimpleQueue()
        self._socket = connection
        self._sending = threading.Lock()
        # Guards what the callbacks' thread and the reading thread share: the job, its position, what was taken back.
        self._looking = threading.Lock()
        self._job = 0
        self._at = -1
        self._taken: set[int] = set()

    def start(self) -> None:
        """Start the thread that reads."""
        threading.Thread(target=self._read, name="broadway-parent", daemon=True).start()

    def send(self, kind: Kind, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Send a frame to the parent. If the parent is gone, the process ends."""
        try:
            with self._sending:
                self._socket.sendall(frame(kind, body, job=job, position=position))
        except OSError:
            self._leave()

    def may_start(self, position: int) -> bool:
        """Go on to the message at *position*. Returns False if the parent has taken it back."""
        with self._looking:
            if position in self._taken:
                return False
            self._at = position
            return True

    def _read(self) -> None:
        frames = FrameReader()
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError:
                data = b""
            if not data:
                self._leave()
            for each in frames.feed(data):
                if each.kind is Kind.TAKE_BACK:
                    self._take_back(each)
                else:
                    self._take_in(each)

    def _take_in(self, job: Frame) -> None:
        with self._looking:
            self._job, self._at = job.job, -1
            self._taken.clear()
        self.jobs.put(job)

    def _take_back(self, wanted: Frame) -> None:
        positions: list[int] = pickle.loads(wanted.body)  # noqa: S301  # from our own parent
        with self._looking:
            taken = [each for each in positions if wanted.job == self._job and each > self._at]
            self._taken.update(taken)
        self.send(Kind.TAKEN, dumps(taken), job=wanted.job)

    def _leave(self) -> None:
        """End the process at once. The parent is gone, so results are of no use, and a callback may never return."""
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(1)


def _make(recipe: Recipe, parent: _ParentSocket) -> Any:
    """Returns the pipeline object, with its class's attributes, name, context and what ``setup_worker`` adds.

    Returns None if it cannot be made; the parent is told why.
    """
    step = f"importing {recipe.module}"
    try:
        cls: Any = import_module(recipe.module)
        for name in recipe.qualname.split("."):
            cls = getattr(cls, name)
        step = "unpickling its context"
        context = pickle.loads(recipe.context)  # noqa: S301  # from our own parent
        step = "setup_worker"
        # __init__ is not called: it needs the options of a whole pipeline.
        pipeline = cls.__new__(cls)
        vars(pipeline).update(
            name=recipe.name,
            context=context,
            request_stop=lambda: parent.send(Kind.STOP),
            # Its properties and its repr read this.
            _life_cycle=SimpleNamespace(state="running", is_running=True, run=None),
        )
        if pipeline.setup_worker is not None:
            pipeline.setup_worker()
    except BaseException as error:  # noqa: BLE001  # user code may raise anything, also sys.exit during the import
        parent.send(Kind.REFUSED, dumps((step, pack_error(error))))
        return None
    return pipeline


class _Callbacks:
    """Runs the callbacks for jobs."""

    def __init__(self, pipeline: Any, parent: _ParentSocket) -> None:
        self._parent = parent
        self._handle_message: Callable[[Message[Any]], object] = pipeline.handle_message
        self._handle_batch: Callable[[Sequence[Message[Any]], BatchInfo], object] | None = pipeline.handle_batch
        # The context as setup_worker has left it. Each message and each batch starts with it.
        self._base = contextvars.copy_context()

    def chunk(self, job: Frame) -> None:
        """Call ``handle_message`` for each message that is not taken back."""
        messages: list[bytes] = ChunkBody(*pickle.loads(job.body)).messages  # noqa: S301  # from our own parent
        for position, packed in enumerate(messages):
            if self._parent.may_start(position):
                result = self._base.copy().run(self._handle_one, packed)
                self._parent.send(Kind.RESULT, result, job=job.job, position=position)

    def _handle_one(self, packed: bytes) -> bytes:
        message = _unpacked(packed)
        if isinstance(message, Failed):
            return failed_result(message)
        given = message.data
        try:
            returned = self._handle_message(message)
            forks.leave_if_forked()
            if returned is not None and returned is not message:
                message._status = refused_return("handle_message", returned)
        except BaseException as error:  # noqa: BLE001  # user code: any error fails only this message
            message._status = failure_from(error)
        return pack_result(message, given, message._status, "handle_message")

    def batch(self, job: Frame) -> None:
        """Call ``handle_batch`` for all messages that can be unpickled."""
        self._base.copy().run(self._batch, job)

    def _batch(self, job: Frame) -> None:
        packed, info = BatchBody(*pickle.loads(job.body))  # noqa: S301  # from our own parent
        unpacked = [_unpacked(each) for each in packed]
        messages = [each for each in unpacked if isinstance(each, Message)]
        given = {id(message): message.data for message in messages}
        if messages:
            self._handle_all(messages, dataclasses.replace(info, size=len(messages)))
        results = [
            failed_result(each)
            if isinstance(each, Failed)
            else pack_result(each, given[id(each)], each._status, "handle_batch")
            for each in unpacked
        ]
        self._parent.send(Kind.BATCH_RESULT, dumps(results), job=job.job)

    def _handle_all(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        assert self._handle_batch is not None  # noqa: S101  # a pipeline without it has no batches
        try:
            returned = self._handle_batch(list(messages), info)
            forks.leave_if_forked()
            if returned is not None:
                reconcile("handle_batch", messages, returned)
        except BaseException as error:  # noqa: BLE001  # user code: any error fails the messages it was given
            fail(messages, failure_from(error))


def _unpacked(packed: bytes) -> Message[Any] | Failed:
    try:
        return unpack_message(packed)
    except BaseException as error:  # noqa: BLE001  # user code: any error fails only this message
        failure = failure_from(error)
        return Failed("raised", f"cannot be unpickled in the worker process: {failure.reason}", error)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Ignores a signal to the whole group (Ctrl-C, a service manager's stop): the parent decides when to end.

    SIG_IGN is not used because programs that a callback starts would inherit it.
    """


def _become_worker() -> None:
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _ignore) for number in taken}
    # The parent has blocked these signals while this process starts.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, taken)

    def be_forked() -> None:
        # A process that a callback forks must react to these signals as usual.
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    forks.when_forked(be_forked)
    forks.own_this_thread()
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Printed lines must not be lost when the process dies.
            stream.reconfigure(line_buffering=True)
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def main(descriptor: int) -> None:
    """Serve the stage at the other end of the socket until it sends CLOSE."""
    _become_worker()
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)  # a program that a callback starts would keep it open
    forks.when_forked(connection.close)
    parent = _ParentSocket(connection)
    parent.start()
    recipe: Recipe = pickle.loads(parent.jobs.get().body)  # noqa: S301  # from our own parent
    if recipe.log_setup is not None:
        pickle.loads(recipe.log_setup)()  # noqa: S301  # as above
    pipeline = _make(recipe, parent)
    if pipeline is None:
        return
    callbacks = _Callbacks(pipeline, parent)
    parent.send(Kind.READY)
    while (job := parent.jobs.get()).kind is not Kind.CLOSE:
        if job.kind is Kind.CHUNK:
            callbacks.chunk(job)
        else:
            callbacks.batch(job)
