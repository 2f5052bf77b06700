"""Limit: the loop of ``memory_loop``, and an awaited no-op batch handler for each 100 messages."""

from __future__ import annotations

from itertools import islice

from benchmarks.limits.memory_loop import CHUNK, Item, handle
from benchmarks.measure import Meter, arguments, run_async

BATCH = 100


async def handle_batch(items: list[Item]) -> None:
    """The batch handler: nothing."""


async def loop(messages: int) -> int:
    """Handle *messages* in chunks, then in batches; how many were counted."""
    source = iter(range(messages))
    count = 0
    batch: list[Item] = []
    while items := [Item(data) for data in islice(source, CHUNK)]:
        for item in items:
            await handle(item)
            batch.append(item)
            if len(batch) == BATCH:
                await handle_batch(batch)
                count += len(batch)
                batch = []
    if batch:
        await handle_batch(batch)
        count += len(batch)
    return count


async def measure(messages: int, *, gate: bool) -> None:
    """Run the loop once and print the measurement."""
    meter = Meter(gate=gate)
    count = await loop(messages)
    meter.report("memory_batch_loop", count)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    run_async(measure(asked.messages, gate=asked.gate))
