"""What is counted while a flow runs, for a person who waits. It is small, because each worker process loads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple

__all__ = ["Counts", "is_hidden", "summed"]

#: True in worker processes, where nothing is shown: the terminal belongs to their parent.
is_hidden: Final = ContextVar("is_hidden", default=False)


class Counts(NamedTuple):
    """What the sources and stages of a flow in one process, or in all of them, have done so far."""

    elements_in: int = 0
    #: How many bytes of files were read; of packed files, the packed ones.
    read_bytes: int = 0
    #: How many lists wait before each layer, by its label, and before the result.
    waiting: Mapping[str, int] = {}


def summed(several: Iterable[Counts]) -> Counts:
    """Returns what all processes of a flow have done together."""
    elements_in = read_bytes = 0
    waiting: dict[str, int] = {}
    for each in several:
        elements_in += each.elements_in
        read_bytes += each.read_bytes
        for label, count in each.waiting.items():
            waiting[label] = waiting.get(label, 0) + count
    return Counts(elements_in, read_bytes, waiting)
