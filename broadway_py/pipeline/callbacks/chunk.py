"""The messages that a processor has in hand together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broadway_py.message import Message

__all__ = ["Chunk", "contains", "is_plain"]

Chunk = Sequence[Message[Any]]


def is_plain(messages: Chunk) -> bool:
    """True when none of *messages* has failed or spawned others: nothing but the usual is to be done."""
    for message in messages:  # noqa: SIM110  # on everybody's way: any() with a generator takes twice as long
        if message._status is not None or message._children is not None:
            return False
    return True


def contains(messages: Sequence[Message[Any]], wanted: Message[Any]) -> bool:
    """True when *wanted* itself, not its equal, is one of *messages*."""
    return any(message is wanted for message in messages)
