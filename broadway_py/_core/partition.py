"""Decides which of n consumers owns a key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from broadway_py._core.settlement import drop
from broadway_py.foreign import article, foreign_errors, is_a, text_of, type_name
from broadway_py.message import Message

__all__ = ["partition_in_process"]

#: The results of functions that are wrongly coroutines or generators. Each call makes a new object, so it is no key.
_NO_KEYS: Final = (CoroutineType, GeneratorType, AsyncGeneratorType)


def partition_in_process(
    key_of: Callable[[Message[Any]], Hashable], partitions: int
) -> Callable[[Message[Any]], int | None]:
    """Returns a function: message -> index below *partitions*, or None ("any") if the key is None.

    It is for consumers of one process. Python's own hash agrees with ``==``, so equal keys get the same index. But the
    hash differs between processes, so the index must not be used in another process.
    """

    def partition(message: Message[Any]) -> int | None:
        key = key_of(message)
        if key is None:
            return None
        if is_a(key, _NO_KEYS):
            drop(key)
            raise TypeError(
                f"partition_by returned {article(key)}; expected a key; write partition_by as a plain function"
            )
        try:
            return hash(key) % partitions
        except foreign_errors() as error:
            raise TypeError(
                f"partition_by returned {article(key)}, which is not hashable ({type_name(error)}: {text_of(error)}); "
                "expected a key such as text, a number, or a tuple of them"
            ) from error

    return partition
