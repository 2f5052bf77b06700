"""Who reads a queue, and with whom: the rows of the consumers, and which of them may be there together."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from broadway_py.storage.queue_slots import SLOTS, slots_of
from broadway_py.storage.queue_take import Reach

__all__ = ["Membership", "Sharing", "beat", "enter", "leave", "reach", "suspend"]

#: How readers of one queue share it: ``shared``: everything is anybody's; ``partitioned``: each key is in the hands of
#: one reader at a time; ``alone``: everything is in the hands of one holder, which may have several readers.
Sharing = Literal["shared", "partitioned", "alone"]

_EVERYTHING: Final = Reach(range(SLOTS), None)


class Membership(NamedTuple):
    """How a consumer reads its queue."""

    visibility: float
    sharing: Sharing = "shared"
    #: For ``alone``: consumers with equal holders may read together.
    holder: str = ""


def enter(
    connection: sqlite3.Connection, queue: int, membership: Membership, is_alive: Callable[[int], bool]
) -> tuple[int, str | None]:
    """Enter a new consumer; its id, and in whose way it is, said in half a sentence (None: in nobody's).

    Args:
        connection: inside a transaction, which the caller takes back if somebody is in the way.
        queue: what it reads.
        membership: how.
        is_alive: whether the consumer with this id still lives; what a dead one wanted does not count.
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
        return "an ordered pipeline has it for itself"
    if mine.sharing == "alone":
        return "an ordered pipeline must have it for itself, and another reader is there"
    if mine.sharing != sharing:
        return "it has readers with partitioned: true and others without"
    return None


def beat(connection: sqlite3.Connection, consumer: int, membership: Membership) -> bool:
    """Show that *consumer* lives, and let it take part again if it was suspended; False when nobody knows it."""
    changed = connection.execute(
        "UPDATE consumers SET beat = beat + 1, sharing = ? WHERE id = ?", (membership.sharing, consumer)
    )
    return changed.rowcount > 0


def suspend(connection: sqlite3.Connection, consumer: int) -> None:
    """Deal the slots without *consumer*, which stands still, until it moves again."""
    connection.execute(
        "UPDATE consumers SET sharing = 'suspended' WHERE id = ? AND sharing = 'partitioned'", (consumer,)
    )


def leave(connection: sqlite3.Connection, consumer: int) -> None:
    """Forget *consumer*."""
    connection.execute("DELETE FROM consumers WHERE id = ?", (consumer,))


def reach(connection: sqlite3.Connection, queue: int, consumer: int, membership: Membership) -> Reach:
    """Which messages with keys *consumer* may take now."""
    if membership.sharing != "partitioned":
        return _EVERYTHING
    (found,) = connection.execute(
        "SELECT json_group_array(id) FROM consumers WHERE queue = ? AND sharing = 'partitioned'", (queue,)
    ).fetchone()
    return Reach(slots_of(consumer, json.loads(found)), (consumer << 32, ((consumer + 1) << 32) - 1))
