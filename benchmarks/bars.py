"""``make bars``: measures at full size, writes ``benchmarks/bars.json``, and exits 1 if a bar that is due is missed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import circumstances
from benchmarks.rows import BARS, ROWS, row_named
from benchmarks.table import bars_table, growth_table, rates_table
from benchmarks.turns import Results, Run, take_turns
from benchmarks.verdict import Verdict, judge

__all__ = ["FILE"]

#: What the last complete run found.
FILE: Final = Path(__file__).parent / "bars.json"
_LEAST_ROUNDS: Final = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--row", action="append", choices=[row.name for row in ROWS], help="only this row (repeatable); writes no file"
    )
    parser.add_argument("--rounds", type=int, default=_LEAST_ROUNDS, help="runs of each, the first thrown away (6)")
    asked = parser.parse_args()
    if asked.rounds < _LEAST_ROUNDS:
        parser.error(f"--rounds: expected at least {_LEAST_ROUNDS}: five that count, and a first that does not")
    found = circumstances()
    rows = [row_named(name) for name in asked.row] if asked.row else list(ROWS)
    results = [take_turns(row, rounds=asked.rounds, scale=1.0, growth=True) for row in rows]
    verdicts = judge(results, BARS)
    if not asked.row:
        FILE.write_text(json.dumps({**found, **_record(results, verdicts)}, indent=1) + "\n", encoding="utf-8")
    for table in (rates_table(results), growth_table(results), bars_table(verdicts)):
        print(table, end="\n\n")
    sys.exit(any(verdict.is_missed for verdict in verdicts))


def _record(results: Sequence[Results], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "tables": {
            "rates": rates_table(results),
            "growth": growth_table(results),
            "bars": bars_table(verdicts),
        },
        "bars": [
            {
                **asdict(verdict.bar),
                "measured": None if verdict.spread is None else asdict(verdict.spread),
                "verdict": verdict.word,
            }
            for verdict in verdicts
        ],
        "rows": {
            one.row.name: {
                "absent": one.absent,
                "versions": {name: runs[0].measurements[0]["versions"] for name, runs in one.runs.items()},
                "runs": {name: _raw(runs) for name, runs in one.runs.items()},
                "growth": {str(step): _raw(runs) for step, runs in one.growth.items()},
            }
            for one in results
        },
    }


def _raw(runs: Sequence[Run]) -> list[list[dict[str, Any]]]:
    return [
        [{key: value for key, value in one.items() if key != "versions"} for one in run.measurements] for run in runs
    ]


if __name__ == "__main__":
    main()
