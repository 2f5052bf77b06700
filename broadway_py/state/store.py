"""The port of the stores: where aggregators keep their windows, identities and results between two starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

__all__ = [
    "IDENTITY_BYTES",
    "AggregatorFacts",
    "CloseWish",
    "Commit",
    "Loaded",
    "StateStore",
    "StoredIdentities",
    "StoredResult",
    "StoredRow",
]

#: The length of an identity.
IDENTITY_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class AggregatorFacts:
    """What a store compares with what it has of an aggregator, before anything is loaded."""

    #: The version of the values: ``Aggregator.version``.
    version: int
    #: The kind of its windows and their size, for people: ``"fixed windows of 60 s"``, for example.
    window: str
    #: The name of the type of the keys.
    key_type: str
    #: The name of the type of the values.
    value_type: str
    #: Whether it can turn values of an older version into values of this one.
    has_upgrade: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """One checkpoint of one aggregator. A store keeps all of it or nothing."""

    aggregator: str
    #: 1, 2, …: one more than that of the last checkpoint of this aggregator.
    number: int
    #: What the aggregator needs at its start, as JSON: its watermark and counters, for example. It replaces the former.
    memory: bytes
    #: New rows of accumulators: the bucket, the bytes, and how many accumulators are in them. A bucket is the start of
    #: a window in microseconds since 1970. For windows that begin at another time for each key it is a number from 0 to
    #: 63.
    appended: Sequence[tuple[int, bytes, int]] = ()
    #: A bucket, and a number: the rows of this bucket that earlier checkpoints than this number appended are removed.
    #: For a closed window it is :attr:`number` + 1, which also takes the rows of this very checkpoint.
    dropped: Sequence[tuple[int, int]] = ()
    #: The identities of the messages that this checkpoint contains: 16 bytes each, one after the other.
    identities: bytes = b""
    #: The identities of checkpoints before this number are removed.
    forget_before: int = 0
    #: Rows of results that are due: the sequence number of the first, the bytes, and how many results are in them. The
    #: others follow the first, and no number is used again. :func:`~broadway_py.state.results.join` makes the bytes.
    results: Sequence[tuple[int, bytes, int]] = ()
    #: The sequence numbers of the results that ``emit`` has taken, or that nobody wants. They are removed.
    emitted: Sequence[int] = ()
    #: The :attr:`CloseWish.number` of the wish that has come true. It is removed, and newer ones stay.
    closed: int = 0


class CloseWish(NamedTuple):
    """Which windows operators want to be closed at the next start: all their wishes together."""

    #: Grows with each wish.
    number: int
    #: Only windows that end then or earlier, in microseconds since 1970; None: all of them.
    before: int | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a store has of an aggregator, except for its rows."""

    #: :attr:`Commit.memory` of the last checkpoint. None: there is none yet.
    memory: bytes | None
    #: The oldest version of the values in rows and results. Without any it is the version of the aggregator.
    version: int
    #: The number of the last checkpoint. 0: there is none yet.
    number: int
    #: How many accumulators the rows hold, each version of one counted. For the progress of the loading.
    entries: int
    #: How many identities there are.
    identities: int
    #: Which windows operators want to be closed now.
    close_wish: CloseWish | None = None


class StoredRow(NamedTuple):
    """Accumulators that one checkpoint stored in one bucket."""

    bucket: int
    #: The number of the checkpoint.
    number: int
    blob: bytes
    #: The version of the values: that of the aggregator that stored them.
    version: int


class StoredIdentities(NamedTuple):
    """The identities of one checkpoint."""

    number: int
    #: 16 bytes each.
    identities: bytes


class StoredResult(NamedTuple):
    """A result that no ``emit`` has taken yet, as far as the store knows."""

    sequence: int
    #: JSON.
    result: bytes
    #: The version of the value in it.
    version: int


class StateStore(Protocol):
    """Keeps the state of all aggregators of one pipeline.

    Every method may raise :class:`~broadway_py.storage.errors.StorageError`, whose text says where, what happened and
    what to do. It is used from one event loop. After :meth:`open` the methods may be called at the same time, but
    :meth:`commit` of one aggregator only after the commit before it has returned.
    """

    async def open(self, aggregators: Mapping[str, AggregatorFacts], *, waiting: Callable[[str], object] = ...) -> None:
        """Locks the store for this object until :meth:`close`, and compares *aggregators* with what it has.

        While another object or process has the lock, it waits, without a limit. A cancellation ends the wait.

        Args:
            aggregators: all aggregators of the pipeline, by their names.
            waiting: called once with a sentence that says who has the lock, if the call must wait for it.

        Raises:
            StorageError: the store cannot be opened, or it has values that these aggregators cannot use. Nothing has
                been changed, and :meth:`close` need not be called.
        """

    async def load(self, aggregator: str) -> Loaded:
        """Returns what the last checkpoint of *aggregator* left, except for its rows."""

    def buckets(self, aggregator: str) -> AsyncIterator[list[StoredRow]]:
        """Returns the rows of accumulators, those of the oldest checkpoint first, in parts of about 256 kB.

        No checkpoint of this aggregator may be committed meanwhile. The same holds for the next two.
        """

    def identities(self, aggregator: str) -> AsyncIterator[list[StoredIdentities]]:
        """Returns the identities, those of the oldest checkpoint first, in parts of about 256 kB."""

    def results(self, aggregator: str) -> AsyncIterator[list[StoredResult]]:
        """Returns the results by their sequence numbers, in parts of about 256 kB."""

    async def find(self, aggregator: str, wanted: Collection[bytes]) -> set[bytes]:
        """Returns those of the identities *wanted* that committed checkpoints contain. It reads all identities."""

    async def commit(self, commit: Commit) -> None:
        """Stores a checkpoint. It is durable when this returns.

        Never cancel it: a cancelled call may have stored the checkpoint.

        Raises:
            StorageError: nothing was stored, and nothing will be: the same number may be committed again, also with
                other contents. If its ``is_unknown`` is true, the checkpoint may be stored or not: only
                :meth:`last_number` can say.
        """

    async def last_number(self, aggregator: str) -> int:
        """Returns the number of the last checkpoint that is stored. After this, no smaller or larger one can turn up.

        Raises:
            StorageError: this cannot be found out now: ask again later.
        """

    async def unwanted(self, aggregator: str) -> list[int]:
        """Returns the sequence numbers of those results that operators want to be removed. Commit them as emitted."""

    def size_bytes(self, aggregator: str) -> int:
        """Returns how many bytes the contents of all rows of *aggregator* have. Before :meth:`open` it is 0."""

    async def close(self) -> None:
        """Gives the lock back. Returns after the running calls have ended. A second call does nothing."""
