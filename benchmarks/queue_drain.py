"""Ours: a full embedded queue drained by the pipeline of a file in ``benchmarks/config``."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from benchmarks.measure import Ids, Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped, settings_of
from benchmarks.queue_file import body, directory
from broadway_py.daemon.pipelines.loader import build_pipelines
from broadway_py.queue import Queue

_AT_ONCE = 5_000


async def fill(path: Path, messages: int) -> None:
    """A full queue, closed again."""
    async with Queue(path, "benchmark") as queue:
        for first in range(0, messages, _AT_ONCE):
            await queue.put_many(body(number) for number in range(first, min(first + _AT_ONCE, messages)))


def left(path: Path) -> int:
    """Rows that are still there, counted without us."""
    connection = sqlite3.connect(path)
    (count,) = connection.execute(
        "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM dead_letters)"
    ).fetchone()
    connection.close()
    return int(count)


async def measure(messages: int, config: str, *, gate: bool) -> None:
    """Drain the queue once, from opening the file to the last settlement and the closed file, and print it."""
    with directory() as place:
        path = place / "ours.db"
        await fill(path, messages)
        files = {"BENCHMARK_FILE": str(path), "BENCHMARK_STATE": str(place / "state.db")}
        (pipeline,) = build_pipelines(settings_of(config, files))
        ids = pipeline.ids = Ids(messages)  # type: ignore[attr-defined]  # the pipeline in that file has it
        meter = Meter(gate=gate)
        async with pipeline, scraped(pipeline):
            await pipeline.wait()
        ids.check()
        all_acked(pipeline, messages)
        remaining = left(path)
        if remaining:
            raise RuntimeError(f"expected an empty queue file, {remaining} messages are left")
        meter.report("queue_drain", messages, *PACKAGES)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--config", default="queue.yaml", help="the settings file (queue.yaml)")
    asked = parser.parse_args()
    run_async(measure(asked.messages, asked.config, gate=asked.gate))
