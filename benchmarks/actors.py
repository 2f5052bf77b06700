"""What a call of an actor costs with Ray and with Dask: the measured part of decision 34, why Flow takes Ray.

Run ``python -m benchmarks.actors`` on a machine that does nothing else. It is no row of ``make bench``, because Ray's
environment has 240 MB. The programs take turns, each in a fresh interpreter; the first round is thrown away. It prints
messages a second: the median, and in brackets the slowest and the fastest run. Both libraries start processes that
outlive the measured part, so their processor time and memory are not told.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from typing import Final

from benchmarks.machine import circumstances
from benchmarks.row import Program, Row
from benchmarks.turns import Results, take_turns

_RAY: Final = "benchmarks.limits.actors_ray"
_DASK: Final = "benchmarks.limits.actors_dask"
_WHO: Final = ("Ray", "Dask, direct", "Dask, through its scheduler")


def _row(work: str, title: str, messages: int, dask_one_in: int) -> Row:
    programs = (
        Program("Ray", _RAY, (work,), environment="ray"),
        Program("Dask, direct", _DASK, (work,), environment="distributed", one_in=dask_one_in),
        Program(
            "Dask, through its scheduler",
            _DASK,
            (work, "--through-scheduler"),
            environment="distributed",
            one_in=dask_one_in,
        ),
    )
    return Row(f"actors_{work}", title, messages, programs)


_ROWS: Final = (
    _row("alone", "one call at a time, one message in each", 1_000, 2),
    _row("calls", "100 calls open, one message in each", 5_000, 5),
    _row("lists", "100 calls open, a list of 500 messages in each", 2_000_000, 40),
    _row("frames", "100 calls open, 500 messages as bytes in each", 2_000_000, 10),
)


def _table(results: Sequence[Results]) -> str:
    lines = [f"| messages a second | {' | '.join(_WHO)} |", f"| --- |{' --- |' * len(_WHO)}"]
    for one in results:
        cells = []
        for who in _WHO:
            rates = sorted(run.rate for run in one.runs.get(who, ()))
            cells.append(
                f"{median(rates):,.0f} ({rates[0]:,.0f} to {rates[-1]:,.0f})" if rates else one.absent.get(who, "")
            )
        lines.append(f"| {one.row.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6, help="runs of each program, the first thrown away (6)")
    parser.add_argument("--scale", type=float, default=1.0, help="times the full number of messages (1)")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("--rounds: expected at least 2, because the first is thrown away")
    print(circumstances())
    results = [take_turns(row, rounds=asked.rounds, scale=asked.scale, growth=False) for row in _ROWS]
    print(_table(results))
    versions = {
        name: version
        for one in results
        for runs in one.runs.values()
        for name, version in runs[0].measurements[0]["versions"].items()
    }
    print(versions)


if __name__ == "__main__":
    main()
