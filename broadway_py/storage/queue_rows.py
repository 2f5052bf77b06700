"""The SQL for the rows of the embedded queue. Each function runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from broadway_py.storage.row_parts import row_parts

__all__ = [
    "Counts",
    "Held",
    "NewRow",
    "Waiting",
    "count",
    "count_waiting",
    "count_waiting_in",
    "delete",
    "free",
    "free_consumer",
    "insert",
    "postpone",
    "queue_id",
    "queue_names",
    "release",
]

# With the slot, because a ready message is in one of two indexes. Without it, SQLite would read the whole table.
_READY_WITHOUT_KEY: Final = "messages WHERE queue = :queue AND lease IS NULL AND due IS NULL AND slot IS NULL"
_READY_WITH_KEY: Final = "messages WHERE queue = :queue AND lease IS NULL AND due IS NULL AND slot IS NOT NULL"


class NewRow(NamedTuple):
    """A message to store."""

    payload: bytes
    metadata: str | None = None
    #: The file's time from which it may be taken. None: at once.
    due: float | None = None
    priority: int = 0
    #: The slot of its key. None: it has no key.
    slot: int | None = None


class Held(NamedTuple):
    """Names one taking of a message. It settles nothing once another consumer has the lease."""

    id: int
    lease: int


class Counts(NamedTuple):
    """How many messages of a queue are in each state."""

    #: Waiting, and can be taken now.
    ready: int
    #: Waiting for the end of their delay.
    delayed: int
    #: Taken and not yet settled.
    held: int
    #: Among the dead letters.
    dead: int


class Waiting(NamedTuple):
    """How many messages of a queue, or of some of its slots, wait."""

    #: Those that can be taken now, also those whose delay has ended and that no take has looked at yet.
    ready: int
    #: Those whose delay has not ended. None: it is not counted.
    delayed: int | None
    #: Those among the dead letters. None: it is not counted.
    dead: int | None


def queue_id(connection: sqlite3.Connection, name: str) -> int:
    """Returns the number of the queue *name*. A new queue is created."""
    connection.execute("INSERT INTO queues (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    (found,) = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    return int(found)


def queue_names(connection: sqlite3.Connection) -> list[str]:
    """Returns the queues of the file, the oldest first."""
    return [name for (name,) in connection.execute("SELECT name FROM queues ORDER BY id")]


def insert(connection: sqlite3.Connection, queue: int, rows: Sequence[NewRow], now: float) -> list[int]:
    """Stores *rows* in order. Returns their ids. *now* is wall time."""
    ids: list[int] = []
    for part in row_parts(rows):
        values = ", ".join(["(?, ?, ?, ?, ?, ?, ?, 0)"] * len(part))
        columns = "queue, due, enqueued_at, metadata, payload, priority, slot, taken"
        statement = f"INSERT INTO messages ({columns}) VALUES {values}"  # noqa: S608  # only question marks
        flat: list[Any] = []
        for row in part:
            flat += (queue, row.due, now, row.metadata, row.payload, row.priority, row.slot)
        last = connection.execute(statement, flat).lastrowid or 0
        # One transaction writes at a time, so the ids of one statement follow each other.
        ids += range(last - len(part) + 1, last + 1)
    return ids


_DELETE: Final = "DELETE FROM messages WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"
# Given back by its holder without a decision, so this attempt does not count.
_RELEASE: Final = (
    "UPDATE messages SET lease = NULL, attempts = attempts - 1 "
    "WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"
)
_FREE: Final = "UPDATE messages SET lease = NULL WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"
# The plus sign keeps SQLite from using the index on leases: the rows are found by their ids.
_PRESENT: Final = "FROM messages WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"


def delete(connection: sqlite3.Connection, held: Iterable[Held]) -> set[Held]:
    """Removes rows that were handled. Returns those of *held* whose lease was gone. They are left alone."""
    return _change(connection, _DELETE, held)


def release(connection: sqlite3.Connection, held: Iterable[Held]) -> set[Held]:
    """Gives rows back without a decision. The attempt does not count. Returns those whose lease was gone."""
    return _change(connection, _RELEASE, held)


def postpone(connection: sqlite3.Connection, held: Iterable[tuple[Held, float]]) -> set[Held]:
    """Gives each row back, to be taken again from its time (the file's). Returns those whose lease was gone."""
    gone: set[Held] = set()
    for one, due in held:
        moved = connection.execute(
            "UPDATE messages SET lease = NULL, due = ? WHERE id = ? AND lease = ?", (due, *one)
        ).rowcount
        if not moved:
            gone.add(one)
    return gone


def free(connection: sqlite3.Connection, held: Iterable[Held]) -> set[Held]:
    """Gives back rows that nobody will settle. The attempt counts. Returns those whose lease was gone."""
    return _change(connection, _FREE, held)


def _change(connection: sqlite3.Connection, statement: str, held: Iterable[Held]) -> set[Held]:
    by_lease: dict[int, list[int]] = {}
    for row_id, lease in held:
        by_lease.setdefault(lease, []).append(row_id)
    gone: set[Held] = set()
    for lease, ids in by_lease.items():
        # One JSON list replaces one statement per row: each statement releases the interpreter's lock, and beside a
        # busy event loop it takes up to 5 ms to get it back.
        asked = (lease, json.dumps(ids))
        (present,) = connection.execute(f"SELECT count(*) {_PRESENT}", asked).fetchone()
        if present != len(ids):
            found = {row[0] for row in connection.execute(f"SELECT id {_PRESENT}", asked)}
            gone.update(Held(row_id, lease) for row_id in ids if row_id not in found)
        connection.execute(statement, asked)
    return gone


def free_consumer(connection: sqlite3.Connection, consumer: int) -> int:
    """Gives back everything that *consumer* holds. Returns how many. The attempts count."""
    return connection.execute(
        "UPDATE messages SET lease = NULL WHERE lease BETWEEN ? AND ?", (consumer << 32, ((consumer + 1) << 32) - 1)
    ).rowcount


_DEAD: Final = "dead_letters WHERE queue = :queue"
_COUNT: Final = f"""
SELECT (SELECT count(*) FROM {_READY_WITHOUT_KEY}), (SELECT count(*) FROM {_READY_WITH_KEY}),
    (SELECT count(*) FROM messages WHERE queue = :queue AND due IS NOT NULL),
    (SELECT count(*) FROM messages WHERE queue = :queue AND lease IS NOT NULL),
    (SELECT count(*) FROM {_DEAD})
"""  # noqa: S608  # constants
_DUE: Final = "messages WHERE queue = :queue AND due <= :now"
_DELAYED: Final = "messages WHERE queue = :queue AND due > :now"
_COUNT_WAITING: Final = f"""
SELECT (SELECT count(*) FROM {_READY_WITHOUT_KEY}) + (SELECT count(*) FROM {_READY_WITH_KEY})
    + (SELECT count(*) FROM {_DUE}),
    (SELECT count(*) FROM {_DELAYED}),
    (SELECT count(*) FROM {_DEAD})
"""  # noqa: S608  # constants
_COUNT_SLOTS: Final = """
SELECT count(*) FROM json_each(:slots) CROSS JOIN messages
WHERE queue = :queue AND slot = value AND lease IS NULL AND due IS NULL
"""


def count(connection: sqlite3.Connection, queue: int) -> Counts:
    """Returns how many messages are in each state."""
    without_key, with_key, delayed, held, dead = _counts(connection, queue)
    return Counts(without_key + with_key, delayed, held, dead)


def _counts(connection: sqlite3.Connection, queue: int) -> tuple[int, int, int, int, int]:
    """Returns how many messages are ready without a key and with one, delayed, held, and dead."""
    found: tuple[int, int, int, int, int] = connection.execute(_COUNT, {"queue": queue}).fetchone()
    return found


def count_waiting(connection: sqlite3.Connection, queue: int, now: float) -> Waiting:
    """Returns how many messages of *queue* wait. *now* is the file's time. It reads indexes only."""
    return Waiting(*connection.execute(_COUNT_WAITING, {"queue": queue, "now": now}).fetchone())


def count_waiting_in(connection: sqlite3.Connection, queue: int, slots: Sequence[int], *, rest: bool) -> Waiting:
    """Returns how many messages of *slots* wait.

    With *rest*, those without a key are counted, too, and the delayed ones and dead letters of the whole queue: their
    indexes do not know the slots.
    """
    asked = {"queue": queue, "slots": json.dumps(list(slots))}
    (ready,) = connection.execute(_COUNT_SLOTS, asked).fetchone()
    if not rest:
        return Waiting(ready, None, None)
    without_key, _, delayed, _, dead = _counts(connection, queue)
    return Waiting(ready + without_key, delayed, dead)
