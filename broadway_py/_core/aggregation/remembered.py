"""Identities of committed messages that are kept in memory, where every message is looked up."""

from __future__ import annotations

from collections import deque
from typing import Final

from broadway_py._core.identity import IDENTITY_BYTES

__all__ = ["Remembered"]

#: How many identities one call forgets. It is more if the last checkpoint had more than half as many, or the forgetting
#: would not keep up.
_AT_ONCE: Final = 4_000

#: How many dictionaries there are: one for each first byte.
_PARTS: Final = 256


class Remembered:
    """A set of identities that forgets them by the number of their checkpoint, the oldest first.

    Args:
        most: how many identities it keeps.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # The newest checkpoint of each identity. A dictionary that grows copies itself, which takes 0.1 s for two
        # million entries. So there are many, by the first byte of the identity, and they grow one after the other.
        self._known: list[dict[bytes, int]] = [{} for _ in range(_PARTS)]
        # The identities of each checkpoint, in the order of the checkpoints, and how many of the first were forgotten.
        self._order: deque[tuple[int, bytes]] = deque()
        self._gone = 0
        # How many the last checkpoint had.
        self._last = 0
        #: The newest checkpoint of which an identity was forgotten for want of room; 0: none.
        self.dropped = 0

    def __len__(self) -> int:
        return sum(map(len, self._known))

    def __bool__(self) -> bool:
        return bool(self._order)

    def __contains__(self, identity: bytes) -> bool:
        return identity in self._known[identity[0]]

    def add(self, number: int, identities: bytes) -> None:
        """Adds the identities of checkpoint *number*, which is not less than the last. Forgets the oldest for room."""
        size = IDENTITY_BYTES
        self._last = len(identities) // size
        known = self._known
        for at in range(0, len(identities), size):
            known[identities[at]][identities[at : at + size]] = number
        if identities:
            self._order.append((number, identities))
        while (excess := len(self) - self._most) > 0:
            self.dropped = self._order[0][0]
            self._forget(excess)

    def forget_before(self, number: int) -> None:
        """Forgets identities of checkpoints before *number*: a bounded number of them in one call, to stay quick."""
        left = max(_AT_ONCE, 2 * self._last)
        while left > 0 and self._order and self._order[0][0] < number:
            left -= self._forget(left)

    @property
    def oldest(self) -> int:
        """The oldest checkpoint of which an identity is kept; 0: there is none."""
        return self._order[0][0] if self._order else 0

    def _forget(self, most: int) -> int:
        """Forgets at most *most* of the oldest checkpoint. Returns how many it has looked at."""
        number, identities = self._order[0]
        known, size = self._known, IDENTITY_BYTES
        end = min(self._gone + most * size, len(identities))
        for at in range(self._gone, end, size):
            identity = identities[at : at + size]
            # A later checkpoint may have it, too: then it is kept for that one.
            part = known[identity[0]]
            if part.get(identity) == number:
                del part[identity]
        looked = (end - self._gone) // size
        self._gone = end
        if end == len(identities):
            self._order.popleft()
            self._gone = 0
        return looked
