"""Writes what a file has of windows and results as rows of tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from broadway_py.daemon.dead_letters.letters import printable, size_of
from broadway_py.error_text import clipped
from broadway_py.pipeline.aggregation.result_facts import ResultFacts, facts_of
from broadway_py.state.inspection import AggregatorSummary, BucketSummary, PendingResult

__all__ = ["Due", "due", "of_aggregator", "of_bucket", "of_result", "table"]

#: Buckets up to this number are no starts of windows.
_LAST_NUMBER = 63


class Due(NamedTuple):
    """A result that is due, without its value: all values together may be too much for the memory."""

    aggregator: str
    sequence: int
    size: int
    is_unwanted: bool
    facts: ResultFacts

    @property
    def name(self) -> str:
        """What names the result for operators, and is the message id that sinks give it."""
        return f"{self.facts.id}#{self.facts.firing}"


def due(one: PendingResult) -> Due:
    """Returns a result without its value."""
    return Due(one.aggregator, one.sequence, len(one.content), one.is_unwanted, facts_of(one.content))


def of_aggregator(one: AggregatorSummary) -> tuple[str, ...]:
    """Returns the row of an aggregator."""
    counts = (one.number, one.buckets, one.entries)
    notes = ("" if one.is_used else "unused", "closes with the next start" if one.closes else "")
    return (
        clipped(one.name, 60),
        clipped(one.window, 60),
        *(f"{count:,}" for count in counts),
        size_of(one.row_bytes),
        f"{one.identities:,}",
        f"{one.results:,}",
        ", ".join(filter(None, notes)),
    )


def of_bucket(one: BucketSummary) -> tuple[str, ...]:
    """Returns the row of a bucket."""
    return (_start(one.bucket), f"{one.rows:,}", f"{one.entries:,}", size_of(one.row_bytes), f"{one.number:,}")


def of_result(one: Due) -> tuple[str, ...]:
    """Returns the row of a result that is due."""
    end = one.facts.end
    return (
        clipped(one.aggregator, 60),
        f"{one.sequence:,}",
        "none" if end is None else _moment(end),
        one.facts.trigger,
        size_of(one.size),
        "dropped" if one.is_unwanted else "",
        one.name,
    )


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns the text of a table. Nothing in it can control a terminal."""
    cells = [tuple(map(printable, row)) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _start(bucket: int) -> str:
    return str(bucket) if 0 < bucket <= _LAST_NUMBER else _moment(bucket)


def _moment(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(microseconds)
