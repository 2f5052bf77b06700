"""A daemon with four workers on four partitions, two of them killed at a time, and the count from outside."""

from __future__ import annotations

import json
import os
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from tests.integration.window_counts import emitted
from tests.support.daemon import Daemon
from tests.support.eventually import eventually

__all__ = ["PARTITIONS", "gather", "keys_of_partitions", "kill_two", "settings", "until_below"]

PARTITIONS: Final = 4


def settings(folder: Path, source: dict[str, Any], *, per_second: int) -> Path:
    """The settings of the daemon, in *folder*. All workers together handle at most *per_second* messages."""
    path = folder / "settings.json"
    pipeline = {
        "class": "tests.integration.parted_pipelines:PartedCounting",
        "context": {"folder": str(folder)},
        "producer": {**source, "partitions": PARTITIONS},
        "state": str(folder / "state"),
        "rate_limit": {"allowed_messages": per_second // 10, "interval": "100ms"},
    }
    path.write_text(json.dumps({"pipelines": {"counting": pipeline}, "workers": PARTITIONS}))
    return path


async def kill_two(running: Daemon, chance: random.Random) -> Sequence[int]:
    """Kill two workers at the same moment, and wait until both are back. Returns their numbers."""
    before = running.workers()
    chosen = chance.sample(sorted(before), 2)
    for index in chosen:
        os.kill(before[index], signal.SIGKILL)
    await eventually(
        lambda: all(running.workers()[index] != before[index] for index in chosen),
        timeout=60,
        what="the workers that were killed are back",
    )
    return chosen


async def until_below(left: Callable[[], Awaitable[int]], mark: int, *, timeout: float) -> None:
    """Wait until fewer than *mark* messages are left."""

    async def is_below() -> bool:
        return await left() < mark

    await eventually(is_below, timeout=timeout, what=f"fewer than {mark} messages are left")


def gather(folder: Path) -> int:
    """Write what all partitions have emitted into one file ``emitted``. Returns how many messages it counts."""
    files = sorted(folder.glob("partition */emitted"))
    # A line that a kill cut off has no end.
    (folder / "emitted").write_text("\n".join(file.read_text() for file in files))
    newest = {row[0]: row for row in sorted(emitted(folder), key=lambda row: row[1])}
    return sum(row[5] for row in newest.values())


def keys_of_partitions(folder: Path) -> list[set[str]]:
    """The keys that each partition has emitted results for."""
    return [{row[2] for row in emitted(place)} for place in sorted(folder.glob("partition *"))]
