"""Notices keys that come from two partitions of the sources."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Final

__all__ = ["KeyOwners"]

#: How many keys of one generation are remembered: about 10 MB in both for short texts.
_MOST: Final = 50_000
#: Stands for a key that was found in several partitions and told.
_TOLD: Final = -1


class KeyOwners:
    """The partition of each key of an aggregator that was seen lately in this process.

    The owners of a key that lies in two partitions would count it apart, and give results with the same ids. Only the
    last 50,000 keys are surely remembered, so a rare key may not be noticed.

    Args:
        most: how many keys are surely remembered.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._young: dict[Hashable, int] = {}
        self._old: dict[Hashable, int] = {}

    def note(self, partition: int, keys: Iterable[Hashable]) -> list[int]:
        """Notes that *keys* were seen in *partition*.

        Returns:
            For each of them that was seen in another partition before, that partition. A key is told once.
        """
        others: list[int] = []
        for key in keys:
            owner = self._young.get(key)
            if owner is None:
                owner = self._old.get(key, partition)
                self._remember(key, owner)
            if owner not in (partition, _TOLD):
                others.append(owner)
                self._young[key] = _TOLD
        return others

    def _remember(self, key: Hashable, owner: int) -> None:
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}
        self._young[key] = owner
