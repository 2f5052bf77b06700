"""The tables of the embedded queue's file. A change is a new entry at the end of the migrations, never an edit."""

from __future__ import annotations

from typing import Final

from broadway_py.storage.schema import Schema

__all__ = ["QUEUE_SCHEMA"]

_VERSION_1: Final = (
    # AUTOINCREMENT in all of them: an id is never given twice, so a late settlement cannot hit somebody else's row.
    "CREATE TABLE queues (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
    # Who takes messages. `beat` grows while the consumer holds messages; `visibility` is how long it may stand still.
    """CREATE TABLE consumers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        beat INTEGER NOT NULL DEFAULT 0,
        visibility REAL NOT NULL
    )""",
    # A message is ready (no lease, no due), delayed (due), or held (lease = consumer id << 32 | number of its take).
    # `due` is in the file's own time (see queue_time.py); `enqueued_at` is what the wall clock showed.
    """CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        queue INTEGER NOT NULL,
        lease INTEGER,
        due REAL,
        attempts INTEGER NOT NULL DEFAULT 0,
        enqueued_at REAL NOT NULL,
        metadata TEXT,
        payload BLOB NOT NULL
    )""",
    "CREATE INDEX messages_ready ON messages (queue, id) WHERE lease IS NULL AND due IS NULL",
    "CREATE INDEX messages_delayed ON messages (queue, due) WHERE due IS NOT NULL",
    "CREATE INDEX messages_held ON messages (lease, queue) WHERE lease IS NOT NULL",
    # A dead letter keeps the id of its message, so that it is the same message after a replay.
    """CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY,
        queue INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        enqueued_at REAL NOT NULL,
        dead_at REAL NOT NULL,
        cause TEXT NOT NULL,
        exception TEXT,
        pipeline TEXT NOT NULL,
        metadata TEXT,
        payload BLOB NOT NULL
    )""",
    "CREATE INDEX dead_letters_queue ON dead_letters (queue, id)",
    # The origin of the file's own time during this boot of the machine.
    "CREATE TABLE time (only INTEGER PRIMARY KEY CHECK (only = 1), boot TEXT NOT NULL, origin REAL NOT NULL)",
)

QUEUE_SCHEMA: Final = Schema(what="queue file", application_id=0x42775131, migrations=(_VERSION_1,))
