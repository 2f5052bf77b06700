"""The readers of a queue: the rows of the consumers, and which of them may read at the same time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from broadway_py.storage.queue_slots import SLOTS, slots_of
from broadway_py.storage.queue_take import Reach

__all__ = ["Membership", "Sharing", "beat", "enter", "leave", "reach", "suspend"]

#: How readers share a queue. ``shared``: any reader may take any message. ``partitioned``: one reader at a time has all
#: messages of a key. ``alone``: one holder has the whole queue, and may have several readers.
Sharing = Literal["shared", "partitioned", "alone"]

_EVERYTHING: Final = Reach(range(SLOTS), None)


class Membership(NamedTuple):
    """How a consumer reads its queue."""

    visibility: float
    sharing: Sharing = "shared"
    #: For ``alone``: consumers with equal holders may read at the same time.
    holder: str = ""


def enter(
    connection: sqlite3.Connection, queue: int, membership: Membership, is_alive: Callable[[int], bool]
) -> tuple[int, str | None]:
    """Enters a new consumer. Returns its id, and why another reader excludes it, as half a sentence (None: none does).

    Args:
        connection: inside a transaction. The caller rolls it back if another reader excludes this one.
        queue: the queue that it reads.
        membership: how it reads.
        is_alive: returns whether the consumer with this id still lives. Dead consumers exclude nobody.
    """
    others = connection.execute(
        "SELECT id, iif(sharing = 'suspended', 'partitioned', sharing), holder FROM consumers "
        "WHERE queue = ? AND sharing IS NOT NULL",
        (queue,),
    ).fetchall()
    clashes = (_clash(membership, sharing, holder) for other, sharing, holder in others if is_alive(other))
    clash = next((found for found in clashes if found is not None), None)
    entered = connection.execute(
        "INSERT INTO consumers (visibility, queue, sharing, holder) VALUES (?, ?, ?, ?)",
        (membership.visibility, queue, membership.sharing, membership.holder),
    )
    return entered.lastrowid or 0, clash


def _clash(mine: Membership, sharing: Sharing, holder: str) -> str | None:
    if mine.sharing == "alone" and sharing == "alone" and mine.holder == holder:
        return None
    if sharing == "alone":
        return "an ordered pipeline already reads it alone"
    if mine.sharing == "alone":
        return "an ordered pipeline must read it alone, and it has another reader"
    if mine.sharing != sharing:
        return "it has readers with partitioned: true and others without"
    return None


def beat(connection: sqlite3.Connection, consumer: int, membership: Membership) -> bool:
    """Shows that *consumer* lives, and ends its suspension. Returns False if there is no such consumer."""
    changed = connection.execute(
        "UPDATE consumers SET beat = beat + 1, sharing = ? WHERE id = ?", (membership.sharing, consumer)
    )
    return changed.rowcount > 0


def suspend(connection: sqlite3.Connection, consumer: int) -> None:
    """Leaves *consumer*, which does not run, out of the sharing of slots until it runs again."""
    connection.execute(
        "UPDATE consumers SET sharing = 'suspended' WHERE id = ? AND sharing = 'partitioned'", (consumer,)
    )


def leave(connection: sqlite3.Connection, consumer: int) -> None:
    """Removes *consumer*."""
    connection.execute("DELETE FROM consumers WHERE id = ?", (consumer,))


def reach(connection: sqlite3.Connection, queue: int, consumer: int, membership: Membership) -> Reach:
    """Returns which messages with keys *consumer* may take now."""
    if membership.sharing != "partitioned":
        return _EVERYTHING
    (found,) = connection.execute(
        "SELECT json_group_array(id) FROM consumers WHERE queue = ? AND sharing = 'partitioned'", (queue,)
    ).fetchone()
    return Reach(slots_of(consumer, json.loads(found)), (consumer << 32, ((consumer + 1) << 32) - 1))
