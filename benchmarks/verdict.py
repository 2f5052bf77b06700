"""Bars against results: a bar is met when the lower end of the spread's middle nine tenths meets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.rows import GROWTH_AT_LEAST, GROWTH_STEPS, Bar
from benchmarks.spread import Spread, of_median, of_ratio
from benchmarks.turns import Results

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
    verdicts = [Verdict(bar, _spread(rows[bar.row], bar)) for bar in bars if bar.row in rows]
    for one in results:
        if one.growth:
            first, last = f"{GROWTH_STEPS[0]} x the work", f"{GROWTH_STEPS[-1]} x the work"
            grown = {f"{step} x the work": [run.rate for run in runs] for step, runs in one.growth.items()}
            bar = Bar(one.row.name, GROWTH_AT_LEAST, over=first, ours=last)
            verdicts.append(Verdict(bar, _of(grown, bar)))
    return verdicts


def _spread(one: Results, bar: Bar) -> Spread | None:
    if bar.ours not in one.runs or (bar.over is not None and bar.over not in one.runs):
        return None
    return _of({name: [run.figure(bar.figure) for run in runs] for name, runs in one.runs.items()}, bar)


def _of(rates: Mapping[str, Sequence[float]], bar: Bar) -> Spread | None:
    ours = rates.get(bar.ours)
    if ours is None:
        return None
    if bar.over is None:
        return of_median(ours)
    theirs = rates.get(bar.over)
    return None if theirs is None else of_ratio(ours, theirs)
