"""Group commit: many requests share one durable transaction, and each of them fails alone."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, Literal, TypeVar

from broadway_py.storage.connection import begin, commit, empty_log, patiently, undo
from broadway_py.storage.errors import StorageError, is_for_want_of_room, told
from broadway_py.storage.schema import Schema
from broadway_py.storage.writer_queue import WriterQueue

__all__ = ["GROUP_ROWS", "GROUP_SECONDS", "WriterRequest", "execute", "gather"]

R = TypeVar("R")

#: A transaction takes requests up to this many rows …
GROUP_ROWS: Final = 500
#: … and for this many seconds. Later requests wait for the next transaction.
GROUP_SECONDS: Final = 0.020


class WriterRequest(Generic[R]):
    """One piece of work on the connection, and the caller that waits for it. It is made in the caller's event loop."""

    __slots__ = ("error", "future", "kind", "loop", "result", "rows", "unclaimed", "wakes", "work")

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], R],
        kind: Literal["read", "write"],
        *,
        rows: int = 0,
        wakes: bool = False,
        unclaimed: Callable[[R], object] | None = None,
    ) -> None:
        self.work = work
        self.kind = kind
        self.rows = rows
        self.wakes = wakes
        self.unclaimed = unclaimed
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[R] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def deliver(self) -> None:
        """Gives the result or the error to the caller. It is called in the loop."""
        if self.future.done():  # cancelled meanwhile
            if self.error is None and self.unclaimed is not None:
                self.unclaimed(self.result)
        elif self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def gather(todo: deque[WriterRequest[Any]]) -> list[WriterRequest[Any]]:
    """Takes the requests of one transaction from the front of *todo*: at least one."""
    group = [todo.popleft()]
    rows = group[0].rows
    while todo and rows + todo[0].rows <= GROUP_ROWS:
        rows += todo[0].rows
        group.append(todo.popleft())
    return group


def execute(
    connection: sqlite3.Connection,
    schema: Schema,
    path: str,
    writer_queue: WriterQueue,
    group: list[WriterRequest[Any]],
) -> tuple[list[WriterRequest[Any]], list[WriterRequest[Any]]]:
    """Runs *group*: first the requests that only read, then the others in one transaction.

    The work of a request may run a second time, if the disk was full and the log could be emptied. What it did before
    is undone by then.

    Returns:
        The finished requests, with their result or error, and the requests that must wait for the next transaction,
        because this one took too long or was lost before their turn.
    """
    # A caller that was cancelled before its turn does not need a result.
    wanted = [request for request in group if not request.future.cancelled()]
    writes = [request for request in wanted if request.kind == "write"]
    finished = [request for request in wanted if request.kind == "read"]
    for request in finished:
        _attempt(connection, schema, path, request)
    if not writes:
        return finished, []
    with writer_queue.passed():
        transaction = _Transaction(connection, schema, path)
        left = transaction.run(writes)
        finished += transaction.members
        unstored = [request for request in transaction.members if is_for_want_of_room(request.error)]
        # The log may hold the space that the disk lacks. So it is emptied before a caller is told that the disk is
        # full.
        if unstored and empty_log(connection):
            for request in unstored:
                request.error = None
            second = _Transaction(connection, schema, path)
            left = second.run(unstored) + left
            finished = [request for request in finished if request not in unstored] + second.members
    return finished, left


class _Transaction:
    def __init__(self, connection: sqlite3.Connection, schema: Schema, path: str) -> None:
        self.connection = connection
        self.schema = schema
        self.path = path
        #: The requests whose work was tried.
        self.members: list[WriterRequest[Any]] = []

    def run(self, writes: list[WriterRequest[Any]]) -> list[WriterRequest[Any]]:
        """Tries *writes* and commits. Returns those that are left for another transaction."""
        try:
            begin(self.connection)
        except sqlite3.Error as error:
            self.members = writes
            self._lose(told(self.schema.what, self.path, error))
            return []
        until = time.monotonic() + GROUP_SECONDS
        for index, request in enumerate(writes):
            if index and time.monotonic() > until:
                break
            self.members.append(request)
            # A single request needs no savepoint: when it fails, the whole transaction is rolled back.
            self._try(request, guarded=len(writes) > 1)
            if not self.connection.in_transaction:
                # SQLite has rolled everything back (a full disk does that), and with it the work of the other requests.
                self._lose(request.error)
                return writes[len(self.members) :]
        try:
            commit(self.connection)
        except sqlite3.Error as error:
            undo(self.connection)
            self._lose(told(self.schema.what, self.path, error), is_unknown=True)
        return writes[len(self.members) :]

    def _try(self, request: WriterRequest[Any], *, guarded: bool) -> None:
        connection = self.connection
        try:
            if guarded:
                connection.execute("SAVEPOINT request")
            _attempt(connection, self.schema, self.path, request)
            if request.error is None:
                if guarded:
                    connection.execute("RELEASE request")
            elif connection.in_transaction:
                connection.execute("ROLLBACK TO request" if guarded else "ROLLBACK")
        except sqlite3.Error as error:
            # The rollback to the savepoint failed, so nothing of this transaction can be kept.
            request.error = request.error or told(self.schema.what, self.path, error)
            undo(connection)

    def _lose(self, error: BaseException | None, *, is_unknown: bool = False) -> None:
        for request in self.members:
            if request.error is None:
                sentence = str(error) if isinstance(error, StorageError) else _LOST.format(self.schema.what, self.path)
                # Each request gets its own exception: they are raised in different tasks, and each gets its own
                # traceback.
                request.error = StorageError(sentence, is_unknown=is_unknown)
                request.error.__cause__ = None if error is None else error.__cause__


_LOST: Final = "{} {}: the transaction was lost; nothing of this call was stored: try again"


def _attempt(connection: sqlite3.Connection, schema: Schema, path: str, request: WriterRequest[Any]) -> None:
    try:
        if request.kind == "read":
            request.result = patiently(partial(request.work, connection))
        else:
            request.result = request.work(connection)
    except sqlite3.Error as error:
        request.error = told(schema.what, path, error)
    except BaseException as error:  # noqa: BLE001  # every error goes to the caller
        request.error = error
