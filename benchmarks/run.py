"""``make bench``: measures at quick sizes and prints the table. ``make bars`` is the one that judges."""

from __future__ import annotations

import argparse

from benchmarks.rows import BARS, ROWS, row_named
from benchmarks.table import bars_table, rates_table
from benchmarks.turns import take_turns
from benchmarks.verdict import judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS], help="only this row; repeatable")
    parser.add_argument("--rounds", type=int, default=4, help="runs of each program, the first thrown away (4)")
    parser.add_argument("--scale", type=float, default=0.25, help="times the full number of messages (0.25)")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error("--rounds: expected at least 2, because the first is thrown away")
    rows = [row_named(name) for name in asked.row] if asked.row else list(ROWS)
    results = [take_turns(row, rounds=asked.rounds, scale=asked.scale, growth=False) for row in rows]
    print(rates_table(results))
    print()
    print(bars_table(judge(results, BARS)))
    for one in results:
        for name, why in one.absent.items():
            print(f"{one.row.name}: {name} is absent: {why}")


if __name__ == "__main__":
    main()
