"""Counts the requests to a source that charges for each request. The metrics show the counts."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["RequestCounts"]

#: The number of counters for messages of one receive: 0, 1, … up to 10 and more.
_SIZES: Final = 11


class RequestCounts:
    """The requests of one producer, by all its copies. Counts of several processes can be added up with ``+``."""

    __slots__ = ("entries", "receives", "requests")

    def __init__(self) -> None:
        #: Requests by (kind, result). The kind is receive, delete, visibility, send or other; the result is ok or a
        #: kind of error.
        self.requests: Counter[tuple[str, str]] = Counter()
        #: Messages named in the batches of each kind. Divided by the requests, it says how full the batches are.
        self.entries: Counter[str] = Counter()
        #: How many receives brought 0, 1, … messages.
        self.receives = [0] * _SIZES

    def received(self, messages: int) -> None:
        """Counts a receive that returned this many messages."""
        self.receives[min(messages, _SIZES - 1)] += 1

    @property
    def messages(self) -> int:
        """The number of messages that the receives brought."""
        return sum(size * count for size, count in enumerate(self.receives))

    def __add__(self, other: RequestCounts) -> RequestCounts:
        """Returns both together, as new counts."""
        total = RequestCounts()
        total.requests = self.requests + other.requests
        total.entries = self.entries + other.entries
        total.receives = [a + b for a, b in zip(self.receives, other.receives, strict=True)]
        return total
