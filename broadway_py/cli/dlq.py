"""``broadway dlq``: lists, shows, replays and purges dead letters."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from broadway_py.cli.completion import pipeline_names
from broadway_py.cli.endings import INTERRUPTED, fail, sentences
from broadway_py.cli.progress import Progress
from broadway_py.daemon.dead_letters import letters
from broadway_py.daemon.dead_letters.letters import Choice, Head, Letters
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
    help="""Show the dead letters of a queue, put them back, or remove them.

    Dead letters are messages that have failed for good. They are kept, with
    the reason, until somebody decides.

    [bold]Examples[/]

      broadway dlq ls --queue var/queue.db:orders

      broadway dlq replay --config orders.yaml --cause timeout
    """,
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
    typer.Option(
        "--url",
        metavar="URL",
        help="amqp://…: the RabbitMQ of the queue, whose dead letters are in NAME.dead. https://…: the SQS queue; its "
        "redrive policy says where its dead letters are.",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The settings file of a pipeline, instead of --queue or --url."),
]
PipelineName = Annotated[
    str | None,
    typer.Option(
        "--pipeline",
        metavar="NAME",
        help="The pipeline to take from the settings, if there are several.",
        autocompletion=pipeline_names,
    ),
]
Dead = Annotated[
    str | None,
    typer.Option(
        "--dead", metavar="NAME", help="The queue of RabbitMQ or SQS that holds the dead letters, if it is another one."
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="NAME", help="The queue of RabbitMQ or SQS to put them into, if not the one they failed in."
    ),
]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="The dead letters, as `broadway dlq ls` shows them.")
]
Cause = Annotated[str | None, typer.Option(metavar="CAUSE", help="Take only the dead letters with this cause.")]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Take at most so many.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with one object in a line for each dead letter.")]
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
def ls(*, find: FindPlace, cause: Cause = None, limit: Limit = None, as_json: AsJson = False) -> None:
    """List the dead letters, and when and why each one failed. Shows no payloads.

    [bold]Examples[/]

      broadway dlq ls --queue var/queue.db:orders

      broadway dlq ls --queue var/queue.db:orders --cause timeout --limit 20

      broadway dlq ls --config orders.yaml --pipeline orders --json

      broadway dlq ls --url amqp://user@broker/ --queue orders

      broadway dlq ls --url amqp://user@broker/ --dead graveyard

      broadway dlq ls --url https://sqs.eu-central-1.amazonaws.com/123456789012/orders
    """

    async def listed(file: Letters) -> tuple[list[Head], str | None]:
        return await letters.select(file, Choice((), cause, limit)), await file.note()

    with sentences():
        heads, note = _with_queue(find(None), listed)
    if as_json:
        for head in heads:
            typer.echo(letters.as_json(head))
    else:
        typer.echo("\n".join(letters.drawn(heads)) if heads else "no dead letters")
    if note is not None:
        typer.echo(note, err=True)


@commands.command("show")
@_on_dead_letters
def show(
    *,
    find: FindPlace,
    letter: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The dead letter, as `broadway dlq ls` shows it. Not needed with --limit."),
    ] = None,
    payload: Annotated[bool, typer.Option("--payload", help="Print the payload as it is, and nothing else.")] = False,
    cause: Cause = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Show all that is known about one dead letter, or about several with --limit. Shows payloads only with --payload.

    [bold]Examples[/]

      broadway dlq show 17 --queue var/queue.db:orders

      broadway dlq show 17 --queue var/queue.db:orders --payload > letter.json

      broadway dlq show --queue var/queue.db:orders --limit 3
    """

    async def found(file: Letters) -> list[tuple[Head, bytes]]:
        heads = await letters.select(file, Choice(() if letter is None else (letter,), cause, limit))
        return [(head, await file.payload(head.id) if payload else b"") for head in heads]

    with sentences():
        if letter is None and limit is None:
            raise OptionsError((), "dlq show: name the dead letter with ID, or say with --limit how many are shown")
        if payload and as_json:
            raise OptionsError((), "dlq show: give --payload or --json, not both: a payload may be no text")
        if payload and letter is None and limit != 1:
            raise OptionsError((), "dlq show: --payload shows one payload; name the dead letter with ID")
        several = _with_queue(find(None), found)
    for number, (head, raw) in enumerate(several):
        if payload:
            typer.echo(raw, nl=False)
        elif as_json:
            typer.echo(letters.as_json(head))
        else:
            typer.echo(("\n" if number else "") + "\n".join(letters.shown(head)))
    if not several and not as_json and not payload:
        typer.echo("no dead letters")


@commands.command("replay")
@_on_dead_letters
def replay(
    *,
    find: FindPlace,
    ids: Ids = None,
    cause: Cause = None,
    limit: Limit = None,
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

      broadway dlq replay --queue var/queue.db:orders --limit 10

      broadway dlq replay --queue var/queue.db:orders --dry-run

      broadway dlq replay --url amqp://user@broker/ --dead graveyard --to orders
    """
    choice = Choice(ids or (), cause, limit)
    progress = Progress("dead letters put back")

    async def back(file: Letters) -> int:
        if dry_run:
            return len(await letters.select(file, choice))
        return await letters.replay(file, choice, per_second, progress.reached)

    with sentences():
        per_second = None if rate is None else letters.rate_of(rate)
        with nullcontext() if dry_run else progress:
            count = _with_queue(find(to), back, lambda: _so_far(progress, "put back"), progress.clear)
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
    choice = Choice(ids or (), cause)
    progress = Progress("dead letters removed")
    are_all = not ids and cause is None

    async def gone(file: Letters) -> str:
        about = "about " if file.is_approximate and are_all else ""
        if are_all and yes and not dry_run:
            return f"{about}{letters.counted(await file.discard_all())} removed"
        chosen = [] if about else [head.id for head in await letters.select(file, choice)]
        count = await file.count() if about else len(chosen)
        if dry_run or not count:
            return f"{about}{letters.counted(count)} {'would be ' if dry_run else ''}removed"
        if not yes and not _agreed(f"Remove {about}{letters.counted(count)} for good?"):
            return f"{letters.counted(0)} removed"
        if about:
            return f"{about}{letters.counted(await file.discard_all())} removed"
        with progress:
            return f"{letters.counted(await letters.discard(file, chosen, progress.reached))} removed"

    with sentences():
        said = _with_queue(
            find(None), gone, lambda: _so_far(progress, "removed") if progress.count else "", progress.clear
        )
    typer.echo(said)


def _so_far(progress: Progress, what: str) -> str:
    return f"; {letters.counted(progress.count)} {'was' if progress.count == 1 else 'were'} {what} before that"


def _agreed(question: str) -> bool:
    if not _is_terminal():
        raise OptionsError(
            (), "dlq purge: standard input is not a terminal, so the command cannot ask; add --yes, or --dry-run"
        )
    return typer.confirm(question)


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _with_queue(
    place: Place,
    work: Callable[[Letters], Awaitable[R]],
    so_far: Callable[[], str] = str,
    clear: Callable[[], object] = bool,
) -> R:
    """Runs *work* with the queue open and returns its result.

    An error ends the command; *clear* is called first, and the text of *so_far* is added to the error text.
    """

    async def run() -> R:
        async with place() as file:
            return await work(file)

    try:
        return asyncio.run(run())
    except OptionsError:
        raise
    except BroadwayError as failed:
        clear()
        fail(f"{failed}{so_far()}", ExitCode.CRASH)
    except KeyboardInterrupt:
        clear()
        fail(f"interrupted{so_far()}", INTERRUPTED)
