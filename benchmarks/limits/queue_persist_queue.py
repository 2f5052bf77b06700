"""Peer: persist-queue's SQLite queue with acknowledgements, as its guide shows it; each get and each ack is a commit.

Its commits wait for the disk, as everybody's do here. Runs in an environment of its own (see ``benchmarks.peers``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from persistqueue import SQLiteAckQueue  # type: ignore[import-not-found]  # only in its own environment

from benchmarks.measure import Ids, Meter, arguments
from benchmarks.queue_file import body, directory, identity


def fill(path: Path, messages: int) -> Any:
    """A full queue; not durable while it is filled, for that would take minutes."""
    queue = SQLiteAckQueue(str(path), auto_commit=True, multithreading=True)
    queue._putter.execute("PRAGMA synchronous = OFF")
    for number in range(messages):
        queue.put(body(number))
    queue._putter.execute("PRAGMA synchronous = FULL")
    return queue


def drain(queue: Any, messages: int) -> int:
    """Get, check and acknowledge *messages*; how many were counted."""
    ids = Ids(messages)
    for _ in range(messages):
        item = queue.get()
        ids.seen[identity(item)] += 1
        queue.ack(item)
    ids.check()
    return messages


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    with directory() as place:
        full = fill(place, asked.messages)
        meter = Meter(gate=asked.gate)
        drained = drain(full, asked.messages)
        meter.report("queue_persist_queue", drained, "persist-queue")
        full.close()
