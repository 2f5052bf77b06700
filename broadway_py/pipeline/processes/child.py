"""What runs in a worker process: makes the pipeline object, then runs callbacks on the messages of its stage."""

from __future__ import annotations

import contextvars
import dataclasses
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

from broadway_py import forks
from broadway_py.errors import DefinitionError
from broadway_py.message import BatchInfo, Failed, Message
from broadway_py.pipeline.processes.pickling import failed_result, pack_result, unpack_message
from broadway_py.pipeline.processes.protocol import BatchBody, ChunkBody, Headers, Kind, Recipe
from broadway_py.pipeline.settlement.failures import fail, failure_from, reconcile, refused_return
from broadway_py.pipeline.tracers import EnterHeaders, new_entry
from broadway_py.process.frames import Frame, dumps
from broadway_py.process.packed_errors import pack_error
from broadway_py.process.parent_socket import ParentSocket

__all__ = ["serve"]


class _Jobs:
    """The jobs that the parent has sent. It may take back messages of the current one while a callback runs."""

    def __init__(self, parent: ParentSocket) -> None:
        self._parent = parent
        self._jobs: SimpleQueue[Frame] = SimpleQueue()
        # Guards what the callbacks' thread and the reading thread share: the job, its position, what was taken back.
        self._looking = threading.Lock()
        self._job = 0
        self._at = -1
        self._taken: set[int] = set()

    def next(self) -> Frame:
        """Wait for the next job. The last one is CLOSE."""
        return self._jobs.get()

    def may_start(self, position: int) -> bool:
        """Go on to the message at *position*. Returns False if the parent has taken it back."""
        with self._looking:
            if position in self._taken:
                return False
            self._at = position
            return True

    def take(self, frame: Frame) -> None:
        """Take in a frame from the parent. Called in the thread that reads."""
        if frame.kind == Kind.TAKE_BACK:
            self._take_back(frame)
            return
        with self._looking:
            self._job, self._at = frame.job, -1
            self._taken.clear()
        self._jobs.put(frame)

    def _take_back(self, wanted: Frame) -> None:
        positions: list[int] = pickle.loads(wanted.body)  # noqa: S301  # from our own parent
        with self._looking:
            taken = [each for each in positions if wanted.job == self._job and each > self._at]
            self._taken.update(taken)
        self._parent.send(Kind.TAKEN, dumps(taken), job=wanted.job)


def _make(recipe: Recipe, parent: ParentSocket) -> tuple[Any, EnterHeaders | None] | None:
    """Returns the pipeline object, with its class's attributes, name, context and what ``setup_worker`` adds.

    Besides it returns what enters the span of a message; None without tracing. Returns None if it cannot be made; the
    parent is told why.
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
            publishers=_NoPublishers(),
            request_stop=lambda: parent.send(Kind.STOP),
            # Its properties and its repr read this.
            _life_cycle=SimpleNamespace(state="running", is_running=True, run=None),
        )
        if pipeline.setup_worker is not None:
            pipeline.setup_worker()
        step = "loading OpenTelemetry"
        enter = new_entry() if recipe.tracing else None
    except BaseException as error:  # noqa: BLE001  # user code may raise anything, also sys.exit during the import
        parent.send(Kind.REFUSED, dumps((step, pack_error(error))))
        return None
    return pipeline, enter


class _NoPublishers(Mapping[str, Any]):
    """Stands for the publishers, which are in the process of the pipeline."""

    def __getitem__(self, name: str) -> Any:
        raise DefinitionError(
            f"publishers[{name!r}] was used in a worker process (executor='process'); publishers work in the process "
            "of the pipeline only: publish in an `async def` callback, such as handle_batch, or leave the executor out"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Callbacks:
    """Runs the callbacks for jobs."""

    def __init__(self, pipeline: Any, parent: ParentSocket, jobs: _Jobs, enter: EnterHeaders | None) -> None:
        self._enter = enter
        self._parent = parent
        self._jobs = jobs
        self._handle_message: Callable[[Message[Any]], object] = pipeline.handle_message
        self._handle_batch: Callable[[Sequence[Message[Any]], BatchInfo], object] | None = pipeline.handle_batch
        # The context as setup_worker has left it. Each message and each batch starts with it.
        self._base = contextvars.copy_context()

    def chunk(self, job: Frame) -> None:
        """Call ``handle_message`` for each message that is not taken back."""
        messages, headers = ChunkBody(*pickle.loads(job.body))  # noqa: S301  # from our own parent
        for position, packed in enumerate(messages):
            if self._jobs.may_start(position):
                context = self._context(headers[position] if headers else None)
                result = context.run(self._handle_one, packed)
                self._parent.send(Kind.RESULT, result, job=job.job, position=position)

    def _context(self, headers: Headers | None) -> contextvars.Context:
        """Returns a clean context, in which the span with these *headers* is the current one."""
        context = self._base.copy()
        if headers is not None and self._enter is not None:
            context.run(self._enter, headers)
        return context

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
        body = BatchBody(*pickle.loads(job.body))  # noqa: S301  # from our own parent
        self._context(body.headers).run(self._batch, job, body)

    def _batch(self, job: Frame, body: BatchBody) -> None:
        packed, info, _ = body
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


def serve(parent: ParentSocket, recipe: Recipe) -> None:
    """Run callbacks for the stage at the other end of the socket until it sends CLOSE."""
    made = _make(recipe, parent)
    if made is None:
        return
    pipeline, enter = made
    jobs = _Jobs(parent)
    callbacks = _Callbacks(pipeline, parent, jobs, enter)
    parent.listen(jobs.take)
    parent.send(Kind.READY)
    while (job := jobs.next()).kind != Kind.CLOSE:
        if job.kind == Kind.CHUNK:
            callbacks.chunk(job)
        else:
            callbacks.batch(job)
