from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from broadway_py.storage import room
from broadway_py.storage.room import LogLimit, pages_for

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("free_bytes", "pages"),
    [(0, 16), (512 * 1024, 16), (3 * MIB, 64), (6 * MIB, 128), (62 * MIB, 1024), (63 * MIB, 2000), (1 << 40, 2000)],
)
def test_the_log_may_take_an_eighth_of_the_room_that_is_left_and_eight_megabytes_at_most(
    free_bytes: int, pages: int
) -> None:
    assert pages_for(free_bytes) == pages


def test_sqlite_is_told_only_when_the_limit_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = sqlite3.connect(tmp_path / "q.db")
    told: list[str] = []
    connection.set_trace_callback(told.append)
    limit = LogLimit(str(tmp_path / "q.db"))
    for free_bytes in (1 << 40, 1 << 40, 3 * MIB, 3 * MIB + 5, 1 << 40):
        monkeypatch.setattr(room, "free_bytes", lambda _, free_bytes=free_bytes: free_bytes)
        limit.adapt(connection)
    connection.close()
    assert told == [f"PRAGMA wal_autocheckpoint = {pages}" for pages in (2000, 64, 2000)]
