"""Keeps window state in memory, for sources that end with the process, and for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field

from broadway_py.state.facts import StoredFacts, complaint
from broadway_py.state.results import remaining, split
from broadway_py.state.store import (
    IDENTITY_BYTES,
    AggregatorFacts,
    Commit,
    Loaded,
    StoredIdentities,
    StoredResult,
    StoredRow,
)
from broadway_py.storage.errors import StorageError

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Kept:
    facts: AggregatorFacts
    number: int = 0
    memory: bytes | None = None
    #: For each bucket its rows, each with the number of its accumulators.
    rows: dict[int, list[tuple[StoredRow, int]]] = field(default_factory=dict)
    identities: list[StoredIdentities] = field(default_factory=list)
    #: Of each row of results the number of the first, the bytes, how many there are, and their version.
    results: list[tuple[int, bytes, int, int]] = field(default_factory=list)

    def stored_facts(self) -> StoredFacts:
        versions = {row.version for row, _ in self.all_rows()} | {version for *_, version in self.results}
        return StoredFacts(self.facts, min(versions, default=None), max(versions, default=None), bool(self.rows))

    def size_bytes(self) -> int:
        return (
            len(self.memory or b"")
            + sum(len(row.blob) for rows in self.rows.values() for row, _ in rows)
            + sum(len(one.identities) for one in self.identities)
            + sum(len(content) for _, content, _, _ in self.results)
        )

    def all_rows(self) -> list[tuple[StoredRow, int]]:
        return sorted((row for rows in self.rows.values() for row in rows), key=lambda row: row[0].number)


class MemoryStore:
    """State that ends with this object. See :class:`~broadway_py.state.store.StateStore`.

    After :meth:`close` it can be opened again, and has what was committed.
    """

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}
        self._is_open = False

    async def open(self, aggregators: Mapping[str, AggregatorFacts], *, waiting: Callable[[str], object] = str) -> None:
        """Compares *aggregators* with what there is. It never waits.

        Raises:
            StorageError: there are values that these aggregators cannot use.
        """
        for name, facts in aggregators.items():
            kept = self._kept.get(name)
            problem = None if kept is None else complaint(name, kept.stored_facts(), facts)
            if problem is not None:
                raise StorageError(f"state in memory: {problem}")
        for name, facts in aggregators.items():
            self._kept.setdefault(name, _Kept(facts)).facts = facts
        self._is_open = True

    async def load(self, aggregator: str) -> Loaded:
        """Returns what the last checkpoint left, except for its rows."""
        kept = self._of(aggregator)
        oldest = kept.stored_facts().oldest
        return Loaded(
            kept.memory,
            kept.facts.version if oldest is None else oldest,
            kept.number,
            sum(entries for _, entries in kept.all_rows()),
            sum(len(one.identities) for one in kept.identities) // IDENTITY_BYTES,
        )

    async def buckets(self, aggregator: str) -> AsyncIterator[list[StoredRow]]:
        """Returns the rows of accumulators, those of the oldest checkpoint first."""
        for row, _ in self._of(aggregator).all_rows():
            yield [row]

    async def identities(self, aggregator: str) -> AsyncIterator[list[StoredIdentities]]:
        """Returns the identities, those of the oldest checkpoint first."""
        for one in list(self._of(aggregator).identities):
            yield [one]

    async def results(self, aggregator: str) -> AsyncIterator[list[StoredResult]]:
        """Returns the results by their sequence numbers."""
        for first, content, count, version in sorted(self._of(aggregator).results):
            yield [StoredResult(number, one, version) for number, one in enumerate(split(content, count), first)]

    async def find(self, aggregator: str, wanted: Collection[bytes]) -> set[bytes]:
        """Returns those of *wanted* that were committed."""
        found: set[bytes] = set()
        for _, content in self._of(aggregator).identities:
            known = {content[at : at + IDENTITY_BYTES] for at in range(0, len(content), IDENTITY_BYTES)}
            found.update(known.intersection(wanted))
        return found

    async def commit(self, commit: Commit) -> None:
        """Keeps a checkpoint.

        Raises:
            StorageError: it does not follow the last one.
        """
        kept = self._of(commit.aggregator)
        if commit.number != kept.number + 1:
            raise StorageError(
                f"state in memory: checkpoint {commit.number} of aggregator {commit.aggregator!r} does not follow the "
                f"last one, which is {kept.number}; nothing of this call was stored: start the pipeline again"
            )
        version = kept.facts.version
        kept.number = commit.number
        kept.memory = commit.memory
        for bucket, content, entries in commit.appended:
            row = StoredRow(bucket, commit.number, content, version)
            kept.rows.setdefault(bucket, []).append((row, entries))
        for bucket, before in commit.dropped:
            left = [(row, entries) for row, entries in kept.rows.pop(bucket, ()) if row.number >= before]
            if left:
                kept.rows[bucket] = left
        if commit.identities:
            kept.identities.append(StoredIdentities(commit.number, commit.identities))
        kept.identities = [one for one in kept.identities if one.number >= commit.forget_before]
        kept.results += [(*row, version) for row in commit.results]
        if commit.emitted:
            gone = set(commit.emitted)
            kept.results = [(*left, row[-1]) for row in kept.results for left in remaining(*row[:-1], gone)]

    async def last_number(self, aggregator: str) -> int:
        """Returns the number of the last checkpoint."""
        return self._of(aggregator).number

    async def unwanted(self, aggregator: str) -> list[int]:
        """Returns an empty list: no operator can reach this store."""
        return []

    def size_bytes(self, aggregator: str) -> int:
        """Returns how many bytes the contents of *aggregator* have."""
        kept = self._kept.get(aggregator)
        return 0 if kept is None else kept.size_bytes()

    async def close(self) -> None:
        """Ends the use."""
        self._is_open = False

    def _of(self, aggregator: str) -> _Kept:
        if not self._is_open:
            raise StorageError("state in memory: it is closed: open it before this call")
        return self._kept[aggregator]
