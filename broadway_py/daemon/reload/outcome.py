"""What a reload has done, and what is known of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

__all__ = ["OUTCOMES", "STOPPING", "ReloadOutcome", "ReloadStatus", "Reloaded"]

#: It was done; nothing was changed, because the settings are wrong or need a restart; or some of it failed.
ReloadOutcome = Literal["done", "refused", "failed"]

OUTCOMES: Final[tuple[ReloadOutcome, ...]] = get_args(ReloadOutcome)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The result of one reload. Pipelines are given by their names."""

    unchanged: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    #: What else has changed, in words, such as ``log``.
    others: tuple[str, ...] = ()
    #: Why nothing was changed, in sentences.
    refused: tuple[str, ...] = ()
    #: What could not be done, in sentences.
    failed: tuple[str, ...] = ()
    #: What the operator should know besides, in sentences.
    notes: tuple[str, ...] = ()

    @property
    def outcome(self) -> ReloadOutcome:
        """The result in one word."""
        if self.refused:
            return "refused"
        return "failed" if self.failed else "done"


#: The result of a reload that comes too late.
STOPPING: Final = Reloaded(refused=("the process is stopping, so nothing is reloaded",))


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """The reloads of a daemon so far."""

    is_running: bool = False
    #: How many had each outcome.
    counts: Mapping[ReloadOutcome, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    last: Reloaded | None = None
    #: When the last one ended, in seconds since 1970.
    last_at: float | None = None
