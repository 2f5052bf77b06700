"""What the daemon under chaos runs: messages that succeed, that succeed at the second try, and that never do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broadway_py import BatchInfo, Message, Pipeline
from tests.support.counter import HandledIds, message_id

__all__ = ["POISON", "Survivor", "is_poison"]

#: Each message with such a number fails for ever …
POISON: Final = 23
#: … and each with such a number at its first try.
_TWICE: Final = 7


def is_poison(name: str) -> bool:
    """Whether the message with this id never succeeds."""
    return int(name) % POISON == 0


class Survivor(Pipeline[bytes]):
    """Notes in a file what has succeeded, in batches."""

    context: dict[str, str]

    async def setup(self) -> None:
        self.handled = HandledIds(Path(self.context["handled"]))

    async def teardown(self) -> None:
        self.handled.close()

    async def handle_message(self, message: Message[bytes]) -> None:
        name = message_id(message.data)
        if is_poison(name):
            raise ValueError(f"message {name} never succeeds")
        if int(name) % _TWICE == 0 and message.attempt == 1:
            raise ConnectionError(f"message {name} does not succeed at once")

    async def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.handled.add(message_id(message.data) for message in messages)
