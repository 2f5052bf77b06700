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
        results: how many bytes the rows of results have.
    """

    def __init__(
        self,
        memory: int = 0,
        rows: Iterable[tuple[int, int, int]] = (),
        identities: Iterable[tuple[int, int]] = (),
        results: int = 0,
    ) -> None:
        self._memory = memory
        self._rows: dict[int, list[tuple[int, int]]] = {}
        self._identities = deque(identities)
        for bucket, number, size in rows:
            self._rows.setdefault(bucket, []).append((number, size))
        #: The sum in bytes.
        self.total = (
            memory
            + sum(size for of_bucket in self._rows.values() for _, size in of_bucket)
            + sum(size for _, size in self._identities)
            + results
        )

    def note(self, commit: Commit, growth: int) -> None:
        """Notes that *commit* is stored. Rows of results have *growth* bytes more than before."""
        self.total += len(commit.memory) - self._memory + growth
        self._memory = len(commit.memory)
        for bucket, content, _ in commit.appended:
            self._rows.setdefault(bucket, []).append((commit.number, len(content)))
            self.total += len(content)
        for bucket, before in commit.dropped:
            self._drop(bucket, before)
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
