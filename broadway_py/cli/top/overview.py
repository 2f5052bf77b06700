"""Draws one line for each pipeline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from broadway_py.cli.top import formats
from broadway_py.cli.top.figures import Figures, shown
from broadway_py.cli.top.lines import BAD, DIM, GOOD, WARN, Cell, Column, row

__all__ = ["latency", "overview", "state_style"]

_NUMBERS: Final = (
    Column("msg/s", 6),
    Column("fail/s", 6),
    Column("in flight", 9),
    Column("p50", 6),
    Column("p99", 6),
    Column("ready", 6),
    Column("dead", 6),
)
_STATE: Final = Column("state", 9, is_number=False)
#: The cells of everything but the name: the columns, a space behind each, and the mark of the chosen one.
_REST: Final = sum(one.width + 1 for one in (*_NUMBERS, _STATE)) + 3
_LONGEST_NAME: Final = 40

_STYLES: Final = {"running": GOOD, "crashed": BAD, "not ready": BAD, "degraded": BAD, "stopped": DIM}


def overview(pipelines: Sequence[Figures], chosen: str | None, width: int | None) -> list[list[Text]]:
    """Returns the lines of the table: those of its head, then those of each pipeline.

    Args:
        pipelines: what is shown.
        chosen: the name of the pipeline that the keys act on. None: there are no keys.
        width: the cells of a line. None: as many as are needed.
    """
    names = [shown(one.name) for one in pipelines]
    longest = max([cell_len(name) for name in names], default=4)
    room = longest if width is None else min(max(8, width - _REST), _LONGEST_NAME, max(longest, 8))
    columns = (Column("pipeline", max(room, 8), is_number=False), _STATE, *_NUMBERS)
    head = row(columns, [(column.title, DIM) for column in columns])
    lines = [[Text("  ", no_wrap=True).append_text(head)]]
    for one, name in zip(pipelines, names, strict=True):
        is_chosen = one.name == chosen
        first = Text("> " if is_chosen else "  ", no_wrap=True)
        first.append_text(row(columns, _cells(one, formats.cut_inside(name, columns[0].width))))
        if is_chosen:
            first.stylize("reverse")
        told = () if one.is_paused else one.reasons
        lines.append([first, *(Text(f"    {why}", style=WARN, no_wrap=True) for why in told if why != one.state)])
    return lines


def _cells(one: Figures, name: str) -> list[Cell]:
    source = one.source
    dead = None if source is None else source.dead
    return [
        (name, ""),
        (one.state, state_style(one.state)),
        (formats.rate(one.settled_per_s), ""),
        (formats.rate(one.failed_per_s), BAD if one.failed_per_s else ""),
        (formats.count(one.in_flight), ""),
        (latency(one.p50_s, one.most_latency_s), ""),
        (latency(one.p99_s, one.most_latency_s), ""),
        (formats.count(None if source is None else source.ready), ""),
        (formats.count(dead), BAD if dead else ""),
    ]


def latency(value: float | None, most: float) -> str:
    """Returns a percentile, also one that is above all that is measured."""
    return f">{formats.seconds(most)}" if value == math.inf else formats.seconds(value)


def state_style(state: str) -> str:
    """Returns the style of a state."""
    return _STYLES.get(state, WARN)
