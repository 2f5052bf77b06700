"""A worker process: makes its pipeline object, then runs callbacks on the messages that its stage sends.

Started by :mod:`broadway_py.pipeline.processes.child_handle` in a fresh interpreter, with the number of an
inherited socket.
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
from broadway_py._core.settlement import not_returned, returned_list_problem, returned_one_problem
from broadway_py.message import BatchInfo, Failed, Message
from broadway_py.pipeline.processes.pickling import dumps, failed_result, pack_error, pack_result, unpack_message
from broadway_py.pipeline.processes.protocol import BatchBody, ChunkBody, Frame, FrameReader, Kind, Recipe, frame
from broadway_py.pipeline.settlement.failures import fail, failure_from, refused

__all__ = ["main"]

_READ_BYTES: Final = 1 << 20
#: Of the kernel's thousand: when memory runs out, this process goes before its parent, which holds the messages.
_OOM_SCORE: Final = "500"


class _Link:
    """The socket to the parent, read by a thread of its own.

    So the parent's death is noticed, and what the parent wants back is answered, while a callback runs.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.jobs: SimpleQueue[Frame] = SimpleQueue()
        self._socket = connection
        self._sending = threading.Lock()
        # What the callbacks' thread and ours both look at: which job is the last, where it is, what was taken back.
        self._looking = threading.Lock()
        self._job = 0
        self._at = -1
        self._taken: set[int] = set()

    def start(self) -> None:
        """Read from now on."""
        threading.Thread(target=self._read, name="broadway-parent", daemon=True).start()

    def send(self, kind: Kind, body: bytes = b"", *, job: int = 0, position: int = 0) -> None:
        """Answer. With the parent gone there is nothing left to do but to end."""
        try:
            with self._sending:
                self._socket.sendall(frame(kind, body, job=job, position=position))
        except OSError:
            self._leave()

    def may_start(self, position: int) -> bool:
        """Go on to the message at *position*; False when the parent has taken it back."""
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
        """The parent is gone: what a callback does now is of no use to anybody, and it may never return."""
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(1)


def _make(recipe: Recipe, link: _Link) -> Any:
    """The pipeline object: its class's attributes, name and context, and what ``setup_worker`` adds."""
    step = f"importing {recipe.module}"
    try:
        cls: Any = import_module(recipe.module)
        for name in recipe.qualname.split("."):
            cls = getattr(cls, name)
        step = "unpickling its context"
        context = pickle.loads(recipe.context)  # noqa: S301  # from our own parent
        step = "setup_worker"
        # Not __init__: that takes the options of a whole pipeline, which this is not.
        pipeline = cls.__new__(cls)
        vars(pipeline).update(
            name=recipe.name,
            context=context,
            request_stop=lambda: link.send(Kind.STOP),
            # What its properties and its repr look at.
            _life=SimpleNamespace(state="running", is_running=True, runtime=None),
        )
        if pipeline.setup_worker is not None:
            pipeline.setup_worker()
    except BaseException as error:  # noqa: BLE001  # code of the user, down to a sys.exit while it is imported
        link.send(Kind.REFUSED, dumps((step, pack_error(error))))
        return None
    return pipeline


class _Callbacks:
    """Carries out jobs."""

    def __init__(self, pipeline: Any, link: _Link) -> None:
        self._link = link
        self._handle_message: Callable[[Message[Any]], object] = pipeline.handle_message
        self._handle_batch: Callable[[Sequence[Message[Any]], BatchInfo], object] | None = pipeline.handle_batch
        # As setup_worker has left it: what each message and each batch starts with.
        self._base = contextvars.copy_context()

    def chunk(self, job: Frame) -> None:
        """``handle_message`` for each message that is not taken back."""
        messages: list[bytes] = ChunkBody(*pickle.loads(job.body)).messages  # noqa: S301  # from our own parent
        for position, packed in enumerate(messages):
            if self._link.may_start(position):
                result = self._base.copy().run(self._handle_one, packed)
                self._link.send(Kind.RESULT, result, job=job.job, position=position)

    def _handle_one(self, packed: bytes) -> bytes:
        message = _unpacked(packed)
        if isinstance(message, Failed):
            return failed_result(message)
        given = message.data
        try:
            returned = self._handle_message(message)
            forks.leave_if_forked()
            if returned is not None and returned is not message:
                message._status = refused(returned_one_problem("handle_message", returned))
        except BaseException as error:  # noqa: BLE001  # code of the user: it fails this message alone
            message._status = failure_from(error)
        return pack_result(message, given, message._status, "handle_message")

    def batch(self, job: Frame) -> None:
        """``handle_batch`` for all messages that can be unpickled."""
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
        self._link.send(Kind.BATCH_RESULT, dumps(results), job=job.job)

    def _handle_all(self, messages: list[Message[Any]], info: BatchInfo) -> None:
        assert self._handle_batch is not None  # noqa: S101  # a pipeline without it has no batches
        try:
            returned = self._handle_batch(list(messages), info)
            forks.leave_if_forked()
            if returned is not None:
                problem, missing = returned_list_problem("handle_batch", messages, returned)
                if problem:
                    fail(messages, refused(problem))
                else:
                    fail([message for message in missing if message.ok], not_returned("handle_batch"))
        except BaseException as error:  # noqa: BLE001  # code of the user: it fails what it was given
            fail(messages, failure_from(error))


def _unpacked(packed: bytes) -> Message[Any] | Failed:
    try:
        return unpack_message(packed)
    except BaseException as error:  # noqa: BLE001  # code of the user: it fails this message alone
        failure = failure_from(error)
        return Failed("raised", f"cannot be unpickled in the worker process: {failure.reason}", error)


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """A signal for the whole group (Ctrl-C, a service manager's stop): the parent decides when to end.

    Not SIG_IGN, which programs that a callback starts would inherit.
    """


def _become_worker() -> None:
    taken = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _ignore) for number in taken}
    # The parent has them blocked while we start.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, taken)

    def be_forked() -> None:
        # Whom a callback forks off can be ended by whoever has started it.
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    forks.when_forked(be_forked)
    forks.own_this_thread()
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What was printed must be there when the process dies.
            stream.reconfigure(line_buffering=True)
    with contextlib.suppress(OSError):  # not Linux, or not allowed
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def main(descriptor: int) -> None:
    """Serve the stage at the other end of the socket until it says that it is over."""
    _become_worker()
    connection = socket.socket(fileno=descriptor)
    connection.set_inheritable(False)  # or a program started by a callback would hold it open
    forks.when_forked(connection.close)
    link = _Link(connection)
    link.start()
    recipe: Recipe = pickle.loads(link.jobs.get().body)  # noqa: S301  # from our own parent
    if recipe.log_setup is not None:
        pickle.loads(recipe.log_setup)()  # noqa: S301  # as above
    pipeline = _make(recipe, link)
    if pipeline is None:
        return
    callbacks = _Callbacks(pipeline, link)
    link.send(Kind.READY)
    while (job := link.jobs.get()).kind is not Kind.CLOSE:
        if job.kind is Kind.CHUNK:
            callbacks.chunk(job)
        else:
            callbacks.batch(job)
