"""Decides whether an aggregator can go on with what a store has of it."""

from __future__ import annotations

from dataclasses import dataclass

from broadway_py.state.store import AggregatorFacts

__all__ = ["StoredFacts", "complaint"]


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
