"""Taking messages: which ones, and how they get into Python. Inside a transaction.

Each statement, and each row that a statement returns, lets go of the interpreter's lock, and may have to wait for it
beside a thread that computes. So what is fetched here comes as a single row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["MOST_BYTES", "Found", "Reach", "Row", "find", "take", "wake_due"]

#: Payload bytes of one take, about: it ends with the message that reaches this.
MOST_BYTES: Final = 16 * 1024 * 1024
#: Up to this size payloads are fetched all at once, larger ones one by one.
_SMALL_BYTES: Final = 32 * 1024
#: A delayed row that is due becomes ready when somebody takes; at most this many at a time, to keep that short.
_DUE_AT_ONCE: Final = 500


class Row(NamedTuple):
    """A message that was taken. *attempts* counts this time too."""

    id: int
    lease: int
    attempts: int
    enqueued_at: float
    metadata: str | None
    payload: bytes


class Reach(NamedTuple):
    """Which messages with keys a reader may take; messages without one are anybody's."""

    #: The slots.
    slots: Sequence[int]
    #: Leave out slots of which somebody with a lease outside of this range holds messages: their owner before this one
    #: has not finished with them. None: leave out none.
    unless_held_beyond: tuple[int, int] | None


class Found(NamedTuple):
    """What a look at the queue has found; nothing is taken yet."""

    rows: list[Row]
    #: When the next delay ends, in the file's time; None when nothing is delayed.
    next_due: float | None


def wake_due(connection: sqlite3.Connection, queue: int, now: float) -> None:
    """Make delayed rows ready whose delay has ended; *now* is the file's time."""
    connection.execute(
        "UPDATE messages SET due = NULL WHERE id IN "
        "(SELECT id FROM messages WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?)",
        (queue, now, _DUE_AT_ONCE),
    )


_READY: Final = "queue = :queue AND lease IS NULL AND due IS NULL"
_HELD: Final = "queue = :queue AND slot = value AND lease IS NOT NULL"
# The length of bytes stands in the row's head, so that large payloads are not read for it.
_ROW: Final = (
    "messages.id, attempts, enqueued_at, metadata, payload, priority, "
    "iif(typeof(payload) = 'blob', length(payload), length(CAST(payload AS BLOB))) AS size"
)
_WITHOUT_KEY: Final = f"FROM messages WHERE {_READY} AND slot IS NULL ORDER BY priority DESC, id LIMIT :limit"
# Microseconds, because SQLite writes fractions into JSON with 15 digits. All small payloads as one, for a JSON list
# cannot hold bytes: as text they are joined as they are, because the encoding of the file is that of the bytes.
_AS_ONE_ROW: Final = (
    "json_group_array(json_array(id, attempts, CAST(round(enqueued_at * 1000000) AS INTEGER), metadata, size)), "
    f"CAST(group_concat(iif(size <= {_SMALL_BYTES}, CAST(payload AS TEXT), ''), '') AS BLOB)"
)
_LOOK: Final = (
    f"SELECT {_AS_ONE_ROW}, "  # noqa: S608  # constants
    f"EXISTS (SELECT 1 FROM messages WHERE {_READY} AND slot IS NOT NULL), "
    "(SELECT min(due) FROM messages WHERE queue = :queue AND due IS NOT NULL) "
    f"FROM (SELECT {_ROW} {_WITHOUT_KEY})"
)
# Of each slot the oldest, about as many as of any other; slots and messages without a key share by age.
_LOOK_AT_SLOTS: Final = f"""
WITH mine (slot) AS MATERIALIZED (
    SELECT value FROM json_each(:slots)
    WHERE EXISTS (SELECT 1 FROM messages WHERE {_READY} AND slot = value)
    AND NOT EXISTS (SELECT 1 FROM messages WHERE {_HELD} AND lease < :first)
    AND NOT EXISTS (SELECT 1 FROM messages WHERE {_HELD} AND lease > :last)
)
SELECT {_AS_ONE_ROW} FROM (
    SELECT {_ROW} FROM messages WHERE id IN (
        SELECT * FROM (SELECT id {_WITHOUT_KEY})
        UNION ALL
        SELECT messages.id FROM mine CROSS JOIN messages WHERE messages.id IN (
            SELECT id FROM messages WHERE {_READY} AND slot = mine.slot
            ORDER BY id LIMIT :limit / (SELECT count(*) FROM mine) + 1
        )
    ) ORDER BY priority DESC, id LIMIT :limit
)
"""  # noqa: S608  # constants
#: Every lease lies between these two.
_ALL_LEASES: Final = (0, (1 << 63) - 1)


def find(connection: sqlite3.Connection, queue: int, reach: Reach, limit: int, lease: int) -> Found:
    """The next messages to take, at most *limit*, as they will be under *lease*."""
    asked = {"queue": queue, "limit": limit}
    heads, payloads, has_keys, due = connection.execute(_LOOK, asked).fetchone()
    if has_keys and reach.slots:
        first, last = reach.unless_held_beyond or _ALL_LEASES
        more = {**asked, "slots": json.dumps(list(reach.slots)), "first": first, "last": last}
        heads, payloads = connection.execute(_LOOK_AT_SLOTS, more).fetchone()
    return Found(_rows(connection, json.loads(heads), payloads, lease), due)


def _rows(
    connection: sqlite3.Connection, heads: Sequence[tuple[int, int, int, str | None, int]], payloads: bytes, lease: int
) -> list[Row]:
    rows = []
    start = total = 0
    for row_id, attempts, enqueued_us, metadata, size in heads:
        if size <= _SMALL_BYTES:
            payload = payloads[start : start + size]
            start += size
        else:
            payload = _payload(connection, row_id)
        rows.append(Row(row_id, lease, attempts + 1, enqueued_us / 1e6, metadata, payload))
        total += size
        if total >= MOST_BYTES:
            break
    return rows


def _payload(connection: sqlite3.Connection, row_id: int) -> bytes:
    found = connection.execute("SELECT CAST(payload AS BLOB) FROM messages WHERE id = ?", (row_id,)).fetchone()
    return bytes(found[0])


def take(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Take *rows*, which :func:`find` has found in this transaction and which all have one lease."""
    connection.execute(
        "UPDATE messages SET lease = ?, attempts = attempts + 1 WHERE id IN (SELECT value FROM json_each(?))",
        (rows[0].lease, json.dumps([row.id for row in rows])),
    )
