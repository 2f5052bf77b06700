"""Which of n consumers owns a key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from broadway_py.message import Message

__all__ = ["partition_in_process"]


def partition_in_process(
    key_of: Callable[[Message[Any]], Hashable], partitions: int
) -> Callable[[Message[Any]], int | None]:
    """Message -> index below *partitions*, for consumers of one process; None ("any") where its key is None.

    Python's own hash agrees with ``==``, so equal keys meet; it differs between processes and must not leave this one.
    """

    def partition(message: Message[Any]) -> int | None:
        key = key_of(message)
        return None if key is None else hash(key) % partitions

    return partition
