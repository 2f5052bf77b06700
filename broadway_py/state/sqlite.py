"""Keeps window state in an SQLite file: one for all aggregators of a pipeline."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from broadway_py.log import logger
from broadway_py.state import rows
from broadway_py.state.lock import StateLock
from broadway_py.state.partitions import StatePartition
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.state.sizes import Sizes
from broadway_py.state.store import AggregatorFacts, Commit, Loaded, StoredIdentities, StoredResult, StoredRow
from broadway_py.state.table import AFTER_ALL, FROM_START, Table, find
from broadway_py.storage import sharing
from broadway_py.storage.errors import StorageError, refuse_hopeless
from broadway_py.storage.writer import Writer

__all__ = ["SQLiteStore"]

R = TypeVar("R")

log = logger("broadway_py.state")


class SQLiteStore:
    """The file *path*, which is created if it is missing. See :class:`~broadway_py.state.store.StateStore`.

    What is committed survives the end of the process and a loss of power. While the store is open, the lock file
    ``-lock`` lies beside the file, and nobody else can open it as a store.

    Args:
        path: the file.
        partition: the partition of the sources that it belongs to; None: they have none.
    """

    def __init__(self, path: str | os.PathLike[str], partition: StatePartition | None = None) -> None:
        self.path = os.fspath(path)
        self._partition = partition
        self._lock: StateLock | None = None
        self._writer: Writer | None = None
        self._tables: dict[str, Table] = {}
        self._sizes: dict[str, Sizes] = {}
        # Of each aggregator the number of the commit of which it is not known whether it is stored.
        self._unsure: dict[str, int] = {}

        # For each aggregator: the identities of all checkpoints before this number were removed.
        self._forgotten: dict[str, int] = {}

    async def open(
        self, aggregators: Mapping[str, AggregatorFacts], *, waiting: Callable[[str], object] = log.warning
    ) -> None:
        """Locks and opens the file, and compares *aggregators* with it. Aggregators that it has besides stay in it.

        Raises:
            StorageError: it cannot be opened, or has values that these aggregators cannot use.
        """
        what = STATE_SCHEMA.what
        refuse_hopeless(what, self.path)
        self._forgotten = {}
        self._lock = await StateLock.take(what, self.path, waiting)
        try:
            # Only now: another program's version of the file is changed by nobody who stands by.
            self._writer = await sharing.acquire(self.path, STATE_SCHEMA)
            self._tables, left = await self._writer.write(
                partial(rows.enroll, what=f"{what} {self.path}", aggregators=aggregators, partition=self._partition)
            )
            for name, table in self._tables.items():
                self._sizes[name] = await self._writer.read(table.sizes)
        except BaseException:
            await self.close()
            raise
        for name in left:
            log.warning(
                "the state file has windows or results of an aggregator that the pipeline does not have; they stay "
                "there, and nothing is done with them: give the aggregator back to the pipeline, or remove them with "
                "broadway windows remove",
                path=self.path,
                aggregator=name,
            )

    async def load(self, aggregator: str) -> Loaded:
        """Returns what the last checkpoint left, except for its rows."""
        return await self._open().read(self._tables[aggregator].load)

    def buckets(self, aggregator: str) -> AsyncIterator[list[StoredRow]]:
        """Returns the rows of accumulators, those of the oldest checkpoint first."""
        return self._parts(self._tables[aggregator].rows)

    def identities(self, aggregator: str) -> AsyncIterator[list[StoredIdentities]]:
        """Returns the identities, those of the oldest checkpoint first."""
        return self._parts(self._tables[aggregator].identities)

    def results(self, aggregator: str) -> AsyncIterator[list[StoredResult]]:
        """Returns the results by their sequence numbers."""
        return self._parts(self._tables[aggregator].results)

    async def find(self, aggregator: str, wanted: Collection[bytes]) -> set[bytes]:
        """Returns those of *wanted* that are in the file. It takes 0.1 s or more for a million in the file."""
        table = self._tables[aggregator]
        found: set[bytes] = set()
        missing = set(wanted)
        before = AFTER_ALL
        while missing and before:
            seen, before = await self._open().read(partial(find, table=table, wanted=missing, before=before))
            found |= seen
            missing -= seen
        return found

    async def commit(self, commit: Commit) -> None:
        """Stores a checkpoint. It is on the disk when this returns.

        Raises:
            StorageError: nothing was stored; or, if ``is_unknown`` is true, the file cannot be asked.
        """
        table, forget_before = self._tables[commit.aggregator], commit.forget_before
        if forget_before <= self._forgotten.get(commit.aggregator, 1):
            # It moves seldom, and a statement for nothing costs a wait for the interpreter's lock, too.
            commit = replace(commit, forget_before=0)
        size = len(commit.appended) + len(commit.results) + len(commit.emitted) + 1
        try:
            growth = await self._open().write(partial(rows.store, table=table, commit=commit), rows=size)
        except StorageError as error:
            if error.is_unknown:
                self._unsure[commit.aggregator] = commit.number
                if await self._is_stored(commit, error):
                    return
            error.is_unknown = False
            raise
        self._sizes[commit.aggregator].note(commit, growth)
        if commit.forget_before:
            self._forgotten[commit.aggregator] = min(forget_before, commit.number + 1)

    async def _is_stored(self, commit: Commit, error: StorageError) -> bool:
        try:
            return await self.last_number(commit.aggregator) == commit.number
        except StorageError:
            raise StorageError(
                f"{STATE_SCHEMA.what} {self.path}: it is not known whether checkpoint {commit.number} of aggregator "
                f"{commit.aggregator!r} was stored: the disk failed while it was written, and then the file could not "
                "be asked: look at the disk and free some space",
                is_unknown=True,
            ) from error

    async def last_number(self, aggregator: str) -> int:
        """Returns the number of the last checkpoint in the file."""
        number = await self._open().write(partial(rows.ask_number, table=self._tables[aggregator]))
        if self._unsure.get(aggregator) == number:
            self._sizes[aggregator] = await self._open().read(self._tables[aggregator].sizes)
        self._unsure.pop(aggregator, None)
        return number

    async def unwanted(self, aggregator: str) -> list[int]:
        """Returns the sequence numbers of those results that operators want to be removed."""
        return await self._open().read(self._tables[aggregator].unwanted)

    def size_bytes(self, aggregator: str) -> int:
        """Returns how many bytes the contents of the rows have. The file is not asked."""
        sizes = self._sizes.get(aggregator)
        return 0 if sizes is None else sizes.total

    async def close(self) -> None:
        """Closes the file, and gives the lock back. Returns after the running calls have ended."""
        writer, self._writer = self._writer, None
        lock, self._lock = self._lock, None
        try:
            if writer is not None:
                await sharing.release(writer)
        finally:
            if lock is not None:
                lock.drop()

    async def _parts(self, read: Callable[..., tuple[list[R], int]]) -> AsyncIterator[list[R]]:
        after = FROM_START
        while True:
            part, after = await self._open().read(partial(read, after=after))
            if not part:
                return
            yield part

    def _open(self) -> Writer:
        if self._writer is None:
            raise StorageError(f"{STATE_SCHEMA.what} {self.path}: it is closed: open it before this call")
        return self._writer
