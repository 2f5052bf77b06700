"""Limit: three tasks that hand the same lists on through two queues of asyncio, as long as what stages may hold."""

from __future__ import annotations

import asyncio

from benchmarks.measure import Meter, arguments, run_async


async def produce(out: asyncio.Queue[list[int] | None], events: int, size: int) -> None:
    for first in range(0, events, size):
        await out.put(list(range(first, min(events, first + size))))
    await out.put(None)


async def pass_on(taken: asyncio.Queue[list[int] | None], out: asyncio.Queue[list[int] | None]) -> None:
    while (events := await taken.get()) is not None:
        await out.put([event + 1 for event in events])
    await out.put(None)


async def consume(taken: asyncio.Queue[list[int] | None]) -> int:
    total = 0
    while (events := await taken.get()) is not None:
        total += sum(events)
    return total


async def measure(program: str, events: int, max_demand: int, *, gate: bool) -> None:
    """Run the three tasks once and print the measurement."""
    size = max_demand - max_demand // 2
    lists = max(1, max_demand // size)
    first: asyncio.Queue[list[int] | None] = asyncio.Queue(lists)
    second: asyncio.Queue[list[int] | None] = asyncio.Queue(lists)
    meter = Meter(gate=gate)
    async with asyncio.TaskGroup() as group:
        group.create_task(produce(first, events, size))
        group.create_task(pass_on(first, second))
        total = group.create_task(consume(second))
    assert total.result() == events * (events + 1) // 2
    meter.report(program, events)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--max-demand", type=int, default=1000, help="the most events between two tasks (1000)")
    asked = parser.parse_args()
    run_async(measure("stages_queue", asked.messages, asked.max_demand, gate=asked.gate))
