"""Results as text: a Markdown table that also reads well on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.rows import Bar
from benchmarks.spread import of_median, of_ratio
from benchmarks.turns import Results, Run
from benchmarks.verdict import Verdict

__all__ = ["bars_table", "growth_table", "rates_table"]


def rates_table(results: Sequence[Results]) -> str:
    """Rate, wall and processor time, share of the limit, and memory of every program."""
    lines = []
    for one in results:
        limit = one.runs.get("limit")
        for program in one.row.programs:
            cells = [one.row.title, program.name]
            runs = one.runs.get(program.name)
            if runs is None:
                lines.append([*cells, "absent", "", "", "", ""])
                continue
            rate = of_median([run.rate for run in runs])
            share = of_ratio([run.rate for run in runs], [run.rate for run in limit]) if limit else None
            lines.append(
                [
                    *cells,
                    f"{_short(rate.median)} ({_short(rate.low)}-{_short(rate.high)})",
                    f"{median(run.seconds for run in runs):.2f}",
                    f"{median(run.cpu_us for run in runs):.2f}",
                    "" if share is None else f"{share.median:.2f} ({share.low:.2f}-{share.high:.2f})",
                    _mib(runs),
                ]
            )
    head = ["work", "who", "messages/s", "seconds", "CPU us/message", "share of the limit", "peak memory"]
    return _table(head, lines)


def growth_table(results: Sequence[Results]) -> str:
    """Processor time per message at several times the work."""
    lines = []
    for one in results:
        for step, runs in one.growth.items():
            messages = runs[0].measurements[0]["messages"]
            rate = of_median([run.rate for run in runs])
            cpu = median(run.cpu_us for run in runs)
            lines.append([one.row.title, f"{step} x", f"{messages:,}", _short(rate.median), f"{cpu:.2f}", _mib(runs)])
    return _table(["work", "size", "messages", "messages/s", "CPU us/message", "peak memory"], lines)


def bars_table(verdicts: Sequence[Verdict]) -> str:
    """Each bar, what was measured, and whether it is met."""
    lines = [
        [
            verdict.bar.row,
            _sentence(verdict.bar),
            "not measured"
            if verdict.spread is None
            else f"{_figure(verdict.bar, verdict.spread.median)} "
            f"({_figure(verdict.bar, verdict.spread.low)}-{_figure(verdict.bar, verdict.spread.high)})",
            verdict.word,
        ]
        for verdict in verdicts
    ]
    return _table(["row", "bar", "measured", "verdict"], lines)


def _sentence(bar: Bar) -> str:
    what = "" if bar.figure == "rate" else f" {bar.figure.replace('_', ' ')}"
    if bar.over is not None:
        return f"{bar.ours} at least {bar.at_least:g} x {bar.over}{what and ',' + what}"
    return (
        f"{bar.ours} at least {_short(bar.at_least)}/s" if not what else f"{bar.ours} at least {bar.at_least:g}{what}"
    )


def _figure(bar: Bar, number: float) -> str:
    return f"{_short(number)}" if bar.over is None and bar.figure == "rate" else f"{number:.2f}"


def _mib(runs: Sequence[Run]) -> str:
    return f"{median(run.peak_bytes for run in runs) / 2**20:.0f} MiB"


def _short(rate: float) -> str:
    if rate < 100:
        return f"{rate:.1f}"
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.1f} k"


def _table(head: list[str], lines: list[list[str]]) -> str:
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
    rows = [head, ["-" * width for width in widths], *lines]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )
