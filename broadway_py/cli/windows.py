"""``broadway windows``: looks at the file of a pipeline's open windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from broadway_py.cli.endings import fail
from broadway_py.daemon.dead_letters.letters import printable, size_of
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.error_text import clipped
from broadway_py.state import inspection
from broadway_py.state.inspection import AggregatorSummary, BucketSummary
from broadway_py.storage.errors import StorageError

__all__ = ["commands"]

R = TypeVar("R")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Look at the file of a pipeline's open windows, also while the pipeline runs. Nothing in it is changed.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The file: `state` of the pipeline.")]

#: Buckets up to this number are no starts of windows.
_LAST_NUMBER = 63


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


def _start(bucket: int) -> str:
    if 0 < bucket <= _LAST_NUMBER:
        return str(bucket)
    try:
        return datetime.fromtimestamp(bucket / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return str(bucket)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    cells = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
