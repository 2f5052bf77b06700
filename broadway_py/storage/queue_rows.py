"""What is done to the rows of the embedded queue: SQL and nothing else. Each function runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

__all__ = [
    "Buried",
    "Counts",
    "DeadHead",
    "DeadRow",
    "Held",
    "NewRow",
    "Row",
    "bury",
    "count",
    "dead_heads",
    "dead_payload",
    "dead_rows",
    "delete",
    "discard_dead",
    "free",
    "free_consumer",
    "insert",
    "next_due",
    "queue_id",
    "queue_names",
    "release",
    "replay",
    "take",
    "wake_due",
]

#: A delayed row that is due becomes ready when somebody takes; at most this many at a time, to keep that short.
_DUE_AT_ONCE: Final = 500
#: SQLite takes at most 32,766 values in a statement; one statement is one release of the interpreter's lock.
_ROWS_PER_INSERT: Final = 500


class NewRow(NamedTuple):
    """A message to be stored."""

    payload: bytes
    metadata: str | None
    due: float | None


class Row(NamedTuple):
    """A message that was taken. *attempts* counts this time too."""

    id: int
    lease: int
    attempts: int
    enqueued_at: float
    metadata: str | None
    payload: bytes


class Held(NamedTuple):
    """Names one taking of a message: settles nothing once the lease has gone to somebody else."""

    id: int
    lease: int


class Buried(NamedTuple):
    """A held message that failed for good, and why."""

    held: Held
    cause: str
    exception: str | None


class DeadRow(NamedTuple):
    """A message among the dead letters."""

    id: int
    attempts: int
    enqueued_at: float
    dead_at: float
    cause: str
    exception: str | None
    pipeline: str
    metadata: str | None
    payload: bytes


class DeadHead(NamedTuple):
    """A message among the dead letters, without its payload."""

    id: int
    attempts: int
    enqueued_at: float
    dead_at: float
    cause: str
    exception: str | None
    pipeline: str
    metadata: str | None
    #: Bytes of the payload.
    size: int


class Counts(NamedTuple):
    """How many messages a queue has, by where they stand."""

    #: Waiting, to be taken now.
    ready: int
    #: Waiting for the end of their delay.
    delayed: int
    #: Taken and not yet settled.
    held: int
    #: Among the dead letters.
    dead: int


def queue_id(connection: sqlite3.Connection, name: str) -> int:
    """The number of the queue *name*, which is made if it is new."""
    connection.execute("INSERT INTO queues (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    (found,) = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    return int(found)


def queue_names(connection: sqlite3.Connection) -> list[str]:
    """The queues of the file, the oldest first."""
    return [name for (name,) in connection.execute("SELECT name FROM queues ORDER BY id")]


def insert(connection: sqlite3.Connection, queue: int, rows: Sequence[NewRow], now: float) -> list[int]:
    """Store *rows* in order; their ids. *now* is wall time."""
    ids: list[int] = []
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        part = rows[start : start + _ROWS_PER_INSERT]
        values = ", ".join(["(?, ?, ?, ?, ?)"] * len(part))
        statement = f"INSERT INTO messages (queue, due, enqueued_at, metadata, payload) VALUES {values}"  # noqa: S608  # only question marks
        flat: list[Any] = []
        for row in part:
            flat += (queue, row.due, now, row.metadata, row.payload)
        last = connection.execute(statement, flat).lastrowid or 0
        # One transaction writes at a time, so the ids of one statement follow each other.
        ids += range(last - len(part) + 1, last + 1)
    return ids


def wake_due(connection: sqlite3.Connection, queue: int, now: float) -> None:
    """Make delayed rows ready whose delay has ended; *now* is the file's time."""
    connection.execute(
        "UPDATE messages SET due = NULL WHERE id IN "
        "(SELECT id FROM messages WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?)",
        (queue, now, _DUE_AT_ONCE),
    )


def take(connection: sqlite3.Connection, queue: int, lease: int, limit: int) -> list[Row]:
    """Lease at most *limit* ready rows, the oldest first."""
    taken = connection.execute(
        "UPDATE messages SET lease = ?, attempts = attempts + 1 WHERE id IN "
        "(SELECT id FROM messages WHERE queue = ? AND lease IS NULL AND due IS NULL ORDER BY id LIMIT ?) "
        "RETURNING id, lease, attempts, enqueued_at, metadata, payload",
        (lease, queue, limit),
    ).fetchall()
    taken.sort()  # RETURNING promises no order; ids are unique, so nothing but ids is compared
    return [Row._make(row) for row in taken]


def next_due(connection: sqlite3.Connection, queue: int) -> float | None:
    """When the next delay ends, in the file's time; None when nothing is delayed."""
    (due,) = connection.execute(
        "SELECT min(due) FROM messages WHERE queue = ? AND due IS NOT NULL", (queue,)
    ).fetchone()
    return None if due is None else float(due)


_DELETE: Final = "DELETE FROM messages WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"
# The same without a decision: given back by its holder, and this time does not count.
_RELEASE: Final = (
    "UPDATE messages SET lease = NULL, attempts = attempts - 1 "
    "WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"
)
_FREE: Final = "UPDATE messages SET lease = NULL WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"
# The plus sign keeps the index on leases out of it: the rows are looked up by their ids.
_PRESENT: Final = "FROM messages WHERE +lease = ? AND id IN (SELECT value FROM json_each(?))"


def delete(connection: sqlite3.Connection, held: Iterable[Held]) -> set[Held]:
    """Remove what was handled; returns those of *held* whose lease was gone, and which are left alone."""
    return _change(connection, _DELETE, held)


def release(connection: sqlite3.Connection, held: Iterable[Held]) -> set[Held]:
    """Give back without a decision, as if it had not been taken; returns those whose lease was gone."""
    return _change(connection, _RELEASE, held)


def postpone(connection: sqlite3.Connection, held: Iterable[tuple[Held, float]]) -> set[Held]:
    """Give back each row, to be taken again from its time on (the file's); returns those whose lease was gone."""
    gone: set[Held] = set()
    for one, due in held:
        moved = connection.execute(
            "UPDATE messages SET lease = NULL, due = ? WHERE id = ? AND lease = ?", (due, *one)
        ).rowcount
        if not moved:
            gone.add(one)
    return gone


def free(connection: sqlite3.Connection, held: Iterable[Held]) -> set[Held]:
    """Give back what nobody will settle any more; the attempt counts. Returns those whose lease was gone."""
    return _change(connection, _FREE, held)


def _change(connection: sqlite3.Connection, statement: str, held: Iterable[Held]) -> set[Held]:
    by_lease: dict[int, list[int]] = {}
    for row_id, lease in held:
        by_lease.setdefault(lease, []).append(row_id)
    gone: set[Held] = set()
    for lease, ids in by_lease.items():
        # One JSON list instead of one statement per row: each statement releases the interpreter's lock, and beside
        # a busy event loop it takes up to 5 ms to come back.
        asked = (lease, json.dumps(ids))
        (present,) = connection.execute(f"SELECT count(*) {_PRESENT}", asked).fetchone()
        if present != len(ids):
            found = {row[0] for row in connection.execute(f"SELECT id {_PRESENT}", asked)}
            gone.update(Held(row_id, lease) for row_id in ids if row_id not in found)
        connection.execute(statement, asked)
    return gone


def bury(connection: sqlite3.Connection, buried: Iterable[Buried], pipeline: str, now: float) -> set[Held]:
    """Move held rows to the dead letters; returns those whose lease was gone. *now* is wall time."""
    gone: set[Held] = set()
    for held, cause, exception in buried:
        moved = connection.execute(
            "INSERT INTO dead_letters "
            "(id, queue, attempts, enqueued_at, dead_at, cause, exception, pipeline, metadata, payload) "
            "SELECT id, queue, attempts, enqueued_at, ?, ?, ?, ?, metadata, payload "
            "FROM messages WHERE id = ? AND lease = ?",
            (now, cause, exception, pipeline, *held),
        ).rowcount
        if moved:
            connection.execute("DELETE FROM messages WHERE id = ?", (held.id,))
        else:
            gone.add(held)
    return gone


def free_consumer(connection: sqlite3.Connection, consumer: int) -> int:
    """Give back everything that *consumer* holds; how many. The attempts count."""
    return connection.execute(
        "UPDATE messages SET lease = NULL WHERE lease BETWEEN ? AND ?", (consumer << 32, ((consumer + 1) << 32) - 1)
    ).rowcount


def count(connection: sqlite3.Connection, queue: int) -> Counts:
    """How many messages stand where."""
    return Counts(
        *(
            connection.execute(f"SELECT count(*) FROM {place}", (queue,)).fetchone()[0]  # noqa: S608  # constants
            for place in (
                "messages WHERE queue = ? AND lease IS NULL AND due IS NULL",
                "messages WHERE queue = ? AND due IS NOT NULL",
                "messages WHERE queue = ? AND lease IS NOT NULL",
                "dead_letters WHERE queue = ?",
            )
        )
    )


_CHOSEN: Final = "FROM dead_letters WHERE queue = ? AND (? IS NULL OR id IN (SELECT value FROM json_each(?)))"
_COPY_BACK: Final = (
    "INSERT INTO messages (id, queue, enqueued_at, metadata, payload) "
    f"SELECT id, queue, enqueued_at, metadata, payload {_CHOSEN}"
)
_DELETE_DEAD: Final = f"DELETE {_CHOSEN}"


def _chosen(queue: int, ids: Iterable[int] | None) -> tuple[int, str | None, str | None]:
    listed = None if ids is None else json.dumps(list(ids))
    return queue, listed, listed


def dead_rows(connection: sqlite3.Connection, queue: int, limit: int | None) -> list[DeadRow]:
    """The dead letters of a queue, the oldest message first."""
    rows = connection.execute(
        "SELECT id, attempts, enqueued_at, dead_at, cause, exception, pipeline, metadata, payload "
        "FROM dead_letters WHERE queue = ? ORDER BY id LIMIT ?",
        (queue, -1 if limit is None else limit),
    )
    return [DeadRow._make(row) for row in rows]


def dead_heads(connection: sqlite3.Connection, queue: int) -> list[DeadHead]:
    """The dead letters of a queue without their payloads, the oldest message first."""
    rows = connection.execute(
        "SELECT id, attempts, enqueued_at, dead_at, cause, exception, pipeline, metadata, length(payload) "
        "FROM dead_letters WHERE queue = ? ORDER BY id",
        (queue,),
    )
    return [DeadHead._make(row) for row in rows]


def dead_payload(connection: sqlite3.Connection, queue: int, dead: int) -> bytes | None:
    """The payload of one dead letter; None when there is none of this number."""
    found = connection.execute("SELECT payload FROM dead_letters WHERE queue = ? AND id = ?", (queue, dead)).fetchone()
    return None if found is None else bytes(found[0])


def replay(connection: sqlite3.Connection, queue: int, ids: Iterable[int] | None) -> int:
    """Put dead letters (None: all) back into their queue, with their attempts forgotten; how many."""
    asked = _chosen(queue, ids)
    moved = connection.execute(
        _COPY_BACK,
        asked,
    ).rowcount
    connection.execute(_DELETE_DEAD, asked)
    return moved


def discard_dead(connection: sqlite3.Connection, queue: int, ids: Iterable[int] | None) -> int:
    """Remove dead letters (None: all) for good; how many."""
    return connection.execute(_DELETE_DEAD, _chosen(queue, ids)).rowcount
