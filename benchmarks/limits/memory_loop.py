"""Limit: chunks of 50, one small object and one awaited no-op handler per message, in one bare loop."""

from __future__ import annotations

from itertools import islice

from benchmarks.measure import Meter, arguments, run_async

CHUNK = 50


class Item:
    """The least a message can be."""

    __slots__ = ("data", "metadata", "status")

    def __init__(self, data: int) -> None:
        self.data = data
        self.metadata: dict[str, object] = {}
        self.status = None


async def handle(item: Item) -> None:
    """The handler: nothing."""


async def loop(messages: int, chunk: int) -> int:
    """Handle *messages* in chunks; how many were counted."""
    source = iter(range(messages))
    count = 0
    while items := [Item(data) for data in islice(source, chunk)]:
        for item in items:
            await handle(item)
            count += 1
    return count


async def measure(program: str, messages: int, chunk: int, *, gate: bool) -> None:
    """Run the loop once and print the measurement."""
    meter = Meter(gate=gate)
    count = await loop(messages, chunk)
    meter.report(program, count)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    run_async(measure("memory_loop", asked.messages, CHUNK, gate=asked.gate))
