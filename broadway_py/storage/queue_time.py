"""The file's own time: it is valid after a restart of the machine, and steps of the wall clock do not change it.

A delay is stored as a moment of this time. While the machine runs, the time is its monotonic clock plus an origin. The
origin is stored in the file and is the same for all processes. After the next boot the monotonic clock begins anew, and
the wall clock gives a new origin.
"""

from __future__ import annotations

import functools
import sqlite3
from pathlib import Path
from typing import Final

from broadway_py.clock import Clock

__all__ = ["origin"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def _this_boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Other systems have no such file. There a restart is not noticed, and a delay from before may end early or late
        # by what the monotonic clock lost.
        return "unknown"


def origin(connection: sqlite3.Connection, clock: Clock) -> float:
    """Returns what to add to ``clock.monotonic()`` to get the file's time. It runs inside a transaction."""
    boot = _this_boot()
    found = connection.execute("SELECT boot, origin FROM time").fetchone()
    if found is not None and found[0] == boot:
        return float(found[1])
    made = clock.wall() - clock.monotonic()
    connection.execute("INSERT OR REPLACE INTO time (only, boot, origin) VALUES (1, ?, ?)", (boot, made))
    return made
