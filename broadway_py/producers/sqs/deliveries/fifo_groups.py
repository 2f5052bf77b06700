"""Keeps the order of FIFO queues: one message of a group runs at a time, the others of its receive wait here."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["Groups"]

M = TypeVar("M")


class Groups(Generic[M]):
    """Decides which message of each group may start. A group is busy from its first message until none is left."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[M]] = {}
        self._parked = 0

    @property
    def parked(self) -> int:
        """Returns how many messages wait for an earlier one of their group."""
        return self._parked

    def arrived(self, group: Hashable, message: M) -> bool:
        """Returns True if *message* may start now. Otherwise it waits for the earlier ones of its group."""
        waiting = self._waiting.get(group)
        if waiting is None:
            self._waiting[group] = deque()
            return True
        waiting.append(message)
        self._parked += 1
        return False

    def done(self, group: Hashable) -> M | None:
        """Notes that the group's message is deleted. Returns the next one, which may start now."""
        waiting = self._waiting.get(group)
        if not waiting:
            self._waiting.pop(group, None)
            return None
        self._parked -= 1
        return waiting.popleft()

    def failed(self, group: Hashable) -> Sequence[M]:
        """Notes that the group's message goes back to the queue. Returns the rest, which must go back, in order."""
        rest = self._waiting.pop(group, ())
        self._parked -= len(rest)
        return list(rest)
