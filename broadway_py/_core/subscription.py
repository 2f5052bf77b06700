"""Why a subscription ended, and whether its consumer lives on after that."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["CancelMode", "Cancellation", "End", "lives_on"]

#: What the end of a subscription means for its consumer. ``"permanent"``: the consumer ends too. ``"transient"``: it
#: ends too, unless the subscription ended quietly. ``"temporary"``: it lives on.
CancelMode = Literal["permanent", "transient", "temporary"]


class Cancellation(NamedTuple):
    """Why a subscription has ended.

    ``kind`` is ``"cancel"`` if somebody cancelled it, ``"down"`` if the stage at the other end has ended. ``reason`` is
    None after a quiet end; otherwise it is what ``cancel`` was given, or the error that the other stage died of.
    """

    kind: Literal["cancel", "down"]
    reason: object = None


class End(NamedTuple):
    """The end of a subscription, as its consumer learns of it.

    Attributes:
        cancellation: why it ended.
        never_began: the producer had ended before the consumer subscribed. No callback is told.
        spares: the consumer lives on whatever its cancel mode says, because it will subscribe again.
    """

    cancellation: Cancellation
    never_began: bool = False
    spares: bool = False


def lives_on(mode: CancelMode, end: End) -> bool:
    """Returns True if a consumer with this cancel mode lives on after *end*."""
    if mode == "temporary" or end.spares:
        return True
    return mode == "transient" and end.cancellation.reason is None and not end.never_began
