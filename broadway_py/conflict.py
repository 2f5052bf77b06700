"""What a section of settings says of settings that do not go together."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Conflict"]


class Conflict(NamedTuple):
    """Settings that are each valid, but cannot be used together."""

    #: The setting that the user should change first.
    path: tuple[str, ...]
    problem: str
    #: The fields in conflict. If one of them is invalid by itself, the conflict is not reported.
    among: frozenset[str]
