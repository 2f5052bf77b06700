"""The readers of a queue: the rows of the consumers, and which of them may read at the same time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from broadway_py.storage.queue_slots import SLOTS, slots_of
from broadway_py.storage.queue_take import Reach

__all__ = ["Membership", "Partition", "Sharing", "beat", "enter", "leave", "reach", "suspend"]

#: How readers share a queue. ``shared``: any reader may take any message. ``partitioned``: one reader at a time has all
#: messages of a key. ``alone``: one holder has the whole queue, or a partition of it, and may have several readers.
Sharing = Literal["shared", "partitioned", "alone"]

_EVERYTHING: Final = Reach(range(SLOTS), None)
# A reader that is alone may keep windows. With slots in turns, the keys with few messages would run ahead of the others
# in time, and close the windows of all.
_EVERYTHING_BY_AGE: Final = _EVERYTHING._replace(by_age=True)


class Partition(NamedTuple):
    """A partition of a queue: the keys whose slots leave the remainder *number* when they are divided by *partitions*.

    Messages without a key are in partition 0.
    """

    number: int
    #: How many partitions the queue has.
    partitions: int

    @property
    def reach(self) -> Reach:
        """Returns which messages its reader may take."""
        return Reach(range(self.number, SLOTS, self.partitions), None, self.number == 0, by_age=True)


class Membership(NamedTuple):
    """How a consumer reads its queue."""

    visibility: float
    sharing: Sharing = "shared"
    #: For ``alone``: consumers with equal holders may read at the same time.
    holder: str = ""
    #: For ``alone``: the only partition that it reads. None: it reads the whole queue.
    partition: Partition | None = None

    @property
    def written(self) -> str:
        """Returns what the file says of its sharing. Programs that know no partitions take it for another sharing."""
        return self.sharing if self.partition is None else f"{self.partition.number}/{self.partition.partitions}"


def enter(
    connection: sqlite3.Connection, queue: int, membership: Membership, is_alive: Callable[[int], bool]
) -> tuple[int, str | None]:
    """Enters a new consumer. Returns its id, and why another reader excludes it and what to do (None: none does).

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
        (membership.visibility, queue, membership.written, membership.holder),
    )
    return entered.lastrowid or 0, clash


def _clash(mine: Membership, sharing: str, holder: str) -> str | None:
    if mine.sharing == "alone" and sharing == mine.written and mine.holder == holder:
        return None
    theirs = _partition_in(sharing)
    if theirs is not None or mine.partition is not None:
        return _clash_of_partitions(mine.partition, theirs)
    found = _clash_of_wholes(mine.sharing, sharing)
    return found and (
        f"{found}; waiting until it is free: for ordered work in several processes, put messages with a key and set "
        "partitioned: true for every reader"
    )


def _clash_of_partitions(mine: Partition | None, theirs: Partition | None) -> str | None:
    if mine is not None and mine == theirs:
        return f"another reader has partition {mine.number}; waiting until that reader is gone"
    if mine is not None and theirs is not None and mine.partitions == theirs.partitions:
        return None
    return (
        f"it is read {_parted(theirs)}, but this reader must read it {_parted(mine)}; waiting until its readers are "
        "gone: set the same partitions for every reader"
    )


def _parted(partition: Partition | None) -> str:
    return "as a whole" if partition is None else f"in {partition.partitions} partitions"


def _partition_in(sharing: str) -> Partition | None:
    """Returns the partition that :attr:`Membership.written` has written as *sharing*; None: it is none."""
    number, slash, partitions = sharing.partition("/")
    return Partition(int(number), int(partitions)) if slash else None


def _clash_of_wholes(mine: Sharing, theirs: str) -> str | None:
    if theirs == "alone":
        return "an ordered pipeline already reads it alone"
    if mine == "alone":
        return "an ordered pipeline must read it alone, and it has another reader"
    if mine != theirs:
        return "it has readers with partitioned: true and others without"
    return None


def beat(connection: sqlite3.Connection, consumer: int, membership: Membership) -> bool:
    """Shows that *consumer* lives, and ends its suspension. Returns False if there is no such consumer."""
    changed = connection.execute(
        "UPDATE consumers SET beat = beat + 1, sharing = ? WHERE id = ?", (membership.written, consumer)
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
    """Returns which messages *consumer* may take now."""
    if membership.partition is not None:
        return membership.partition.reach
    if membership.sharing == "alone":
        return _EVERYTHING_BY_AGE
    if membership.sharing != "partitioned":
        return _EVERYTHING
    (found,) = connection.execute(
        "SELECT json_group_array(id) FROM consumers WHERE queue = ? AND sharing = 'partitioned'", (queue,)
    ).fetchone()
    return Reach(slots_of(consumer, json.loads(found)), (consumer << 32, ((consumer + 1) << 32) - 1))
