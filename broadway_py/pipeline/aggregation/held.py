"""Messages whose effect is not stored yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broadway_py.message import Message

__all__ = ["Held"]


@dataclass(slots=True, eq=False)
class Held:
    """Messages that are settled once the checkpoint with their effect is stored."""

    #: They were added.
    messages: list[Message[Any]] = field(default_factory=list)
    #: They repeat messages that were added. They have no effect of their own.
    repeats: list[Message[Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.messages) + len(self.repeats)
