"""``broadway windows``: looks at the file of a pipeline's open windows, removes results, and asks to close windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import typer

from broadway_py.cli.endings import fail, sentences
from broadway_py.daemon.dead_letters.letters import printable, size_of
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.error_text import clipped
from broadway_py.errors import OptionsError
from broadway_py.pipeline.aggregation.closing import with_wish
from broadway_py.pipeline.aggregation.records import ResultFacts, facts_of
from broadway_py.state import inspection
from broadway_py.state.inspection import AggregatorSummary, BucketSummary, PendingResult
from broadway_py.storage.errors import StorageError

__all__ = ["commands"]

R = TypeVar("R")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look at the file of a pipeline's open windows, also while it runs. Only close and results --drop change it.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file: `state` of the pipeline.")]

#: Buckets up to this number are no starts of windows.
_LAST_NUMBER = 63
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@commands.command("ls")
def ls(file: File) -> None:
    """List the aggregators, with what the file has of each. Shows no keys and no values.

    Accumulators count once for each time they were stored. They are fewer in memory.

    [bold]Examples[/]

      broadway windows ls var/shop.db
    """
    found = _told(lambda: inspection.summaries(str(file)))
    if not found:
        typer.echo("no aggregators")
        return
    head = ("aggregator", "windows", "checkpoint", "buckets", "accumulators", "size", "identities", "results due")
    typer.echo("\n".join(_table([head, *map(_row_of_aggregator, found)])))


@commands.command("show")
def show(
    file: File,
    aggregator: Annotated[str, typer.Argument(metavar="AGGREGATOR", help="Its name in the pipeline.")],
) -> None:
    """List the open windows of one aggregator. Shows no keys and no values.

    Sessions and windows that count have no common start. They are in up to 64 numbered buckets.

    [bold]Examples[/]

      broadway windows show var/shop.db revenue
    """
    found = _told(lambda: inspection.buckets(str(file), aggregator))
    if not found:
        typer.echo("no open windows")
        return
    head = ("start", "rows", "accumulators", "size", "last checkpoint")
    typer.echo("\n".join(_table([head, *map(_row_of_bucket, found)])))


@commands.command("results")
def results(
    file: File,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID#FIRING",
            help="Remove this result for good, as the last column shows it. No process may have the file.",
        ),
    ] = None,
) -> None:
    """List the results that `emit` has not taken yet, the oldest first. The ids of results have keys in them.

    With --drop, results are removed instead: those that `emit` can never take. All that are named are removed, or none.

    [bold]Examples[/]

      broadway windows results var/shop.db

      broadway windows results var/shop.db --drop 'revenue/1764460800000000_1764460860000000/"de"#1'
    """
    found = _told(lambda: [_due(one) for one in inspection.results(str(file))])
    if drop:
        places = {one.name: (one.aggregator, one.sequence) for one in found}
        wanted = list(dict.fromkeys(drop))
        for name in wanted:
            if name not in places:
                fail(f"no result {printable(name)} is due in {file}; nothing was changed", ExitCode.CRASH)
        _told(lambda: inspection.drop_results(str(file), [places[name] for name in wanted]))
        typer.echo(f"{len(wanted):,} {'result' if len(wanted) == 1 else 'results'} removed")
    elif found:
        head = ("aggregator", "number", "window end", "trigger", "size", "result")
        typer.echo("\n".join(_table([head, *map(_row_of_result, found)])))
    else:
        typer.echo("no results are due")


@commands.command("close")
def close(
    file: File,
    aggregator: Annotated[str, typer.Option(metavar="NAME", help="The aggregator: its name in the pipeline.")],
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Close only windows that end then or earlier, such as 2026-05-01T12:00:00Z. Default: all.",
        ),
    ] = None,
) -> None:
    """Ask an aggregator to close its open windows when the pipeline starts next. No process may have the file.

    The windows give their results, with the trigger `closed`. Messages that come for them later are late.

    [bold]Examples[/]

      broadway windows close var/shop.db --aggregator revenue

      broadway windows close var/shop.db --aggregator revenue --before 2026-05-01T12:00:00Z
    """
    with sentences():
        end = None if before is None else _microseconds(before)
        _told(lambda: inspection.rewrite_memory(str(file), aggregator, lambda memory: with_wish(memory, end)))
    which = "all windows" if before is None else f"the windows that end by {before}"
    typer.echo(f"{which} of {printable(aggregator)} close when the pipeline starts next")


@commands.command("verify")
def verify(file: File) -> None:
    """Read the whole file, and compare each row with its checksum. Exits with 1 if something is damaged.

    [bold]Examples[/]

      broadway windows verify var/shop.db
    """
    problems = _told(lambda: inspection.verify(str(file)))
    if problems:
        typer.echo("\n".join(printable(clipped(problem, 1000)) for problem in problems))
        fail(
            f"{file} is damaged in {len(problems)} {'place' if len(problems) == 1 else 'places'}: stop everything that "
            "uses it and restore it from a backup",
            ExitCode.CRASH,
        )
    typer.echo("nothing is damaged")


@commands.command("backup")
def backup(
    file: File, to: Annotated[Path, typer.Argument(metavar="TO", help="The new file. It must not exist.")]
) -> None:
    """Copy the file as it is at one moment, and verify the copy.

    The messages that were acked after this moment are not in the copy, and their sources do not deliver them again.

    [bold]Examples[/]

      broadway windows backup var/shop.db /backup/shop-monday.db
    """
    _told(lambda: inspection.backup(str(file), str(to)))
    problems = _told(lambda: inspection.verify(str(to)))
    if problems:
        fail(f"{to} was written, but it is damaged, and so is {file}: see broadway windows verify", ExitCode.CRASH)
    typer.echo(f"{size_of(to.stat().st_size)} written to {printable(str(to))}")


def _told(work: Callable[[], R]) -> R:
    try:
        return work()
    except StorageError as failed:
        fail(failed, ExitCode.CRASH)


def _row_of_aggregator(one: AggregatorSummary) -> tuple[str, ...]:
    counts = (one.number, one.buckets, one.entries)
    return (
        clipped(one.name, 60),
        clipped(one.window, 60),
        *(f"{count:,}" for count in counts),
        size_of(one.row_bytes),
        f"{one.identities:,}",
        f"{one.results:,}",
    )


def _row_of_bucket(one: BucketSummary) -> tuple[str, ...]:
    return (_start(one.bucket), f"{one.rows:,}", f"{one.entries:,}", size_of(one.row_bytes), f"{one.number:,}")


class _Due(NamedTuple):
    """A result that is due, without its value: all values together may be too much for the memory."""

    aggregator: str
    sequence: int
    size: int
    facts: ResultFacts

    @property
    def name(self) -> str:
        return f"{self.facts.id}#{self.facts.firing}"


def _due(one: PendingResult) -> _Due:
    return _Due(one.aggregator, one.sequence, len(one.content), facts_of(one.content))


def _row_of_result(one: _Due) -> tuple[str, ...]:
    end = one.facts.end
    return (
        clipped(one.aggregator, 60),
        f"{one.sequence:,}",
        "none" if end is None else _moment(end),
        one.facts.trigger,
        size_of(one.size),
        one.name,
    )


def _start(bucket: int) -> str:
    return str(bucket) if 0 < bucket <= _LAST_NUMBER else _moment(bucket)


def _microseconds(time: str) -> int:
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise OptionsError(
            ("--before",), f"expected a time with its zone, such as 2026-05-01T12:00:00Z, got {printable(time)}"
        )
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(microseconds)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
