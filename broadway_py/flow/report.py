"""What a flow has done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

__all__ = ["CollectedError", "FlowReport", "StageReport"]

#: The most stages of a layer that have a line each, where a report is shown as text.
_MOST_LINES: Final = 16
_HEAD: Final = ("layer", "stage", "in", "out", "late", "busy s", "sent bytes", "windows opened", "closed")


class CollectedError(NamedTuple):
    """An element that was left out (``on_error="collect"``)."""

    #: Where it comes from, such as ``"words.txt, line 3"``; None: this is not known.
    place: str | None
    #: The operator that failed on it, such as ``"map 2: parse"``.
    operator: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one stage of a flow has done."""

    #: What made its layer, such as ``"partition 2"``. The stages that combine the accumulators of others are a layer
    #: too. It has the name of the reduction, such as ``"count_by 3"``.
    layer: str
    #: The stage in its layer, from 0.
    index: int
    #: How many elements came in, and how many went out.
    taken: int
    given: int
    #: How many elements were late for its windows.
    late: int
    #: Seconds in which it worked, or its functions were waited for.
    busy_seconds: float
    #: How many bytes of lists it has sent to other processes.
    sent_bytes: int
    windows_opened: int
    windows_closed: int
    #: The node of the Ray cluster that it was on; None: it was on this machine.
    node: str | None = None


@dataclass(frozen=True, slots=True)
class FlowReport:
    """What a flow has done: ``run()`` returns it. As text, it is a table of the stages."""

    #: How many elements were read from the sources, and how many came out at the end.
    elements_in: int
    elements_out: int
    #: How many elements were late for their windows.
    late: int
    #: How many elements were further ahead of the clock than ``max_ahead`` of their windows.
    ahead: int
    #: How many elements were left out because of errors, by the operator that failed on them.
    skipped: dict[str, int]
    #: The errors of the first of these elements, at most 10,000; only with ``on_error="collect"``.
    errors: tuple[CollectedError, ...]
    #: How long it took.
    seconds: float
    #: How many bytes of lists the sources and stages have sent from process to process.
    sent_bytes: int
    #: What each stage has done, in the order of data flow.
    stages: tuple[StageReport, ...]

    def __str__(self) -> str:
        counts = {
            "elements in": self.elements_in,
            "out": self.elements_out,
            "late": self.late,
            "too far ahead": self.ahead,
            "bytes sent": self.sent_bytes,
        }
        told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        left_out = [f"left out because of errors of {name}: {count:,}" for name, count in self.skipped.items()]
        return "\n".join([f"{told}, seconds {self.seconds:.3f}", *left_out, *_table(self.stages)])


def _table(stages: Iterable[StageReport]) -> Iterator[str]:
    """Yields the lines of a table of *stages*. Text stands at the left of its column, and numbers at the right."""
    told = list(stages)
    head = (*_HEAD, "node" if any(stage.node is not None for stage in told) else "")
    rows = [head, *(row for _, layer in groupby(told, lambda stage: stage.layer) for row in _rows(list(layer)))]
    if len(rows) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers, node in rows:
        cells = [each.rjust(width) for each, width in zip(numbers, widths[1:], strict=False)]
        yield "  ".join([name.ljust(widths[0]), *cells, node]).rstrip()


def _rows(layer: list[StageReport]) -> Iterator[tuple[str, ...]]:
    """Yields a row for each stage of a layer, or one row for all of them if there are many."""
    if len(layer) <= _MOST_LINES:
        yield from (_row(str(stage.index), [stage]) for stage in layer)
    else:
        yield _row(f"all {len(layer):,}", layer)


def _row(name: str, stages: list[StageReport]) -> tuple[str, ...]:
    return (
        stages[0].layer,
        name,
        f"{sum(stage.taken for stage in stages):,}",
        f"{sum(stage.given for stage in stages):,}",
        f"{sum(stage.late for stage in stages):,}",
        f"{sum(stage.busy_seconds for stage in stages):.3f}",
        f"{sum(stage.sent_bytes for stage in stages):,}",
        f"{sum(stage.windows_opened for stage in stages):,}",
        f"{sum(stage.windows_closed for stage in stages):,}",
        ", ".join(sorted({stage.node for stage in stages if stage.node is not None})),
    )
