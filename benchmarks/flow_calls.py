"""Ours: calls of a second that wait, two for each stage: blocking ones in threads, or async ones as tasks."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Literal

from benchmarks.measure import Meter, arguments
from broadway_py import Flow

_CALLS_PER_STAGE: Final = 2


def measure(calls: int, runner: Literal["tasks", "threads"], seconds: float, *, gate: bool) -> None:
    """Run the flow once and print the measurement."""

    def block(number: int) -> int:
        time.sleep(seconds)
        return number

    async def wait(number: int) -> int:
        await asyncio.sleep(seconds)
        return number

    numbers = Flow.from_iterable(range(calls), stages=max(1, calls // _CALLS_PER_STAGE), max_demand=1)
    flow = (numbers.map(block) if runner == "threads" else numbers.map(wait)).using(runner)
    meter = Meter(gate=gate)
    results = flow.to_list()
    meter.report(f"flow_calls, {runner}", calls, "broadway-py")
    if sorted(results) != list(range(calls)):
        raise RuntimeError(f"expected the result of each of {calls} calls once, got {len(results)} results")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("runner", choices=["tasks", "threads"])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a call waits (1)")
    asked = parser.parse_args()
    measure(asked.messages, asked.runner, asked.seconds, gate=asked.gate)
