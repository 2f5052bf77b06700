"""Decides which messages that handlers publish travel together, and how much is on its way at once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

__all__ = ["OutgoingLists"]

E = TypeVar("E")


class OutgoingLists(Generic[E]):
    """The messages that wait, and the lists of them that are being sent.

    A message is *held* from :meth:`put` until :meth:`release` or :meth:`remove`. What waits leaves in its order, as
    soon as a list may be sent: no message waits for others to come. Messages gather only while enough lists are being
    sent.

    Args:
        most: the number of held messages at which nobody may put more.
        most_bytes: the bytes of held messages at which nobody may put more. One message may exceed it.
        most_in_list: the most messages of a list.
        most_bytes_in_list: the most bytes of a list. One message may exceed it.
        most_lists: the most lists that are sent at the same time.
    """

    def __init__(
        self, *, most: int, most_bytes: int, most_in_list: int, most_bytes_in_list: int, most_lists: int
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._most_in_list = most_in_list
        self._most_bytes_in_list = most_bytes_in_list
        self._most_lists = most_lists
        self._waiting: OrderedDict[E, int] = OrderedDict()
        self._lists = 0
        #: How many messages are held, and their bytes.
        self.held = 0
        self.held_bytes = 0

    @property
    def waiting(self) -> int:
        """Returns how many messages are in no list yet."""
        return len(self._waiting)

    @property
    def has_room(self) -> bool:
        """Returns whether another message may be put."""
        return self.held < self._most and self.held_bytes < self._most_bytes

    @property
    def has_much_room(self) -> bool:
        """Returns whether those who wait for room should put more. So they put many at a time, not one by one."""
        return self.held <= self._most // 2 and self.held_bytes <= self._most_bytes // 2

    def put(self, entry: E, size: int) -> None:
        """Takes over a message of *size* bytes."""
        self._waiting[entry] = size
        self.held += 1
        self.held_bytes += size

    def remove(self, entry: E) -> bool:
        """Forgets a message that waits. Returns False if it does not wait: it is in a list, or was never put."""
        size = self._waiting.pop(entry, None)
        if size is None:
            return False
        self.release(size)
        return True

    def clear(self) -> list[E]:
        """Forgets all messages that wait, and returns them."""
        entries = list(self._waiting)
        for entry in entries:
            self.remove(entry)
        return entries

    def take(self) -> list[E]:
        """Returns the next list to send. Empty: nothing waits, or enough lists are being sent."""
        taken: list[E] = []
        if self._lists >= self._most_lists:
            return taken
        weight = 0
        while self._waiting and len(taken) < self._most_in_list:
            entry, size = next(iter(self._waiting.items()))
            if taken and weight + size > self._most_bytes_in_list:
                break
            del self._waiting[entry]
            taken.append(entry)
            weight += size
        self._lists += bool(taken)
        return taken

    def end_list(self) -> None:
        """Notes that a list of :meth:`take` is sent, or that what is left of it waits for another try."""
        self._lists -= 1

    def release(self, size: int) -> None:
        """Notes that a message of *size* bytes is confirmed, or given up."""
        self.held -= 1
        self.held_bytes -= size
