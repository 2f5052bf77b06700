"""Ours: the start of a pipeline whose state file has open windows and identities, until it is ready.

``--messages`` is the number of identities. So a bar of so many messages a second says in how many seconds it is ready.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from benchmarks.aggregation import build
from benchmarks.measure import Meter, arguments, run_async
from benchmarks.ours import PACKAGES, all_acked, scraped
from benchmarks.queue_file import directory
from benchmarks.window_events import BEGIN, Event


async def fill(path: Path, messages: int, keys: int) -> None:
    """A state file with a window of each of *keys*, and the identities of *messages*; closed again."""

    def source() -> Iterator[Event]:
        for number in range(messages):
            yield (BEGIN, number % keys, 1)
        pipeline.request_stop()

    pipeline = build("identified", source(), path, by_day=True, dedup_s=3600)
    async with pipeline:
        await pipeline.wait()
    all_acked(pipeline, messages)


async def measure(asked: argparse.Namespace) -> None:
    """Start the pipeline once and print how long it takes until it is ready."""
    keys = max(1, asked.messages // asked.one_in)
    with directory() as place:
        path = place / "state.db"
        await fill(path, asked.messages, keys)
        pipeline = build("identified", (), path, by_day=True, dedup_s=3600)
        meter = Meter(gate=asked.gate)
        async with scraped(pipeline):
            await pipeline.start()
            await pipeline.ready()
            size = sum(file.stat().st_size for file in place.iterdir())
            (figures,) = pipeline.stats().aggregators
            meter.report(f"aggregation_start, {keys} open", asked.messages, *PACKAGES, file_bytes=size)
            # Nothing is fired: this start has done its work.
            pipeline.request_stop()
            await pipeline.stop()
        if figures.windows_open != keys:
            raise RuntimeError(f"expected {keys} open windows after the start, got {figures.windows_open}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--one-in", type=int, default=1, help="one window is open for so many messages (1)")
    run_async(measure(parser.parse_args()))
