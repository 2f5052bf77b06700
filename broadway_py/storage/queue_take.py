"""Takes messages: finds them and reads them into Python. Everything runs inside a transaction.

Each statement, and each row that a statement returns, releases the interpreter's lock. Beside a thread that computes it
may have to wait to get it back. So the messages of a take are fetched as a single row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

__all__ = ["MOST_BYTES", "Found", "Reach", "Row", "find", "take", "wake_due"]

#: The approximate payload bytes of one take: it ends with the message that reaches this number.
MOST_BYTES: Final = 16 * 1024 * 1024
#: Payloads up to this size are fetched all at once, larger ones one by one.
_SMALL_BYTES: Final = 32 * 1024
#: A delayed row that is due becomes ready at a take. This is the most at a time, to keep that short.
_DUE_AT_ONCE: Final = 500


class Row(NamedTuple):
    """A message that was taken. *attempts* includes this attempt."""

    id: int
    lease: int
    #: Those that counted: not those of readers that gave the message back.
    attempts: int
    #: Whether any reader has had the message before, also one that gave it back.
    was_taken: bool
    enqueued_at: float
    metadata: str | None
    payload: bytes


class Reach(NamedTuple):
    """Which messages a reader may take."""

    #: The slots of the messages with keys.
    slots: Sequence[int]
    #: Slots are left out if a lease outside of this range holds messages of them: the previous owner has not finished
    #: with them. None: no slot is left out.
    unless_held_beyond: tuple[int, int] | None
    #: Whether it may take messages without a key.
    has_those_without_key: bool = True
    #: True: it takes the oldest messages first, whatever their slots. False: about the same number from each slot, so
    #: that a slot with a long backlog holds up no other.
    by_age: bool = False


class Found(NamedTuple):
    """The result of a look at the queue. Nothing is taken yet."""

    rows: list[Row]
    #: When the next delay ends, in the file's time. None: nothing is delayed.
    next_due: float | None


def wake_due(connection: sqlite3.Connection, queue: int, now: float) -> None:
    """Makes delayed rows ready whose delay has ended. *now* is the file's time."""
    connection.execute(
        "UPDATE messages SET due = NULL WHERE id IN "
        "(SELECT id FROM messages WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?)",
        (queue, now, _DUE_AT_ONCE),
    )


_READY: Final = "queue = :queue AND lease IS NULL AND due IS NULL"
_HELD: Final = "queue = :queue AND slot = value AND lease IS NOT NULL"
# SQLite stores the length of a blob in the row's head, so large payloads are not read for it.
_ROW: Final = (
    "messages.id, attempts, taken, enqueued_at, metadata, payload, priority, "
    "iif(typeof(payload) = 'blob', length(payload), length(CAST(payload AS BLOB))) AS size"
)
_WITHOUT_KEY: Final = f"FROM messages WHERE {_READY} AND slot IS NULL ORDER BY priority DESC, id LIMIT :without_key"
# Microseconds, because SQLite writes fractions into JSON with 15 digits. All small payloads are one value, because a
# JSON list cannot hold bytes. They are joined as text. That changes no byte, because a cast uses the encoding of the
# file and converts nothing.
_AS_ONE_ROW: Final = (
    "json_group_array("
    "json_array(id, attempts, taken, CAST(round(enqueued_at * 1000000) AS INTEGER), metadata, size)), "
    f"CAST(group_concat(iif(size <= {_SMALL_BYTES}, CAST(payload AS TEXT), ''), '') AS BLOB)"
)
_LOOK: Final = (
    f"SELECT {_AS_ONE_ROW}, "  # noqa: S608  # constants
    f"EXISTS (SELECT 1 FROM messages WHERE {_READY} AND slot IS NOT NULL), "
    "(SELECT min(due) FROM messages WHERE queue = :queue AND due IS NOT NULL) "
    f"FROM (SELECT {_ROW} {_WITHOUT_KEY})"
)
_MINE: Final = f"""
WITH mine (slot) AS MATERIALIZED (
    SELECT value FROM json_each(:slots)
    WHERE EXISTS (SELECT 1 FROM messages WHERE {_READY} AND slot = value)
    AND NOT EXISTS (SELECT 1 FROM messages WHERE {_HELD} AND lease < :first)
    AND NOT EXISTS (SELECT 1 FROM messages WHERE {_HELD} AND lease > :last)
)
"""  # noqa: S608  # constants
# Takes the oldest of each slot, about the same number from each. Slots and messages without a key are then ordered by
# age.
_LOOK_AT_SLOTS: Final = f"""
{_MINE}
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
# Takes the oldest of all slots. :most says how far it looks into each slot, by default twice the even part. Where a
# slot has more, the age of its next message is not known. So nothing is taken that is younger than the last one that
# was looked at there. The last column says whether this made it few: then a few slots have most of the messages.
_LOOK_BY_AGE: Final = f"""
{_MINE},
part (most) AS MATERIALIZED (SELECT coalesce(:most, min(:limit, 2 * :limit / max(1, count(*)) + 8)) FROM mine),
known (last) AS MATERIALIZED (
    SELECT min((
        SELECT id FROM messages WHERE {_READY} AND slot = mine.slot ORDER BY id
        LIMIT 1 OFFSET (SELECT most FROM part) - 1
    )) FROM mine
)
SELECT {_AS_ONE_ROW}, count(*) < :limit / 2 AND (SELECT last FROM known) IS NOT NULL FROM (
    SELECT {_ROW} FROM messages WHERE id IN (
        SELECT id FROM (
            SELECT id FROM (SELECT id {_WITHOUT_KEY})
            UNION ALL
            SELECT id FROM mine CROSS JOIN messages WHERE {_READY} AND messages.slot = mine.slot
        ) WHERE id <= (SELECT coalesce(last, {(1 << 63) - 1}) FROM known) ORDER BY id LIMIT :limit
    ) ORDER BY priority DESC, id
)
"""  # noqa: S608  # constants
#: Every lease lies between these two.
_ALL_LEASES: Final = (0, (1 << 63) - 1)


def find(connection: sqlite3.Connection, queue: int, reach: Reach, limit: int, lease: int) -> Found:
    """Returns the next messages to take, at most *limit*, as they will be under *lease*."""
    asked = {"queue": queue, "limit": limit, "without_key": limit if reach.has_those_without_key else 0}
    heads, payloads, has_keys, due = connection.execute(_LOOK, asked).fetchone()
    if has_keys and reach.slots:
        first, last = reach.unless_held_beyond or _ALL_LEASES
        more = {**asked, "slots": json.dumps(list(reach.slots)), "first": first, "last": last}
        if reach.by_age:
            heads, payloads = _oldest(connection, more)
        else:
            heads, payloads = connection.execute(_LOOK_AT_SLOTS, more).fetchone()
    return Found(_rows(connection, json.loads(heads), payloads, lease), due)


def _oldest(connection: sqlite3.Connection, asked: Mapping[str, object]) -> tuple[str, bytes]:
    heads, payloads, is_short = connection.execute(_LOOK_BY_AGE, {**asked, "most": None}).fetchone()
    if is_short:
        heads, payloads, _ = connection.execute(_LOOK_BY_AGE, {**asked, "most": asked["limit"]}).fetchone()
    return heads, payloads


def _rows(
    connection: sqlite3.Connection,
    heads: Sequence[tuple[int, int, int, int, str | None, int]],
    payloads: bytes,
    lease: int,
) -> list[Row]:
    rows = []
    start = total = 0
    for row_id, attempts, taken, enqueued_us, metadata, size in heads:
        if size <= _SMALL_BYTES:
            payload = payloads[start : start + size]
            start += size
        else:
            payload = _payload(connection, row_id)
        rows.append(Row(row_id, lease, attempts + 1, taken == 1, enqueued_us / 1e6, metadata, payload))
        total += size
        if total >= MOST_BYTES:
            break
    return rows


def _payload(connection: sqlite3.Connection, row_id: int) -> bytes:
    found = connection.execute("SELECT CAST(payload AS BLOB) FROM messages WHERE id = ?", (row_id,)).fetchone()
    return bytes(found[0])


def take(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Takes *rows*. :func:`find` has found them in this transaction, and they all have one lease."""
    connection.execute(
        "UPDATE messages SET lease = ?, attempts = attempts + 1, taken = 1 "
        "WHERE id IN (SELECT value FROM json_each(?))",
        (rows[0].lease, json.dumps([row.id for row in rows])),
    )
