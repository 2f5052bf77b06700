"""Describes what happens to a failed message, in words for the log."""

from __future__ import annotations

from typing import Any, Final

from broadway_py._core.settlement import RoundKind
from broadway_py.acknowledger import Acknowledger
from broadway_py.error_text import clipped
from broadway_py.foreign import foreign_errors
from broadway_py.message import OPEN, Message, Outcome

__all__ = ["fate_of", "retry_words"]

_BY_SOURCE: Final[dict[Outcome, str]] = {
    "dead_lettered": "dead-lettered by its source",
    "dropped": "dropped by its source",
    "retried": "delivered again by its source",
    "rejected": "rejected",
}


def fate_of(message: Message[Any], kind: RoundKind, delay_s: float | None) -> tuple[str, str]:
    """Returns what happens to *message* as a kind and as words, such as ``("retry", "retry in 12 s")``.

    Args:
        message: the failed message.
        kind: the call that its acknowledger will get.
        delay_s: the seconds until a retry.
    """
    if message._settlement != OPEN:
        return "settled", "settled before it failed"
    acknowledger, _, data = message._acknowledgement
    ours = acknowledger if isinstance(acknowledger, Acknowledger) else None
    if kind == "retry":
        return kind, retry_words(delay_s or 0.0)
    if kind == "dead_letter":
        try:
            place = None if ours is None else ours.dead_letters_go_to(data)
        except foreign_errors():
            # The acknowledger's code raised. The settlement itself reports what is wrong.
            place = None
        return kind, "dead-lettered" if place is None else f"dead-lettered to {clipped(place, 300)}"
    if kind in ("drop", "release"):
        return kind, "dropped" if kind == "drop" else "given back"
    try:
        outcome: Outcome = "rejected" if ours is None else ours.outcome_of_failed(data)
    except foreign_errors():
        outcome = "unknown"
    return outcome, _BY_SOURCE.get(outcome, "left to its source")


def retry_words(delay_s: float) -> str:
    """Returns the words for a retry after *delay_s* seconds."""
    return f"retry in {delay_s:.0f} s" if delay_s >= 10 else f"retry in {delay_s:.2g} s"  # rounded for people
