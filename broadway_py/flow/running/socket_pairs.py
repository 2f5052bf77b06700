"""A connected pair of sockets for each two of several processes."""

from __future__ import annotations

import socket
from collections.abc import Iterable

__all__ = ["SocketPairs"]


class SocketPairs:
    """Makes the sockets of one process after the other, as it is started.

    So far fewer are open here at once than there are pairs: 32 processes have 496 pairs, and often a process may have
    1,024 descriptors.

    Args:
        places: the places of all processes, in the order in which they get their sockets.
    """

    def __init__(self, places: Iterable[int]) -> None:
        # The ends that are made and not handed out.
        self._ends: dict[int, dict[int, socket.socket]] = {place: {} for place in places}

    def of(self, place: int) -> dict[int, socket.socket]:
        """Returns the sockets of the process at *place*, by the place at their other end. They belong to the caller.

        Raises:
            OSError: there are too many descriptors.
        """
        ends = self._ends[place]
        for other, theirs in self._ends.items():
            if other != place:
                ends[other], theirs[place] = socket.socketpair()
        return self._ends.pop(place)

    def close(self) -> None:
        """Closes those that were not handed out."""
        for sockets in self._ends.values():
            for each in sockets.values():
                each.close()
