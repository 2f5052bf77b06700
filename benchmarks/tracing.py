"""What traces cost: the rows of the pipeline without them, and with them in each of the ways that a program may choose.

Run ``python -m benchmarks.tracing``. It prints microseconds of processor time for each message, because that hardly
depends on what else the machine does.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from benchmarks.row import Program, Row
from benchmarks.rows import row_named
from benchmarks.sdk import MODES
from benchmarks.turns import Results, take_turns

_ROWS: Final = ("memory", "memory_batch", "memory_default", "rabbitmq")


def _row(name: str) -> Row:
    row = row_named(name)
    (ours,) = (program for program in row.programs if program.name == "ours")
    programs = tuple(Program(mode, ours.module, (*ours.arguments, f"--tracing={mode}")) for mode in MODES)
    return replace(row, programs=programs, growth=None)


def _table(results: Sequence[Results]) -> str:
    lines = [f"| row | {' | '.join(MODES)} |", f"| --- |{' --- |' * len(MODES)}"]
    for one in results:
        cells = []
        for mode in MODES:
            costs = sorted(run.cpu_us for run in one.runs.get(mode, ()))
            cells.append(f"{median(costs):.2f} ({costs[0]:.2f} to {costs[-1]:.2f})" if costs else "absent")
        lines.append(f"| `{one.row.name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", action="append", choices=_ROWS, help="only this row; repeatable")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each program, the first thrown away (6)")
    parser.add_argument("--scale", type=float, default=0.25, help="times the full number of messages (0.25)")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("--rounds: expected at least 2, because the first is thrown away")
    names = asked.row or _ROWS
    print(_table([take_turns(_row(name), rounds=asked.rounds, scale=asked.scale, growth=False) for name in names]))


if __name__ == "__main__":
    main()
