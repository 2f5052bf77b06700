"""How long the lists of a source are."""

from __future__ import annotations

from typing import Final

__all__ = ["ListSize"]

#: A list that takes less time than this is worth little more than its way. Seconds.
_SHORT_S: Final = 0.001
#: Where a list takes more time than this, another stage waits long for its turn. Seconds.
_LONG_S: Final = 0.004


class ListSize:
    """How many elements the next list of a source has: more while lists are used up fast, and fewer while they are not.

    So few slow elements are shared among all stages, and many fast ones travel in long lists.

    Args:
        first: how many elements the first lists have, which is also the least.
        most: how many elements a list has at most.
        credit: so many lists are taken before one is used up. Their time says nothing.
    """

    def __init__(self, first: int, most: int, credit: int) -> None:
        #: The most elements of the next list.
        self.now = min(first, most)
        self._least = self.now
        self._most = most
        self._credit = credit
        # How many lists were sent since the last look, and when that was.
        self._lists = 0
        self._looked_at: float | None = None

    @property
    def is_fixed(self) -> bool:
        """True if it never changes."""
        return self._least == self._most

    def note(self, lists: int, now: float) -> None:
        """Notes that lists were sent.

        Args:
            lists: how many.
            now: seconds of a clock that does not jump.
        """
        self._lists += lists
        if self._lists < self._credit:
            return
        if self._looked_at is not None:
            each_s = (now - self._looked_at) / self._lists
            if each_s < _SHORT_S:
                self.now = min(self._most, self.now * 2)
            elif each_s > _LONG_S:
                self.now = max(self._least, self.now // 2)
        self._looked_at = now
        self._lists = 0
