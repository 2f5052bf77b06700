"""The tables of a file with window state. A change is a new migration at the end, never an edit."""

from __future__ import annotations

from typing import Final

from broadway_py.storage.schema import Schema

__all__ = ["STATE_SCHEMA"]

_VERSION_1: Final = (
    # `number` is that of the last checkpoint. `asked` grows when somebody asks for it (see rows.ask_number).
    """CREATE TABLE aggregators (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        version INTEGER NOT NULL,
        window TEXT NOT NULL,
        key_type TEXT NOT NULL,
        value_type TEXT NOT NULL,
        number INTEGER NOT NULL DEFAULT 0,
        asked INTEGER NOT NULL DEFAULT 0,
        memory BLOB,
        crc INTEGER NOT NULL DEFAULT 0
    )""",
    # Accumulators that one checkpoint stored in one bucket. The ids grow in the order of the checkpoints.
    """CREATE TABLE accumulators (
        id INTEGER PRIMARY KEY,
        aggregator INTEGER NOT NULL,
        bucket INTEGER NOT NULL,
        number INTEGER NOT NULL,
        version INTEGER NOT NULL,
        entries INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        content BLOB NOT NULL
    )""",
    "CREATE INDEX accumulators_bucket ON accumulators (aggregator, bucket, number)",
    # The identities of the messages of one checkpoint, 16 bytes each.
    """CREATE TABLE identities (
        id INTEGER PRIMARY KEY,
        aggregator INTEGER NOT NULL,
        number INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        content BLOB NOT NULL
    )""",
    "CREATE INDEX identities_number ON identities (aggregator, number)",
    # Results that emit() has not taken yet.
    """CREATE TABLE results (
        aggregator INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        version INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (aggregator, sequence)
    ) WITHOUT ROWID""",
)

_VERSION_2: Final = (
    # One row: the file belongs to one partition of the sources. No row: they have none.
    "CREATE TABLE source_partition (number INTEGER NOT NULL, partitions INTEGER NOT NULL)",
)

_VERSION_3: Final = (
    # 0: the program that opened the file last does not have this aggregator.
    "ALTER TABLE aggregators ADD COLUMN is_used INTEGER NOT NULL DEFAULT 1",
    # 1: an operator wants the result to be removed. The process that has the file removes it, when nobody emits it.
    "ALTER TABLE results ADD COLUMN is_unwanted INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX results_unwanted ON results (aggregator, sequence) WHERE is_unwanted",
    # Wishes of operators to close windows at the next start. NULL: all windows.
    """CREATE TABLE close_wishes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        aggregator INTEGER NOT NULL,
        before INTEGER
    )""",
    # Before, a wish was in the memory of its aggregator. There it is not read any more.
    """INSERT INTO close_wishes (aggregator, before)
        SELECT id, json_extract(wish, '$.before') FROM (
            SELECT id, CASE WHEN json_valid(CAST(memory AS TEXT))
                THEN json_extract(CAST(memory AS TEXT), '$.close') END AS wish FROM aggregators
        ) WHERE wish IS NOT NULL""",
)

_VERSION_4: Final = (
    # The order leaves no free page in a new file.
    "DROP INDEX results_unwanted",
    # An operator wants the result to be removed. The process that has the file removes it, when nobody emits it.
    """CREATE TABLE unwanted_results (
        aggregator INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        PRIMARY KEY (aggregator, sequence)
    ) WITHOUT ROWID""",
    "INSERT INTO unwanted_results SELECT aggregator, sequence FROM results WHERE is_unwanted",
    # Results that emit() has not taken yet. `sequence` is the number of the first, and the others follow it.
    """CREATE TABLE result_rows (
        id INTEGER PRIMARY KEY,
        aggregator INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        version INTEGER NOT NULL,
        count INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        content BLOB NOT NULL
    )""",
    # Before, each result was a row.
    """INSERT INTO result_rows (aggregator, sequence, version, count, crc, content)
        SELECT aggregator, sequence, version, 1, crc, content FROM results ORDER BY aggregator, sequence""",
    "DROP TABLE results",
    "ALTER TABLE result_rows RENAME TO results",
    "CREATE UNIQUE INDEX results_sequence ON results (aggregator, sequence)",
)

STATE_SCHEMA: Final = Schema(
    what="state file",
    application_id=0x42775331,
    migrations=(_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4),
)
