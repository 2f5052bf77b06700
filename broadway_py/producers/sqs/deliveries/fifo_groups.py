"""FIFO queues: one message of a group is at work at a time; the others of the same receive wait here, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["Groups"]

M = TypeVar("M")


class Groups(Generic[M]):
    """Which message of each group may start. A group is busy from its first message until nothing of it is left."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[M]] = {}
        self._parked = 0

    @property
    def parked(self) -> int:
        """How many messages wait for one of their group."""
        return self._parked

    def arrived(self, group: Hashable, message: M) -> bool:
        """True when *message* may start now; else it waits for those of its group before it."""
        waiting = self._waiting.get(group)
        if waiting is None:
            self._waiting[group] = deque()
            return True
        waiting.append(message)
        self._parked += 1
        return False

    def done(self, group: Hashable) -> M | None:
        """The group's message is off the queue: the next one, which may start now."""
        waiting = self._waiting.get(group)
        if not waiting:
            self._waiting.pop(group, None)
            return None
        self._parked -= 1
        return waiting.popleft()

    def failed(self, group: Hashable) -> Sequence[M]:
        """The group's message goes back to the queue: the rest of its group, in order, which must go back with it."""
        rest = self._waiting.pop(group, ())
        self._parked -= len(rest)
        return list(rest)
