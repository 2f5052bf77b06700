"""What ``broadway check --connect`` finds out about a place: a source, a sink or a file."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level", "counted", "not_examined"]

#: ``right``: it works. ``note``: it works, but somebody should know. ``wrong``: a setting must be changed, or something
#: at the place, such as a permission. ``away``: the place is not available now.
Level = Literal["right", "note", "wrong", "away"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found out about a place.

    Args:
        level: how good it is.
        text: one sentence without credentials: what was found, and for all but ``right`` what to do.
        setting: the setting that it is about, within the section of the place. Empty: the section itself.
    """

    level: Level
    text: str
    setting: tuple[str, ...] = ()


async def not_examined(place: object) -> AsyncGenerator[Finding, None]:
    """Yields the note that *place* cannot be examined, because its class has no method for it."""
    yield Finding("note", f"{type(place).__name__} has no examine(), so it was not connected to")


def counted(count: int, what: str) -> str:
    """Returns *count* with *what*, such as ``1 message`` or ``1,200 messages``."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"
