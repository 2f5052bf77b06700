"""The tables of the embedded queue's file. A change is a new migration at the end, never an edit."""

from __future__ import annotations

from typing import Final

from broadway_py.storage.schema import Schema

__all__ = ["QUEUE_SCHEMA"]

_VERSION_1: Final = (
    # AUTOINCREMENT makes sure that an id is never given twice, so a late settlement cannot change another row.
    "CREATE TABLE queues (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
    # The consumers. `beat` grows while a consumer holds messages; `visibility` is how long it may stay the same.
    """CREATE TABLE consumers (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        beat INTEGER NOT NULL DEFAULT 0,
        visibility REAL NOT NULL
    )""",
    # A message is ready (no lease, no due), delayed (due), or held (lease = consumer id << 32 | number of its take).
    # `due` is in the file's own time (see queue_time.py). `enqueued_at` is the time of the wall clock.
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
    # The origin of the file's own time since this boot of the machine.
    "CREATE TABLE time (only INTEGER PRIMARY KEY CHECK (only = 1), boot TEXT NOT NULL, origin REAL NOT NULL)",
)

_VERSION_2: Final = (
    # A message with a larger priority goes first. `slot` is the slot of the key (see queue_slots.py), NULL for a
    # message without a key.
    "ALTER TABLE messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE messages ADD COLUMN slot INTEGER",
    "ALTER TABLE dead_letters ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE dead_letters ADD COLUMN slot INTEGER",
    # The queue that a consumer reads, and how it shares the queue (see queue_members.py). NULL: the consumer of an
    # older program.
    "ALTER TABLE consumers ADD COLUMN queue INTEGER",
    "ALTER TABLE consumers ADD COLUMN sharing TEXT",
    "ALTER TABLE consumers ADD COLUMN holder TEXT",
    # A ready message is in exactly one of these two indexes.
    "DROP INDEX messages_ready",
    """CREATE INDEX messages_ready ON messages (queue, priority DESC, id)
        WHERE lease IS NULL AND due IS NULL AND slot IS NULL""",
    """CREATE INDEX messages_slots ON messages (queue, slot, id)
        WHERE lease IS NULL AND due IS NULL AND slot IS NOT NULL""",
    "CREATE INDEX messages_slots_held ON messages (queue, slot, lease) WHERE lease IS NOT NULL AND slot IS NOT NULL",
    # Messages that were put with their own id. At `until` (in the file's time) the same id counts as new again.
    """CREATE TABLE recent (
        queue INTEGER NOT NULL,
        message_id TEXT NOT NULL,
        message INTEGER NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (queue, message_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX recent_until ON recent (until)",
)

_VERSION_3: Final = (
    # 1: a reader has had the message, also if it gave the message back. Of the messages of an older file nobody knows
    # it, so they count as taken, as do those that come back from the dead letters.
    "ALTER TABLE messages ADD COLUMN taken INTEGER NOT NULL DEFAULT 1",
)

QUEUE_SCHEMA: Final = Schema(
    what="queue file", application_id=0x42775131, migrations=(_VERSION_1, _VERSION_2, _VERSION_3)
)
