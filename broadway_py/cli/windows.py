"""``broadway windows``: looks at the files of a pipeline's open windows, and notes in them what operators want."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from broadway_py.cli import window_rows
from broadway_py.cli.endings import fail, sentences
from broadway_py.cli.state_files import StateFile, state_files
from broadway_py.daemon.dead_letters.letters import printable, size_of
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.error_text import clipped
from broadway_py.errors import OptionsError
from broadway_py.pipeline.aggregation.closing import refuse_close
from broadway_py.state import inspection, wishes
from broadway_py.storage.errors import StorageError

__all__ = ["commands"]

R = TypeVar("R")

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Look at the file of a pipeline's open windows, drop results and close windows, also while it runs.

    An aggregator of a pipeline adds messages up in windows of time. They are
    in the file that the setting [bold]state[/] names.

    [bold]Examples[/]

      broadway windows ls var/shop.db

      broadway windows show var/shop.db revenue
    """,
)

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="The file: `state` of the pipeline. With partitions: the folder with a file for each."
    ),
]
AggregatorName = Annotated[str, typer.Argument(metavar="AGGREGATOR", help="Its name in the pipeline.")]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@commands.command("ls")
def ls(file: File) -> None:
    """List the aggregators, with what the file has of each, and its size. Shows no keys and no values.

    Accumulators count once for each time they were stored. They are fewer in memory. An aggregator is unused if the
    pipeline did not have it when it started last.

    [bold]Examples[/]

      broadway windows ls var/shop.db
    """
    files = _files(file)
    found = [(one, summary) for one in files for summary in _told(partial(inspection.summaries, one.path))]
    if found:
        head = ("aggregator", "windows", "checkpoint", "buckets", "accumulators", "size", "identities", "results due")
        rows = [(*one.head, *window_rows.of_aggregator(summary)) for one, summary in found]
        typer.echo(window_rows.table(_head(files, *head, "note"), rows))
    else:
        typer.echo("no aggregators")
    for one in files:
        size = _told(partial(inspection.size, one.path))
        typer.echo(f"{one.prefix}the file has {size_of(size.size_bytes)}, of which {size_of(size.free_bytes)} are free")


@commands.command("show")
def show(file: File, aggregator: AggregatorName) -> None:
    """List the open windows of one aggregator. Shows no keys and no values.

    Sessions and windows that count have no common start. They are in up to 64 numbered buckets.

    [bold]Examples[/]

      broadway windows show var/shop.db revenue
    """
    files = _files(file)
    found = [(one, bucket) for one in files for bucket in _told(partial(inspection.buckets, one.path, aggregator))]
    if not found:
        typer.echo("no open windows")
        return
    rows = [(*one.head, *window_rows.of_bucket(bucket)) for one, bucket in found]
    typer.echo(window_rows.table(_head(files, "start", "rows", "accumulators", "size", "last checkpoint"), rows))


@commands.command("results")
def results(
    file: File,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="ID#FIRING", help="Remove this result for good, as the last column shows it."),
    ] = None,
) -> None:
    """List the results that `emit` has not taken yet, the oldest first. The ids of results have keys in them.

    With --drop, results are removed instead: those that `emit` can never take. All that are named are removed, or none.
    A running pipeline removes them before it tries them again, and otherwise the next start does.

    [bold]Examples[/]

      broadway windows results var/shop.db

      broadway windows results var/shop.db --drop 'revenue/1764460800000000_1764460860000000/"de"#1'
    """
    files = _files(file)
    due = {one: _told(partial(_due, one)) for one in files}
    if drop:
        _drop(file, due, list(dict.fromkeys(drop)))
        return
    rows = [(*one.head, *window_rows.of_result(result)) for one, of_file in due.items() for result in of_file]
    if rows:
        head = _head(files, "aggregator", "number", "window end", "trigger", "size", "note", "result")
        typer.echo(window_rows.table(head, rows))
    else:
        typer.echo("no results are due")


def _due(file: StateFile) -> list[window_rows.Due]:
    return list(map(window_rows.due, inspection.results(file.path)))


def _drop(file: Path, due: dict[StateFile, list[window_rows.Due]], wanted: list[str]) -> None:
    known = {result.name for of_file in due.values() for result in of_file}
    for name in wanted:
        if name not in known:
            fail(f"no result {printable(name)} is due in {file}; nothing was changed", ExitCode.CRASH)
    unwanted = set(wanted)
    for one, of_file in due.items():
        places = [(result.aggregator, result.sequence) for result in of_file if result.name in unwanted]
        if places:
            _told(partial(wishes.ask_to_drop, one.path, places))
    what = "1 result is" if len(wanted) == 1 else f"{len(wanted):,} results are"
    typer.echo(f"{what} removed before the next try, or when the pipeline starts next")


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
    """Ask an aggregator to close its open windows when the pipeline starts next. The pipeline may run meanwhile.

    The windows give their results, with the trigger `closed`. Messages that come for them later are late.

    [bold]Examples[/]

      broadway windows close var/shop.db --aggregator revenue

      broadway windows close var/shop.db --aggregator revenue --before 2026-05-01T12:00:00Z
    """
    with sentences():
        end = None if before is None else _microseconds(before)
        for one in _files(file):
            check = partial(refuse_close, before=end)
            _told(partial(wishes.ask_to_close, one.path, aggregator, end, check))
    which = "all windows" if before is None else f"the windows that end by {before}"
    typer.echo(f"{which} of {printable(aggregator)} close when the pipeline starts next")


@commands.command("remove")
def remove(file: File, aggregator: AggregatorName) -> None:
    """Remove all that the file has of an aggregator that its pipeline does not have any more: windows and results.

    The pipeline may run meanwhile. The file does not become smaller, but its space is used again.

    [bold]Examples[/]

      broadway windows remove var/shop.db revenue
    """
    for one in _files(file):
        _told(partial(wishes.remove_unused, one.path, aggregator))
    typer.echo(f"{printable(aggregator)} is removed")


@commands.command("verify")
def verify(file: File) -> None:
    """Read the whole file, and compare each row with its checksum. Exits with 1 if something is damaged.

    [bold]Examples[/]

      broadway windows verify var/shop.db
    """
    problems = [
        f"{one.prefix}{problem}" for one in _files(file) for problem in _told(partial(inspection.verify, one.path))
    ]
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
    file: File,
    to: Annotated[Path, typer.Argument(metavar="TO", help="The new file, or the new folder. It must not exist.")],
) -> None:
    """Copy the file as it is at one moment, and verify the copy. Files of partitions are copied one after the other.

    The messages that were acked after this moment are not in the copy, and their sources do not deliver them again.

    [bold]Examples[/]

      broadway windows backup var/shop.db /backup/shop-monday.db
    """
    files = _files(file)
    copies = {one: to if one.partition is None else to / Path(one.path).name for one in files}
    if files[0].partition is not None:
        _make_folder(to)
    for one, copy in copies.items():
        _told(partial(inspection.backup, one.path, str(copy)))
        if _told(partial(inspection.verify, str(copy))):
            fail(
                f"{copy} was written, but it is damaged, and so is {one.path}: see broadway windows verify",
                ExitCode.CRASH,
            )
    written = sum(copy.stat().st_size for copy in copies.values())
    typer.echo(f"{size_of(written)} written to {printable(str(to))}")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except OSError as error:
        fail(f"backup {path}: the folder cannot be created ({error.strerror}): choose another path", ExitCode.CRASH)


def _files(path: Path) -> list[StateFile]:
    return _told(partial(state_files, path))


def _head(files: list[StateFile], *names: str) -> tuple[str, ...]:
    return names if files[0].partition is None else ("partition", *names)


def _told(work: Callable[[], R]) -> R:
    try:
        return work()
    except StorageError as failed:
        fail(failed, ExitCode.CRASH)


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
