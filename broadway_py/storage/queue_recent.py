"""Stores a message once if it is put twice: remembers the ids of recent puts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from broadway_py.storage.queue_rows import NewRow, insert

__all__ = ["Moment", "insert_new"]

#: Each put removes more old ids than it adds, so that their number depends on the rate of puts and not on the years.
_FORGET_AT_LEAST: Final = 1_000


class Moment(NamedTuple):
    """When ids are put, and until when they count as already put."""

    #: The time of the wall clock.
    wall: float
    #: The file's time.
    now: float
    #: The file's time.
    until: float


def insert_new(
    connection: sqlite3.Connection, queue: int, named: Sequence[tuple[NewRow, str | None]], moment: Moment
) -> list[int]:
    """Stores the rows whose id was not put before, in this call or recently. Returns the number of each row.

    A row without an id (None) is always new. A row that was put before gets the number of the first one.
    """
    message_ids = [message_id for _, message_id in named]
    _forget(connection, moment.now, max(_FORGET_AT_LEAST, 2 * len(named)))
    known = _known(connection, queue, message_ids, moment.now)
    new: list[NewRow] = []
    # For each row: its index among the new ones, or the number that it has already.
    places: list[tuple[bool, int]] = []
    first_of: dict[str, int] = {}
    for row, message_id in named:
        if message_id is not None and message_id in known:
            places.append((False, known[message_id]))
        elif message_id is not None and message_id in first_of:
            places.append((True, first_of[message_id]))
        else:
            if message_id is not None:
                first_of[message_id] = len(new)
            places.append((True, len(new)))
            new.append(row)
    numbers = insert(connection, queue, new, moment.wall)
    connection.executemany(
        "INSERT OR REPLACE INTO recent (queue, message_id, message, until) VALUES (?, ?, ?, ?)",
        ((queue, message_id, numbers[place], moment.until) for message_id, place in first_of.items()),
    )
    return [numbers[place] if is_new else place for is_new, place in places]


def _forget(connection: sqlite3.Connection, now: float, most: int) -> None:
    connection.execute(
        "DELETE FROM recent WHERE (queue, message_id) IN "
        "(SELECT queue, message_id FROM recent WHERE until <= ? ORDER BY until LIMIT ?)",
        (now, most),
    )


def _known(connection: sqlite3.Connection, queue: int, message_ids: Sequence[str | None], now: float) -> dict[str, int]:
    asked = json.dumps([message_id for message_id in message_ids if message_id is not None])
    found = connection.execute(
        "SELECT message_id, message FROM recent "
        "WHERE queue = ? AND until > ? AND message_id IN (SELECT value FROM json_each(?))",
        (queue, now, asked),
    )
    return dict(found.fetchall())
