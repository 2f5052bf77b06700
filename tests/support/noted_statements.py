"""A connection that notes its statements. Python keeps the last 128 of a connection, however large they are."""

from __future__ import annotations

import sqlite3
from typing import Any

from broadway_py.storage.schema import Schema

__all__ = ["Noting", "noting"]


class Noting(sqlite3.Connection):
    """Notes each statement that it executes."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.statements: set[str] = set()

    def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
        """Note it."""
        self.statements.add(sql)
        return super().execute(sql, *given)


def noting(schema: Schema) -> Noting:
    """An empty database in memory, in a transaction. What made its tables is not noted."""
    made = sqlite3.connect(":memory:", isolation_level=None, factory=Noting)
    made.execute("BEGIN")
    schema.prepare(made, ":memory:")
    made.statements.clear()
    return made
