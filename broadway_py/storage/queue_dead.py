"""The SQL for the dead letters of the embedded queue. Each function runs inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Final, NamedTuple

from broadway_py.storage.queue_rows import Held

__all__ = [
    "DeadHead",
    "DeadRow",
    "NewDeadLetter",
    "add_dead",
    "dead_heads",
    "dead_payload",
    "dead_rows",
    "discard_dead",
    "replay",
]


class NewDeadLetter(NamedTuple):
    """A held message that failed for good, and why."""

    held: Held
    cause: str
    exception: str | None


class DeadRow(NamedTuple):
    """A dead letter."""

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
    """A dead letter without its payload."""

    id: int
    attempts: int
    enqueued_at: float
    dead_at: float
    cause: str
    exception: str | None
    pipeline: str
    metadata: str | None
    #: The size of the payload in bytes.
    size: int


def add_dead(connection: sqlite3.Connection, dead: Iterable[NewDeadLetter], pipeline: str, now: float) -> set[Held]:
    """Moves held rows to the dead letters. Returns those whose lease was gone. *now* is wall time."""
    gone: set[Held] = set()
    for held, cause, exception in dead:
        moved = connection.execute(
            "INSERT INTO dead_letters "
            "(id, queue, attempts, enqueued_at, dead_at, cause, exception, pipeline, "
            "metadata, payload, priority, slot) "
            "SELECT id, queue, attempts, enqueued_at, ?, ?, ?, ?, metadata, payload, priority, slot "
            "FROM messages WHERE id = ? AND lease = ?",
            (now, cause, exception, pipeline, *held),
        ).rowcount
        if moved:
            connection.execute("DELETE FROM messages WHERE id = ?", (held.id,))
        else:
            gone.add(held)
    return gone


_CHOSEN: Final = "FROM dead_letters WHERE queue = ? AND (? IS NULL OR id IN (SELECT value FROM json_each(?)))"
_COPY_BACK: Final = (
    "INSERT INTO messages (id, queue, enqueued_at, metadata, payload, priority, slot) "
    f"SELECT id, queue, enqueued_at, metadata, payload, priority, slot {_CHOSEN}"
)
_DELETE_DEAD: Final = f"DELETE {_CHOSEN}"


def _chosen(queue: int, ids: Iterable[int] | None) -> tuple[int, str | None, str | None]:
    listed = None if ids is None else json.dumps(list(ids))
    return queue, listed, listed


def dead_rows(connection: sqlite3.Connection, queue: int, limit: int | None) -> list[DeadRow]:
    """Returns the dead letters of a queue, the oldest message first. *limit* None: all."""
    rows = connection.execute(
        "SELECT id, attempts, enqueued_at, dead_at, cause, exception, pipeline, metadata, payload "
        "FROM dead_letters WHERE queue = ? ORDER BY id LIMIT ?",
        (queue, -1 if limit is None else limit),
    )
    return [DeadRow._make(row) for row in rows]


def dead_heads(connection: sqlite3.Connection, queue: int, most: int | None = None) -> list[DeadHead]:
    """Returns the oldest *most* dead letters (None: all) of a queue without their payloads, the oldest first."""
    rows = connection.execute(
        "SELECT id, attempts, enqueued_at, dead_at, cause, exception, pipeline, metadata, length(payload) "
        "FROM dead_letters WHERE queue = ? ORDER BY id LIMIT ?",
        (queue, -1 if most is None else most),
    )
    return [DeadHead._make(row) for row in rows]


def dead_payload(connection: sqlite3.Connection, queue: int, letter: int) -> bytes | None:
    """Returns the payload of one dead letter, or None if there is none of this number."""
    found = connection.execute(
        "SELECT payload FROM dead_letters WHERE queue = ? AND id = ?", (queue, letter)
    ).fetchone()
    return None if found is None else bytes(found[0])


def replay(connection: sqlite3.Connection, queue: int, ids: Iterable[int] | None) -> int:
    """Puts dead letters (None: all) back into their queue, with their attempts set to zero. Returns how many."""
    asked = _chosen(queue, ids)
    moved = connection.execute(
        _COPY_BACK,
        asked,
    ).rowcount
    connection.execute(_DELETE_DEAD, asked)
    return moved


def discard_dead(connection: sqlite3.Connection, queue: int, ids: Iterable[int] | None) -> int:
    """Removes dead letters (None: all) for good. Returns how many."""
    return connection.execute(_DELETE_DEAD, _chosen(queue, ids)).rowcount
