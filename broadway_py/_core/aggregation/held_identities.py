"""The identities of messages that one checkpoint makes durable."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

__all__ = ["HeldIdentities"]


class HeldIdentities:
    """Identities in the order in which they were added.

    Where only marked messages are looked up, nearly none is. So the set for it is made when it is needed.
    """

    def __init__(self) -> None:
        self._all: list[bytes] = []
        # The first of them, as a set, and how many these are.
        self._known: set[bytes] = set()
        self._seen = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._all)

    def __contains__(self, identity: bytes) -> bool:
        if self._seen < len(self._all):
            self._known.update(self._all[self._seen :])
            self._seen = len(self._all)
        return identity in self._known

    def add(self, identities: Iterable[bytes]) -> None:
        """Adds *identities*. One that is there already is kept twice."""
        self._all += identities

    def remove(self, identities: Collection[bytes]) -> None:
        """Removes those of *identities* that are there. It looks at each that is kept."""
        self._all = [identity for identity in self._all if identity not in identities]
        self._known, self._seen = set(), 0

    def joined(self) -> bytes:
        """Returns all of them, one after the other."""
        return b"".join(self._all)
