"""``broadway dlq``: lists, shows, replays and purges dead letters."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from broadway_py.cli.endings import INTERRUPTED, fail, sentences
from broadway_py.daemon.dead_letters import letters
from broadway_py.daemon.dead_letters.letters import Head, Letters
from broadway_py.daemon.dead_letters.places import Place, of_queue, of_settings, of_url
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.errors import BroadwayError, OptionsError

__all__ = ["commands"]

R = TypeVar("R")
#: Returns the place of the dead letters that the options of a command name. The argument is the value of ``--to``.
FindPlace = Callable[[str | None], Place]

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Show the dead letters of a queue, put them back, or remove them.",
)

Queue = Annotated[
    str | None,
    typer.Option(
        "--queue",
        metavar="FILE:NAME",
        help="The queue whose messages failed: FILE:NAME of an embedded queue, or NAME with --url.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="amqp://…", help="The RabbitMQ of the queue. Its dead letters are in NAME.dead."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The settings file of a pipeline, instead of --queue or --url."),
]
PipelineName = Annotated[
    str | None,
    typer.Option("--pipeline", metavar="NAME", help="The pipeline to take from the settings, if there are several."),
]
Dead = Annotated[
    str | None,
    typer.Option(
        "--dead", metavar="NAME", help="The RabbitMQ queue that holds the dead letters, if it is not QUEUE.dead."
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="NAME", help="The RabbitMQ queue to put them into, instead of the one they failed in."
    ),
]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="The dead letters, as `broadway dlq ls` shows them.")
]
Cause = Annotated[str | None, typer.Option(metavar="CAUSE", help="Take only the dead letters with this cause.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


def _which_dead_letters(
    *,
    queue: Queue = None,
    url: Url = None,
    config: Config = None,
    pipeline: PipelineName = None,
    dead: Dead = None,
) -> FindPlace:
    """The options that all commands have: they say which dead letters are meant."""

    def place(to: str | None) -> Place:
        if url is not None and config is not None:
            raise OptionsError((), "dlq: give --url or --config, not both")
        if config is not None:
            settings = read_settings([config])
            try:
                return of_settings(settings, pipeline, queue, dead, to)
            except OptionsError as wrong:
                raise settings.located(wrong) from None
        if url is not None:
            return of_url(url, queue, dead, to)
        if queue is None:
            raise OptionsError((), "dlq: name the queue with --queue FILE:NAME, or a pipeline with --config FILE")
        return of_queue(queue, dead, to)

    return place


def _on_dead_letters(command: Callable[..., None]) -> Callable[..., None]:
    """Gives *command* the options of :func:`_which_dead_letters`, and passes on what they say as ``find``."""
    shared = inspect.signature(_which_dead_letters, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters
    options = [*shared.values(), *(own[name] for name in own if name != "find")]

    @wraps(command)
    def run(**given: Any) -> None:
        command(find=_which_dead_letters(**{name: given.pop(name) for name in shared}), **given)

    # The command-line library reads both.
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # functions may have it
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


@commands.command("ls")
@_on_dead_letters
def ls(*, find: FindPlace, cause: Cause = None) -> None:
    """List the dead letters, and when and why each one failed. Shows no payloads.

    [bold]Examples[/]

      broadway dlq ls --queue var/queue.db:orders

      broadway dlq ls --queue var/queue.db:orders --cause timeout

      broadway dlq ls --config orders.yaml --pipeline orders

      broadway dlq ls --url amqp://user@broker/ --queue orders

      broadway dlq ls --url amqp://user@broker/ --dead graveyard
    """
    with sentences():
        heads = _with_queue(find(None), lambda file: letters.select(file, (), cause))
    if not heads:
        typer.echo("no dead letters")
        return
    typer.echo("\n".join(letters.drawn(heads)))


@commands.command("show")
@_on_dead_letters
def show(
    *,
    find: FindPlace,
    letter: Annotated[str, typer.Argument(metavar="ID", help="The dead letter, as `broadway dlq ls` shows it.")],
    payload: Annotated[bool, typer.Option("--payload", help="Print the payload as it is, and nothing else.")] = False,
) -> None:
    """Show all that is known about one dead letter. Shows its payload only with --payload.

    [bold]Examples[/]

      broadway dlq show 17 --queue var/queue.db:orders

      broadway dlq show 17 --queue var/queue.db:orders --payload > letter.json
    """

    async def found(file: Letters) -> tuple[Head, bytes]:
        (head,) = await letters.select(file, (letter,), None)
        return head, await file.payload(letter) if payload else b""

    with sentences():
        head, raw = _with_queue(find(None), found)
    if payload:
        typer.echo(raw, nl=False)
        return
    typer.echo("\n".join(letters.shown(head)))


@commands.command("replay")
@_on_dead_letters
def replay(
    *,
    find: FindPlace,
    ids: Ids = None,
    cause: Cause = None,
    rate: Annotated[
        str | None,
        typer.Option(metavar="N/s", help="Put back at most this many per second (/s), minute (/m) or hour (/h)."),
    ] = None,
    dry_run: DryRun = False,
    to: To = None,
) -> None:
    """Put dead letters back into their queue as new messages. Without ID and --cause: all of them.

    [bold]Examples[/]

      broadway dlq replay 17 18 --queue var/queue.db:orders

      broadway dlq replay --queue var/queue.db:orders --cause timeout --rate 50/s

      broadway dlq replay --queue var/queue.db:orders --dry-run

      broadway dlq replay --url amqp://user@broker/ --dead graveyard --to orders
    """
    moved = 0

    def progress(count: int) -> None:
        nonlocal moved
        moved = count

    async def back(file: Letters) -> int:
        chosen = [head.id for head in await letters.select(file, ids or (), cause)]
        return len(chosen) if dry_run else await letters.replay(file, chosen, per_second, progress)

    with sentences():
        per_second = None if rate is None else letters.rate_of(rate)
        count = _with_queue(
            find(to),
            back,
            lambda: f"; {letters.counted(moved)} {'was' if moved == 1 else 'were'} put back before that",
        )
    typer.echo(f"{letters.counted(count)} {'would be ' if dry_run else ''}put back into the queue")


@commands.command("purge")
@_on_dead_letters
def purge(
    *,
    find: FindPlace,
    ids: Ids = None,
    cause: Cause = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before removing.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Remove dead letters for good, after asking. Without ID and --cause: all of them.

    [bold]Examples[/]

      broadway dlq purge 17 --queue var/queue.db:orders

      broadway dlq purge --queue var/queue.db:orders --cause invalid --yes
    """

    async def gone(file: Letters) -> int:
        if yes and not dry_run and not ids and cause is None:
            return await file.discard_all()
        chosen = [head.id for head in await letters.select(file, ids or (), cause)]
        if dry_run or not chosen:
            return len(chosen)
        if not yes and not _agreed(f"Remove {letters.counted(len(chosen))} for good?"):
            return 0
        return await file.discard(chosen)

    with sentences():
        count = _with_queue(find(None), gone)
    typer.echo(f"{letters.counted(count)} {'would be ' if dry_run else ''}removed")


def _agreed(question: str) -> bool:
    if not _is_terminal():
        raise OptionsError(
            (), "dlq purge: standard input is not a terminal, so the command cannot ask; add --yes, or --dry-run"
        )
    return typer.confirm(question)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _with_queue(place: Place, work: Callable[[Letters], Awaitable[R]], so_far: Callable[[], str] = str) -> R:
    """Runs *work* with the queue open and returns its result.

    An error ends the command; the text of *so_far* is added to the error text.
    """

    async def run() -> R:
        async with place() as file:
            return await work(file)

    try:
        return asyncio.run(run())
    except OptionsError:
        raise
    except BroadwayError as failed:
        fail(f"{failed}{so_far()}", ExitCode.CRASH)
    except KeyboardInterrupt:
        fail(f"interrupted{so_far()}", INTERRUPTED)
