"""Peer: litequeue, as its guide shows it; each pop and each done is a commit, which waits for the disk here.

Runs in an environment of its own (see ``benchmarks.peers``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litequeue import LiteQueue  # type: ignore[import-not-found]  # only in its own environment

from benchmarks.measure import Ids, Meter, arguments
from benchmarks.queue_file import body, directory, identity


def fill(path: Path, messages: int) -> Any:
    """A full queue, in one transaction."""
    queue = LiteQueue(str(path))
    with queue.transaction():
        for number in range(messages):
            queue.put(body(number).decode())
    # Its own default is NORMAL, with which a loss of power takes back what was confirmed.
    queue.conn.execute("PRAGMA synchronous = FULL")
    return queue


def drain(queue: Any, messages: int) -> int:
    """Pop, check and finish *messages*; how many were counted."""
    ids = Ids(messages)
    for _ in range(messages):
        message = queue.pop()
        ids.seen[identity(message.data)] += 1
        queue.done(message.message_id)
    ids.check()
    return messages


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    with directory() as place:
        full = fill(place / "litequeue.db", asked.messages)
        meter = Meter(gate=asked.gate)
        drained = drain(full, asked.messages)
        meter.report("queue_litequeue", drained, "litequeue")
        full.close()
