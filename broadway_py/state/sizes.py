"""Knows how many bytes the rows of one aggregator have, without asking the file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from broadway_py.state.store import Commit

__all__ = ["Sizes"]


class Sizes:
    """The sum of the contents of all rows of one aggregator. It follows what each checkpoint adds and removes.

    Args:
        memory: how many bytes the memory has.
        rows: of each row of accumulators the bucket, the number of its checkpoint, and its bytes.
        identities: of each row of identities the number of its checkpoint, and its bytes; the oldest first.
        results: of each result the sequence number, and its bytes.
    """

    def __init__(
        self,
        memory: int = 0,
        rows: Iterable[tuple[int, int, int]] = (),
        identities: Iterable[tuple[int, int]] = (),
        results: Iterable[tuple[int, int]] = (),
    ) -> None:
        self._memory = memory
        self._rows: dict[int, list[tuple[int, int]]] = {}
        self._identities = deque(identities)
        self._results = dict(results)
        for bucket, number, size in rows:
            self._rows.setdefault(bucket, []).append((number, size))
        #: The sum in bytes.
        self.total = (
            memory
            + sum(size for of_bucket in self._rows.values() for _, size in of_bucket)
            + sum(size for _, size in self._identities)
            + sum(self._results.values())
        )

    def note(self, commit: Commit) -> None:
        """Notes that *commit* is stored."""
        self.total += len(commit.memory) - self._memory
        self._memory = len(commit.memory)
        for bucket, content, _ in commit.appended:
            self._rows.setdefault(bucket, []).append((commit.number, len(content)))
            self.total += len(content)
        for bucket, before in commit.dropped:
            self._drop(bucket, before)
        for sequence, content in commit.results:
            self._results[sequence] = len(content)
            self.total += len(content)
        for sequence in commit.emitted:
            self.total -= self._results.pop(sequence, 0)
        if commit.identities:
            self._identities.append((commit.number, len(commit.identities)))
            self.total += len(commit.identities)
        while self._identities and self._identities[0][0] < commit.forget_before:
            self.total -= self._identities.popleft()[1]

    def _drop(self, bucket: int, before: int) -> None:
        rows = self._rows.pop(bucket, [])
        kept = [row for row in rows if row[0] >= before]
        self.total -= sum(size for _, size in rows) - sum(size for _, size in kept)
        if kept:
            self._rows[bucket] = kept
