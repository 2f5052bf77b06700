"""What requests to a source that is paid by the request come to: counted where they are made, shown by the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

__all__ = ["RequestCosts", "all_costs", "costs_of"]

#: Messages of one receive: 0, 1, … 10 and more.
_SIZES: Final = 11


class RequestCosts:
    """The requests of one producer, over all its copies and the life of the process."""

    __slots__ = ("entries", "receives", "requests")

    def __init__(self) -> None:
        #: By (kind, result): kind is receive, delete, visibility, send or other; result is ok or a kind of trouble.
        self.requests: Counter[tuple[str, str]] = Counter()
        #: Messages named in the batches of each kind: divided by the requests, how full they are.
        self.entries: Counter[str] = Counter()
        #: How many receives brought 0, 1, … messages.
        self.receives = [0] * _SIZES

    def received(self, messages: int) -> None:
        """A receive was answered with so many messages."""
        self.receives[min(messages, _SIZES - 1)] += 1

    @property
    def messages(self) -> int:
        """How many messages the receives brought."""
        return sum(size * count for size, count in enumerate(self.receives))


_COSTS: Final[dict[tuple[str, str], RequestCosts]] = {}


def costs_of(pipeline: str, producer: str) -> RequestCosts:
    """The counters of that producer in this process; the same object each time."""
    return _COSTS.setdefault((pipeline, producer), RequestCosts())


def all_costs() -> Mapping[tuple[str, str], RequestCosts]:
    """Every producer's counters in this process, by pipeline and producer."""
    return dict(_COSTS)
