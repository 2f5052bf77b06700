"""Ours: the first result of a flow with two worker processes, from its start.

The clock stops at that result. Processor time has what the workers use until they have ended.
"""

from __future__ import annotations

from typing import Final

from benchmarks.measure import Meter, arguments
from broadway_py import Flow

_WORKERS: Final = 2


def measure(elements: int, *, gate: bool) -> None:
    """Start the flow once and print the measurement."""
    flow = Flow.from_iterable(range(elements)).map(lambda number: number + 1).using("processes", workers=_WORKERS)
    meter = Meter(gate=gate)
    results = iter(flow)
    found = [next(results)]
    meter.stop()
    found.extend(results)
    meter.report("flow_start", elements, "broadway-py", "cloudpickle")
    if sorted(found) != list(range(1, elements + 1)):
        raise RuntimeError(f"expected the numbers from 1 to {elements}, got {found}")


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
