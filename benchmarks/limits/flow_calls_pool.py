"""Limit: the same calls in a pool of threads, or in as many tasks, two for each thread or task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks.measure import Meter, arguments

_CALLS_PER_WORKER: Final = 2


def in_threads(calls: int, workers: int, seconds: float) -> list[int]:
    """The results of blocking calls."""

    def block(number: int) -> int:
        time.sleep(seconds)
        return number

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(block, range(calls)))


async def in_tasks(calls: int, workers: int, seconds: float) -> list[int]:
    """The results of async calls."""
    results = []

    async def work(numbers: Iterator[int]) -> None:
        for number in numbers:
            await asyncio.sleep(seconds)
            results.append(number)

    numbers = iter(range(calls))
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work(numbers))
    return results


def measure(calls: int, kind: str, seconds: float, *, gate: bool) -> None:
    """Make the calls once and print the measurement."""
    workers = max(1, calls // _CALLS_PER_WORKER)
    meter = Meter(gate=gate)
    if kind == "threads":
        results = in_threads(calls, workers, seconds)
    else:
        results = asyncio.run(in_tasks(calls, workers, seconds))
    meter.report(f"flow_calls_pool, {kind}", calls)
    if sorted(results) != list(range(calls)):
        raise RuntimeError(f"expected the result of each of {calls} calls once, got {len(results)} results")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("kind", choices=["tasks", "threads"])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a call waits (1)")
    asked = parser.parse_args()
    measure(asked.messages, asked.kind, asked.seconds, gate=asked.gate)
