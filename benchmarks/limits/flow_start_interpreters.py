"""Limit: two interpreters that start side by side, until both have run a line; with ``--imports``, it imports modules.

They are asyncio and cloudpickle, without which no worker of a flow can work.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from benchmarks.measure import Meter, arguments

_INTERPRETERS: Final = 2


def measure(elements: int, imports: str, *, gate: bool) -> None:
    """Start them once and print the measurement."""
    command = [sys.executable, "-c", imports + "print('first', flush=True)"]
    meter = Meter(gate=gate)
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(_INTERPRETERS)]
    lines = [process.stdout.readline() for process in running if process.stdout is not None]
    meter.stop()
    for process in running:
        process.communicate()
    meter.report("flow_start_interpreters", elements, "cloudpickle")
    if lines != ["first\n"] * _INTERPRETERS:
        raise RuntimeError(f"expected a line of each interpreter, got {lines}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--imports", action="store_true", help="they import what every worker needs")
    asked = parser.parse_args()
    measure(asked.messages, "import asyncio, cloudpickle; " if asked.imports else "", gate=asked.gate)
