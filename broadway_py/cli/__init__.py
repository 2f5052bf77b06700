"""The ``broadway`` command: reads arguments, prints text and sets exit codes. No other part prints or exits."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn

try:
    import typer
except ImportError:
    sys.exit("broadway: the command needs typer, which is not installed: pip install 'broadway-py[daemon]'")

from broadway_py.cli import dlq, streams, windows
from broadway_py.cli.endings import INTERRUPTED, fail, sentences, warn
from broadway_py.daemon.logs import logs
from broadway_py.daemon.process.main_thread import ExitCode, leave
from broadway_py.daemon.settings.settings import examine, read_settings
from broadway_py.errors import BroadwayError, OptionsError

__all__ = ["app", "main"]

app = typer.Typer(
    name="broadway",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a traceback with local variables would show payloads and passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...", help="A settings file: YAML, TOML or JSON. A later file overrides an earlier one."
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one setting. The option may be repeated. The value is read as YAML.",
    ),
]

app.add_typer(dlq.commands, name="dlq")
app.add_typer(windows.commands, name="windows")


def main() -> NoReturn:
    """Runs the ``broadway`` command and exits."""
    streams.prepare()
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except SystemExit as ended:
        streams.finish(ended)
    except OSError as failed:
        streams.refuse_output(failed)
        raise
    raise AssertionError("typer always exits")


def _version(wanted: bool) -> None:
    if wanted:
        from broadway_py.metrics import package_version  # noqa: PLC0415  # prometheus_client is slow to import

        typer.echo(f"broadway {package_version()}, Python {sys.version.split()[0]}")
        raise typer.Exit


@app.callback()
def _broadway(
    _version_wanted: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run pipelines that take messages from a queue and settle each of them once.

    [bold]Examples[/]

      # run the quick start; its page is on http://127.0.0.1:8080

      broadway run config/quickstart.yaml

      # check these settings

      broadway check orders.yaml

      # put the lines of a file on the queue that a pipeline reads

      broadway send orders.yaml lines.txt

      # list the messages that have failed for good

      broadway dlq ls --queue var/queue.db:orders

    Exit codes: 0 clean, 1 crash, 2 usage or settings,
    75 the drain ran out of time.
    """


@app.command()
def run(
    files: Files,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="How many processes run the pipelines; overrides the setting `workers`."),
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Run the pipelines of FILE until they have ended or a signal stops them.

    SIGTERM or Ctrl-C starts a drain: no new messages are fetched; those that
    were started are finished and settled. A second signal cuts the drain
    short. SIGUSR1 writes the state and all stacks to the log.

    [bold]Examples[/]

      broadway run orders.yaml

      broadway run base.yaml production.yaml --workers 4

      broadway run orders.yaml --set pipelines.orders.processors.concurrency=50

      BROADWAY_HTTP__PORT=9090 broadway run orders.yaml
    """
    from broadway_py.daemon.runner import log_hidden_variables, run_settings  # noqa: PLC0415  # keeps --help fast

    more = [] if workers is None else [f"workers={workers}"]
    with sentences():
        settings = read_settings(files, assignments=[*(assignments or []), *more])
        logs.configure(settings.log)
        log_hidden_variables()
        try:
            code = run_settings(settings)
        except OptionsError as wrong:
            raise settings.located(wrong) from None
    leave(code)


@app.command()
def check(files: Files, assignments: Assignments = None) -> None:
    """Say what is wrong with the settings in FILE, without running anything. Exit code 0 or 2.

    Imports the pipeline classes and builds the pipelines, but does not
    connect to anything. A directory of [bold]state[/] that this machine does not
    have is told, too, with exit code 0: FILE may be for another machine.

    [bold]Examples[/]

      broadway check orders.yaml

      broadway check base.yaml production.yaml
    """
    from broadway_py.daemon.pipelines.loader import check_pipelines  # noqa: PLC0415  # keeps --help fast

    examined = examine(files, assignments=assignments or [])
    settings = examined.settings
    here: list[OptionsError] = []
    wrong = [*examined.wrong, *check_pipelines(settings, examined.told, here=here)]
    if wrong:
        fail(OptionsError.of([*wrong, *here]), ExitCode.USAGE)
    warn(here)
    count = len(settings.pipelines)
    typer.echo(f"ok: {count} pipeline{'s' if count > 1 else ''}: {', '.join(settings.pipelines)}")


@app.command()
def topology(
    files: Files,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    assignments: Assignments = None,
) -> None:
    """Show the stages of the pipelines in FILE: which one feeds which, and how many run at the same time.

    [bold]Examples[/]

      broadway topology orders.yaml

      broadway topology orders.yaml --json
    """
    from broadway_py.daemon.pipelines.loader import build_pipelines  # noqa: PLC0415  # keeps --help fast

    with sentences():
        settings = read_settings(files, assignments=assignments or [])
        shapes = [pipeline.topology() for pipeline in build_pipelines(settings)]
    if as_json:
        typer.echo(json.dumps(shapes, indent=2))
        return
    for shape in shapes:
        typer.echo(streams.drawable("\n".join(_drawn(shape))))


def _drawn(shape: dict[str, Any]) -> Iterator[str]:
    yield shape["name"]
    for producer in shape["producers"]:
        yield f"  producer {producer['producer']}  x{producer['concurrency']}"
    for processors in shape["processors"]:
        yield f"  └─ processors  x{processors['concurrency']}"
    for batcher in shape["batchers"]:
        yield f"       └─ batcher {batcher['batcher']}  →  batch processors  x{batcher['concurrency']}"


@app.command()
def send(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE.yaml] [INPUT]",
            help="The settings file (none with --queue), then the file whose lines are sent. - is standard input.",
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option(metavar="FILE:NAME", help="Send to this embedded queue. It needs no settings file.")
    ] = None,
    pipeline: Annotated[
        str | None, typer.Option(metavar="NAME", help="Send to the queue that this pipeline reads.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FIELD", help="The field of each line, a JSON object, that is the key of the message."),
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Put the lines of a file, or of standard input, on a queue, one message per line. Empty lines are left out.

    Works for the embedded queue and for RabbitMQ (messages are persistent,
    and the broker confirms each one). Exit code 1 if the queue is not
    available; the output then says how many messages are certainly on it.

    [bold]Examples[/]

      broadway send --queue var/queue.db:orders lines.txt

      generate-orders | broadway send --queue var/queue.db:orders -

      broadway send orders.yaml --pipeline orders lines.txt

      broadway send orders.yaml --key customer orders.jsonl
    """
    from broadway_py.daemon.send import queue_file, target_of  # noqa: PLC0415  # keeps --help fast

    given = list(arguments or [])
    with sentences():
        if queue is not None:
            target = queue_file(queue)
        elif given:
            settings = read_settings([Path(given.pop(0))], assignments=assignments or [])
            try:
                target = target_of(settings, pipeline, has_keys=key is not None)
            except OptionsError as wrong:
                raise settings.located(wrong) from None
        else:
            raise OptionsError((), "send: name a settings file, or a queue with --queue FILE:NAME")
    if len(given) > 1:
        fail(f"send: expected one input, got {', '.join(given)}", ExitCode.USAGE)
    with _input(given[0] if given else "-") as stream:
        _send(stream, target, key)


def _send(stream: BinaryIO, target: Any, key: str | None) -> None:
    from broadway_py.daemon.send import lines_of, send_lines  # noqa: PLC0415  # keeps --help fast

    sent = 0

    def progress(count: int) -> None:
        nonlocal sent
        sent = count
        if sys.stderr.isatty():
            typer.echo(f"\r{count:,} lines", nl=False, err=True)

    try:
        asyncio.run(send_lines(lines_of(stream, key), target, progress))
    except (BroadwayError, KeyboardInterrupt) as ended:
        _end_line()
        reason = "interrupted" if isinstance(ended, KeyboardInterrupt) else ended
        code = INTERRUPTED if isinstance(ended, KeyboardInterrupt) else ExitCode.CRASH
        fail(f"{reason}; {sent:,} {'line was' if sent == 1 else 'lines were'} put on the queue before that", code)
    _end_line()
    typer.echo(f"{sent:,} {'line was' if sent == 1 else 'lines were'} put on the queue")


def _end_line() -> None:
    if sys.stderr.isatty():
        typer.echo("\r\033[K", nl=False, err=True)


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        if streams.is_input_closed():
            fail("send: standard input is closed; name a file whose lines are to be sent", ExitCode.USAGE)
        yield sys.stdin.buffer
        return
    try:
        stream = Path(name).open("rb")  # noqa: SIM115  # closed below, outside the except
    except OSError as failed:
        fail(f"{name}: cannot be read: {failed.strerror}", ExitCode.USAGE)
    with stream:
        yield stream
