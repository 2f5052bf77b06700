"""The only thread of this process that uses a file."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future as ThreadFuture
from typing import Any, Final, TypeVar

from broadway_py.log import logger
from broadway_py.storage.connection import connect
from broadway_py.storage.errors import StorageError
from broadway_py.storage.foreign_commits import ForeignCommits
from broadway_py.storage.group import WriterRequest, execute, gather
from broadway_py.storage.room import LogLimit
from broadway_py.storage.schema import Schema
from broadway_py.storage.writer_queue import WriterQueue

__all__ = ["Writer"]

R = TypeVar("R")

log = logger("broadway_py.storage")

#: How many requests may wait for the thread. Further callers wait until there is room.
MAX_WAITING: Final = 4_096

_Call = tuple[asyncio.AbstractEventLoop, Callable[[], object]]


class Writer:
    """Runs functions on the connection in its own thread, in groups that share one durable transaction.

    :mod:`broadway_py.storage.sharing` makes, shares and stops it. Any number of event loops may use one.

    Args:
        path: the file. A missing file is created.
        schema: its tables.
    """

    def __init__(self, path: str, schema: Schema) -> None:
        self.path = path
        self.schema = schema
        #: Done when the file is open. It holds the StorageError if the file cannot be opened.
        self.opened: ThreadFuture[None] = ThreadFuture()
        #: Done when the thread has closed the file.
        self.ended: ThreadFuture[None] = ThreadFuture()
        for outcome in (self.opened, self.ended):
            outcome.set_running_or_notify_cancel()  # one cancelled waiter must not cancel it for all
        self._inbox: queue.SimpleQueue[WriterRequest[Any] | None] = queue.SimpleQueue()
        self._todo: deque[WriterRequest[Any]] = deque()
        self._lock = threading.Lock()
        self._waiting = 0
        self._parked: deque[_Call] = deque()
        self._listeners: set[_Call] = set()
        self._is_stopping = False
        # True while the thread waits for the kernel, and not for the inbox.
        self._is_asleep = False
        self._foreign: ForeignCommits | None = None
        self._changes = 0
        self._log_limit = LogLimit(path)

    def start(self) -> None:
        """Starts the thread. It is daemonic: a process may end at any moment, and what was confirmed is on the disk."""
        threading.Thread(target=self._live, name=f"broadway-storage:{self.path}", daemon=True).start()

    def stop(self) -> None:
        """Finishes the requests so far, closes the file and ends the thread. See :attr:`ended`.

        Later requests are refused.
        """
        with self._lock:
            if not self._is_stopping:
                self._is_stopping = True
                self._put(None)

    @property
    def changes(self) -> int | None:
        """How many changes of the file were noticed. None: nobody listens, so those of others are not looked for."""
        return self._changes if self._listeners else None

    async def write(
        self,
        work: Callable[[sqlite3.Connection], R],
        *,
        rows: int = 1,
        wakes: bool = False,
        unclaimed: Callable[[R], object] | None = None,
    ) -> R:
        """Runs *work* in a transaction, together with the work of others. Returns its result once that is on the disk.

        An error of *work* is raised here. It undoes what *work* did, and does not affect the work of others.

        Args:
            work: called with the connection, in the writer's thread. It must neither commit nor keep the connection.
            rows: about how many rows it touches, so that a transaction stays short.
            wakes: whether listeners (see :meth:`listening`) have a reason to look again.
            unclaimed: called in the loop with the result if it was stored but the caller was cancelled meanwhile.

        Raises:
            StorageError: SQLite refused. Nothing of this call was stored.
        """
        return await self._ask(WriterRequest(work, "write", rows=rows, wakes=wakes, unclaimed=unclaimed))

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Runs *work*, which only reads, outside of any transaction. It sees all writes that have returned.

        Raises:
            StorageError: SQLite refused.
        """
        return await self._ask(WriterRequest(work, "read"))

    @contextlib.contextmanager
    def listening(self, callback: Callable[[], object]) -> Iterator[None]:
        """Calls *callback* in the running loop whenever something may be new in the file, while the block runs.

        A commit after the entry is never missed. A call may also come without anything new.
        """
        listener = (asyncio.get_running_loop(), callback)
        with self._lock:
            self._listeners.add(listener)
        try:
            yield
        finally:
            with self._lock:
                self._listeners.discard(listener)

    async def _ask(self, request: WriterRequest[R]) -> R:
        room = asyncio.Event()
        while not self._admit(request, room):
            try:
                await room.wait()
            except BaseException:
                self._call_parked()  # this caller may have had its turn, so the next one gets it
                raise
            room.clear()
        return await request.future

    def _call_parked(self) -> None:
        with self._lock:
            room = max(0, MAX_WAITING - self._waiting)
            called = [self._parked.popleft() for _ in range(min(room, len(self._parked)))]
        for loop, callback in called:
            _call_in(loop, callback)

    def _admit(self, request: WriterRequest[Any], room: asyncio.Event) -> bool:
        with self._lock:
            if self._is_stopping:
                raise StorageError(f"{self.schema.what} {self.path}: it is closed: open it before this call")
            if self._waiting >= MAX_WAITING:
                self._parked.append((request.loop, room.set))
                return False
            self._waiting += 1
            self._put(request)
            return True

    def _put(self, request: WriterRequest[Any] | None) -> None:
        self._inbox.put(request)
        if self._is_asleep and self._foreign is not None:
            self._foreign.wake()

    # --- from here on: in the thread --------------------------------------------------------------------------------

    def _live(self) -> None:
        try:
            connection = connect(self.path, self.schema)
            writer_queue = self._line(connection)
        except BaseException as error:  # noqa: BLE001  # every error goes to those who opened
            self.opened.set_exception(error)
            self.ended.set_result(None)
            return
        self.opened.set_result(None)
        self._foreign = foreign = ForeignCommits(self.path, connection)
        try:
            self._serve(connection, writer_queue, foreign)
        except BaseException as error:
            log.exception("the storage thread has crashed", path=self.path)
            self._refuse_all(error)
        finally:
            foreign.close()
            with contextlib.suppress(sqlite3.Error):  # what was confirmed is already in the file's log
                connection.close()
            writer_queue.close()
            self.ended.set_result(None)

    def _line(self, connection: sqlite3.Connection) -> WriterQueue:
        try:
            return WriterQueue(self.path)
        except OSError as error:
            connection.close()
            raise StorageError(
                f"{self.schema.what} {self.path}: the lock file {error.filename} cannot be created ({error.strerror}): "
                "give this user write permission to it and to the directory, or choose another path"
            ) from error

    def _serve(self, connection: sqlite3.Connection, writer_queue: WriterQueue, foreign: ForeignCommits) -> None:
        is_open = True
        while is_open or self._todo:
            if not self._todo:
                is_open = self._receive(self._wait(foreign))
            while not self._inbox.empty():
                is_open = self._receive(self._inbox.get()) and is_open
            if self._todo:
                self._run_group(connection, writer_queue, foreign)

    def _receive(self, request: WriterRequest[Any] | None) -> bool:
        if request is None:
            return False
        self._todo.append(request)
        return True

    def _wait(self, foreign: ForeignCommits) -> WriterRequest[Any] | None:
        while self._listeners:
            if foreign.is_watched:
                self._sleep(foreign)
                if not self._inbox.empty():
                    break
            else:
                with contextlib.suppress(queue.Empty):
                    return self._inbox.get(timeout=foreign.until_look())
            if foreign.look():
                self._changes += 1
                self._call_listeners()
        return self._inbox.get()

    def _sleep(self, foreign: ForeignCommits) -> None:
        with self._lock:
            self._is_asleep = self._inbox.empty()
        if self._is_asleep:
            foreign.wait()
            with self._lock:
                self._is_asleep = False

    def _run_group(self, connection: sqlite3.Connection, writer_queue: WriterQueue, foreign: ForeignCommits) -> None:
        group = gather(self._todo)
        self._log_limit.adapt(connection)
        try:
            finished, left = execute(connection, self.schema, self.path, writer_queue, group)
        except BaseException:
            self._todo.extendleft(group)  # _refuse_all gives them the error
            raise
        self._todo.extendleft(reversed(left))
        with self._lock:
            self._waiting -= len(group) - len(left)
        if any(request.kind == "write" for request in finished):
            self._changes += 1
            foreign.restart()
        self._call_parked()
        self._deliver(finished)
        if any(request.wakes and request.error is None for request in finished):
            self._call_listeners()

    def _deliver(self, finished: Iterable[WriterRequest[Any]]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[WriterRequest[Any]]] = {}
        for request in finished:
            by_loop.setdefault(request.loop, []).append(request)
        for loop, requests in by_loop.items():
            _call_in(loop, functools.partial(_hand_over, requests))

    def _call_listeners(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for loop, callback in listeners:
            _call_in(loop, callback)

    def _refuse_all(self, error: BaseException) -> None:
        with self._lock:
            self._is_stopping = True
            self._waiting = 0
        while not self._inbox.empty():
            self._receive(self._inbox.get())
        for request in self._todo:
            request.error = StorageError(
                f"{self.schema.what} {self.path}: its thread has crashed ({type(error).__name__}); "
                "nothing of this call was stored: open it again"
            )
        self._deliver(self._todo)
        self._call_parked()


def _hand_over(requests: Iterable[WriterRequest[Any]]) -> None:
    for request in requests:
        request.deliver()


def _call_in(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    # In a closed loop no caller is left that could wait.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
