"""Finds commits that another connection has made to the file (docs/decisions/0013-queue-wakeup.md)."""

from __future__ import annotations

import sqlite3
import time

from broadway_py.log import logger
from broadway_py.storage.connection import is_writable_now
from broadway_py.storage.log_watch import LogWatch
from broadway_py.storage.look_pace import LookPace

__all__ = ["ForeignCommits"]

log = logger("broadway_py.storage")


class ForeignCommits:
    """Asks SQLite for commits of others. After a quiet time it lets the kernel tell of writes, and hardly asks.

    All of it belongs to the writer's thread, except :meth:`wake`.

    Args:
        path: the file.
        connection: the writer's connection to it.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._version: int | None = None
        # Whoever listens looks at the file afterwards. So only what comes from now on is new.
        self._has_changed()
        self._pace = LookPace(time.monotonic())
        self._watch: LogWatch | None = None
        self._may_watch = True
        #: Whether the kernel tells of the next write. If so, the thread should :meth:`wait`.
        self.is_watched = False

    def until_look(self) -> float:
        """Returns the seconds until the next :meth:`look` is due; 0: it is due."""
        return max(0.0, self._pace.next_look - time.monotonic())

    def restart(self) -> None:
        """Looks often again, because something was written."""
        self.is_watched = False
        self._pace.restart(time.monotonic())

    def look(self) -> bool:
        """Returns whether somebody else has committed since the last look."""
        has_changed = self._has_changed()
        # It is asked afterwards, because what has changed was written before.
        is_told = self.is_watched and self._watch is not None and self._watch.has_seen()
        if has_changed and self.is_watched and not is_told:
            self._may_watch = False
            log.info("the kernel does not tell of writes to this file; looking for them instead", path=self._path)
        if has_changed or is_told:
            # What was written becomes a commit soon.
            self.restart()
            return has_changed
        self._pace.looked(time.monotonic())
        return self._pace.is_quiet and not self.is_watched and self._may_watch and self._begin_watch()

    def _has_changed(self) -> bool:
        try:
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            return True  # the listeners will get the same error, and can report it
        before, self._version = self._version, int(version)
        return before != self._version

    def _begin_watch(self) -> bool:
        """Begins a watch, unless somebody writes just now. Returns whether somebody else has committed meanwhile."""
        try:
            if self._watch is None:
                # SQLite keeps the log for as long as somebody has the file open.
                self._watch = LogWatch(f"{self._path}-wal")
            self._watch.arm()
        except OSError as error:
            self._may_watch = False
            self.close()  # a user has few of them
            log.debug("writes to this file cannot be watched; looking for them", path=self._path, reason=str(error))
            return False
        # A transaction that has written before the watch began may write nothing more. It holds the lock to its end.
        if not is_writable_now(self._connection):
            return False
        if self._has_changed():
            self.restart()
            return True
        self.is_watched = True
        self._pace.watched(time.monotonic())
        return False

    def wait(self) -> None:
        """Waits for a write, for :meth:`wake`, or for the time of the next look. Call it if :attr:`is_watched`."""
        if self._watch is not None:
            self._watch.wait(self.until_look())

    def wake(self) -> None:
        """Ends the current or the next :meth:`wait`. Any thread may call it during one."""
        if self._watch is not None:
            self._watch.wake()

    def close(self) -> None:
        """Ends the watch."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
