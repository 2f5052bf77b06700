"""``make bars``: measures at full size, keeps each row in ``benchmarks/bars.json``, and exits 1 if a bar is missed."""

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

#: What was found last, by row: each says when, where and on which commit.
FILE: Final = Path(__file__).parent / "bars.json"
_LEAST_ROUNDS: Final = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--row", action="append", choices=[row.name for row in ROWS], help="only this row (repeatable); the rest stays"
    )
    parser.add_argument("--rounds", type=int, default=_LEAST_ROUNDS, help="runs of each, the first thrown away (6)")
    asked = parser.parse_args()
    if asked.rounds < _LEAST_ROUNDS:
        parser.error(f"--rounds: expected at least {_LEAST_ROUNDS}: five that count, and a first that does not")
    is_missed = False
    for row in [row_named(name) for name in asked.row] if asked.row else ROWS:
        found = circumstances()
        result = take_turns(row, rounds=asked.rounds, scale=1.0, growth=True)
        verdicts = judge([result], BARS)
        is_missed = is_missed or any(verdict.is_missed for verdict in verdicts)
        record = {**found, **_record(result, verdicts)}
        _keep(row.name, record)
        for table in record["tables"].values():
            print(table, end="\n\n")
    sys.exit(is_missed)


def _keep(row: str, record: dict[str, Any]) -> None:
    # After each row, so that a run of hours that is broken off leaves what it had.
    rows = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    rows[row] = record
    FILE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _record(result: Results, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    tables = {"rates": rates_table([result]), "growth": growth_table([result]), "bars": bars_table(verdicts)}
    return {
        "tables": {name: table for name, table in tables.items() if name != "growth" or result.growth},
        "bars": [
            {
                **asdict(verdict.bar),
                "measured": None if verdict.spread is None else asdict(verdict.spread),
                "verdict": verdict.word,
            }
            for verdict in verdicts
        ],
        "absent": result.absent,
        "versions": {name: runs[0].measurements[0]["versions"] for name, runs in result.runs.items()},
        "runs": {name: _raw(runs) for name, runs in result.runs.items()},
        "growth": {str(step): _raw(runs) for step, runs in result.growth.items()},
    }


def _raw(runs: Sequence[Run]) -> list[list[dict[str, Any]]]:
    return [
        [{key: value for key, value in one.items() if key != "versions"} for one in run.measurements] for run in runs
    ]


if __name__ == "__main__":
    main()
