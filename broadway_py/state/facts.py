"""Decides whether an aggregator can go on with what a store has of it."""

from __future__ import annotations

from dataclasses import dataclass

from broadway_py._core.window.shape import Calendar, Fixed, Periodic, Shape
from broadway_py.state.store import AggregatorFacts

__all__ = ["StoredFacts", "complaint", "window_text"]


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What a store has of one aggregator."""

    #: Of the program that opened the store last.
    facts: AggregatorFacts
    #: The oldest and the newest version of the values in rows and results. None: there are none.
    oldest: int | None
    newest: int | None
    #: Whether there are rows of open windows.
    has_rows: bool


def complaint(name: str, stored: StoredFacts, now: AggregatorFacts) -> str | None:
    """Returns why the aggregator *name* as it is *now* cannot go on with what is *stored*, and what to do.

    None: it can.
    """
    if stored.oldest is None or stored.newest is None:
        return None
    former = stored.facts
    if stored.newest > now.version:
        return (
            f"the values of aggregator {name!r} have version {stored.newest}, and this program has version "
            f"{now.version}: use the newer program, or another file"
        )
    if former.key_type != now.key_type:
        return (
            f"the keys of aggregator {name!r} were stored as {former.key_type}, and this program has {now.key_type}: "
            "give the aggregator another name, or use another file"
        )
    if stored.oldest < now.version and not now.has_upgrade:
        return (
            f"the values of aggregator {name!r} have version {stored.oldest}, and this program has version "
            f"{now.version}: write upgrade(version, value) in the aggregator, or use another file"
        )
    if former.value_type != now.value_type and stored.newest == now.version:
        return (
            f"the values of aggregator {name!r} were stored as {former.value_type}, and this program has "
            f"{now.value_type}: raise its version and write upgrade(version, value), or use another file"
        )
    if stored.has_rows and former.window != now.window:
        return (
            f"aggregator {name!r} has open {former.window}, and this program has {now.window}: let them close with "
            "the former settings first, give the aggregator another name, or use another file"
        )
    return None


def window_text(shape: Shape) -> str:
    """Returns what must not change while windows are open, for :attr:`AggregatorFacts.window`.

    The gap of sessions and the number of events of count windows may change, so they are not in it.
    """
    match shape:
        case Fixed(kind=kind, size=size, every=every, offset=offset):
            steps = f" every {_seconds(every)}" if kind == "sliding" else ""
            moved = f", moved by {_seconds(offset)}" if offset else ""
            return f"{kind} windows of {_seconds(size)}{steps}{moved}"
        case Calendar(unit=unit, tz=tz):
            return f"calendar windows of a {unit} in {tz.key}"
        case Periodic(interval=interval):
            return f"periodic windows of {_seconds(interval)}"
        case _:
            return f"{shape.kind} windows"


def _seconds(seconds: float) -> str:
    # Exact: two sizes that differ have different texts.
    return f"{f'{seconds:.6f}'.rstrip('0').rstrip('.')} s"
