"""A chunk: the messages that a processor handles together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.message import Message

__all__ = ["Chunk", "contains", "is_plain"]

Chunk = Sequence[Message[Any]]


def is_plain(messages: Chunk) -> bool:
    """Returns True if none of *messages* has failed or spawned others, so that the fast path is enough."""
    for message in messages:  # noqa: SIM110  # runs for each chunk: any() with a generator takes twice as long
        if message._status is not None or message._children is not None:
            return False
    return True


def contains(messages: Sequence[Message[Any]], wanted: Message[Any]) -> bool:
    """Returns True if *wanted* itself, not an equal message, is one of *messages*."""
    return any(message is wanted for message in messages)
