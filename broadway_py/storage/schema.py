"""The tables of a file: versions only move forward, and files of other programs are refused."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from broadway_py.storage.errors import StorageError

__all__ = ["Schema"]


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one kind of file.

    The file stores its kind (``PRAGMA application_id``) and the number of its migrations (``user_version``).
    """

    #: What error messages call it: "queue file", for example.
    what: str
    #: The number of this kind of file. No other kind has it.
    application_id: int
    #: The migrations: the first makes version 1 from an empty file, the second makes version 2 from version 1, and so
    #: on. Each is a list of statements.
    migrations: tuple[tuple[str, ...], ...]

    @property
    def version(self) -> int:
        """The version that this program writes."""
        return len(self.migrations)

    def prepare(self, connection: sqlite3.Connection, path: str) -> None:
        """Migrates the file to :attr:`version`, inside the transaction that the caller has begun.

        Raises:
            StorageError: the file belongs to another program, or to a newer version of this one.
        """
        version = self.version_in(connection, path)
        if version == self.version:
            return
        for statements in self.migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {self.application_id}")
        connection.execute(f"PRAGMA user_version = {self.version}")

    def version_in(self, connection: sqlite3.Connection, path: str) -> int:
        """Returns the version of the file. It is 0 for an empty file.

        Raises:
            StorageError: the file belongs to another program, or to a newer version of this one.
        """
        (kind,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if kind != self.application_id and (kind or version or tables):
            raise StorageError(
                f"{self.what} {path}: this is a SQLite database of another program; nothing was changed: "
                "choose another path"
            )
        if version > self.version:
            raise StorageError(
                f"{self.what} {path}: the file has version {version}, this program knows versions up to "
                f"{self.version}; nothing was changed: use the newer broadway-py that made it, or another file"
            )
        return int(version)
