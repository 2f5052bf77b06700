"""Limit: bare SQLite in one thread; 100 rows are taken and the 100 before them removed in each durable transaction."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.measure import Ids, Meter, arguments
from benchmarks.queue_file import body, directory, identity

ROWS = 100


def fill(path: Path, messages: int) -> sqlite3.Connection:
    """A full queue: the fewest columns and the one index that a lease needs."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, lease INTEGER, payload BLOB NOT NULL)")
    connection.execute("CREATE INDEX ready ON messages (id) WHERE lease IS NULL")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO messages (payload) VALUES (?)", ((body(number),) for number in range(messages)))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return connection


def drain(connection: sqlite3.Connection, messages: int) -> int:
    """Take and remove *messages*; how many were counted."""
    ids = Ids(messages)
    count = 0
    held: list[tuple[int]] = []
    while count < messages or held:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("DELETE FROM messages WHERE id = ?", held)
        taken = connection.execute(
            "UPDATE messages SET lease = 1 WHERE id IN "
            "(SELECT id FROM messages WHERE lease IS NULL ORDER BY id LIMIT ?) RETURNING id, payload",
            (ROWS,),
        ).fetchall()
        connection.execute("COMMIT")
        held = [(number,) for number, _ in taken]
        for _, payload in taken:
            ids.seen[identity(payload)] += 1
        count += len(taken)
    ids.check()
    return count


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    with directory() as place:
        full = fill(place / "limit.db", asked.messages)
        meter = Meter(gate=asked.gate)
        drained = drain(full, asked.messages)
        meter.report("queue_sqlite", drained)
        full.close()
