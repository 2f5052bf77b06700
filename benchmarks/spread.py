"""From runs to a verdict: medians, their ratio, and how far another set of runs might have put it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

__all__ = ["Spread", "of_median", "of_ratio"]

_DRAWS: Final = 2000
#: The middle nine tenths.
_LOW: Final = 0.05
_HIGH: Final = 0.95


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure, and the middle nine tenths of what it is when the runs are drawn again with replacement."""

    median: float
    low: float
    high: float


def of_median(runs: Sequence[float]) -> Spread:
    """The median of *runs*."""
    return _spread(median(runs), [median(draw) for draw in _draws(runs)])


def of_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """The median of *ours* over the median of *theirs*."""
    pairs = zip(_draws(ours), _draws(theirs, seed=1), strict=True)
    return _spread(median(ours) / median(theirs), [median(a) / median(b) for a, b in pairs])


def _draws(runs: Sequence[float], seed: int = 0) -> list[list[float]]:
    # Seeded: the same runs always give the same verdict.
    chance = random.Random(seed)
    return [chance.choices(runs, k=len(runs)) for _ in range(_DRAWS)]


def _spread(middle: float, drawn: list[float]) -> Spread:
    drawn.sort()
    return Spread(middle, drawn[int(_LOW * len(drawn))], drawn[int(_HIGH * len(drawn)) - 1])
