"""Bars against results: a bar is met when the lower end of the spread's middle nine tenths meets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.rows import GROWTH_AT_LEAST, GROWTH_MEMORY_AT_LEAST, GROWTH_STEPS, Bar
from benchmarks.spread import Spread, of_median, of_ratio
from benchmarks.turns import Results, Run

__all__ = ["Verdict", "judge"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One bar and what came of it; *spread* is None when something it needs was not measured."""

    bar: Bar
    spread: Spread | None

    @property
    def is_met(self) -> bool:
        """True when the bar is met for sure."""
        return self.spread is not None and self.spread.low >= self.bar.at_least

    @property
    def is_missed(self) -> bool:
        """True when the bar is due and not met; a measurement that is due and missing counts as missed."""
        return self.bar.when == "now" and not self.is_met

    @property
    def word(self) -> str:
        """For tables."""
        if self.is_met:
            return "met"
        return {"now": "MISSED", "later": "not yet (due later)", "aim": "not yet (an aim)"}[self.bar.when]


def judge(results: Sequence[Results], bars: Sequence[Bar]) -> list[Verdict]:
    """The verdict on each of *bars* whose row was measured, and on the growth of each row that was grown."""
    rows = {one.row.name: one for one in results}
    verdicts = [Verdict(bar, _spread(rows[bar.row].runs, bar)) for bar in bars if bar.row in rows]
    for one in results:
        if one.growth:
            grown = {f"{step} x the work": runs for step, runs in one.growth.items()}
            verdicts += [Verdict(bar, _spread(grown, bar)) for bar in _growth_bars(one)]
    return verdicts


def _growth_bars(one: Results) -> list[Bar]:
    first, *more = (f"{step} x the work" for step in GROWTH_STEPS)
    bars = [Bar(one.row.name, GROWTH_AT_LEAST, over=first, ours=more[-1])]
    if one.row.is_flat:
        bars += [
            Bar(one.row.name, GROWTH_MEMORY_AT_LEAST, over=first, ours=step, figure="processes_per_gib")
            for step in more
        ]
    return bars


def _spread(runs: Mapping[str, Sequence[Run]], bar: Bar) -> Spread | None:
    if bar.ours not in runs or (bar.over is not None and bar.over not in runs):
        return None
    ours = [run.figure(bar.figure) for run in runs[bar.ours]]
    if bar.over is None:
        return of_median(ours)
    return of_ratio(ours, [run.figure(bar.figure) for run in runs[bar.over]])
