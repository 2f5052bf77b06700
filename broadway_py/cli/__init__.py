"""The ``broadway`` command: reads arguments, prints text and sets exit codes. No other part prints or exits."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

try:
    import typer
except ImportError:
    sys.exit("broadway: the command needs typer, which is not installed: pip install 'broadway-py[daemon]'")

from broadway_py.cli import config, dlq, streams, windows
from broadway_py.cli.arguments import Assignments, Files
from broadway_py.cli.connect_check import connect_and_tell
from broadway_py.cli.endings import INTERRUPTED, fail, sentences, warn
from broadway_py.cli.new import new
from broadway_py.cli.reload import reload
from broadway_py.cli.schema import schema
from broadway_py.cli.send import send
from broadway_py.cli.top import command as top_command
from broadway_py.cli.version import version_lines
from broadway_py.daemon.logs import logs
from broadway_py.daemon.process.main_thread import ExitCode, leave
from broadway_py.daemon.settings.settings import Settings, examine, read_settings
from broadway_py.daemon.settings.token_file import read_token
from broadway_py.errors import OptionsError

__all__ = ["app", "main"]

app = typer.Typer(
    name="broadway",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a traceback with local variables would show payloads and passwords
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(dlq.commands, name="dlq")
app.add_typer(windows.commands, name="windows")
app.add_typer(config.commands, name="config")
app.command()(new)
app.command()(schema)
app.command()(reload)
app.command()(top_command.top)
app.command()(send)


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
        for line in version_lines():
            typer.echo(line)
        raise typer.Exit


@app.callback()
def _broadway(
    _version_wanted: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_version,
            is_eager=True,
            help="Show the versions of this program and of what it uses, and exit.",
        ),
    ] = False,
) -> None:
    """Run pipelines: they take messages from a queue, handle them, and tell the queue what became of each.

    [bold]Examples[/]

      # make a project that runs and tests itself

      broadway new shop

      # run the pipelines; their page is on http://127.0.0.1:8080

      broadway run orders.yaml

      # say what is wrong with these settings

      broadway check orders.yaml

      # put the lines of a file on the queue that a pipeline reads

      broadway send orders.yaml lines.txt

      # list the messages that have failed for good

      broadway dlq ls --queue var/queue.db:orders

    Each command has a help with examples: broadway run --help.

    Exit codes: 0 it worked, 1 something failed, 2 the command line or the
    settings are wrong, 75 a stop took too long; what was left is on the queue.
    """


@app.command()
def run(
    files: Files,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=1024, metavar="N", help="How many processes run the pipelines; overrides the setting `workers`."
        ),
    ] = None,
    has_reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when FILE, or a Python file below this directory, has changed.")
    ] = False,
    assignments: Assignments = None,
) -> None:
    """Run the pipelines of FILE until they have ended or a signal stops them.

    SIGTERM or Ctrl-C starts a drain: no new messages are fetched; those that
    were started are finished, and the queue is told. A second signal cuts the
    drain short. SIGHUP reads the settings again. SIGUSR1 writes to the log
    what each pipeline and thread is doing.

    [bold]Examples[/]

      broadway run orders.yaml

      broadway run base.yaml production.yaml --workers 4

      broadway run orders.yaml --set pipelines.orders.processors.concurrency=50

      BROADWAY_HTTP__PORT=9090 broadway run orders.yaml

      # while you write code: each change is checked, then used

      broadway run --reload orders.yaml
    """
    from broadway_py.daemon.runner import log_hidden_variables, run_settings  # noqa: PLC0415  # keeps --help fast

    more = [] if workers is None else [f"workers={workers}"]
    if has_reload:
        leave(_reload(files, [*(assignments or []), *more]))
        return
    # The code of the user may change the working directory.
    places = [file.absolute() for file in files]

    def read(sources: list[Path] = places) -> Settings:
        return read_settings(sources, assignments=[*(assignments or []), *more])

    with sentences():
        settings = read(files)
        logs.configure(settings.log)
        log_hidden_variables()
        try:
            code = run_settings(settings, read)
        except OptionsError as wrong:
            raise settings.located(wrong) from None
    leave(code)


def _reload(files: list[Path], assignments: list[str]) -> int:
    from broadway_py.cli.reloading import FileWatch, Reloading  # noqa: PLC0415  # for development only

    options = [*map(str, files), *(word for one in assignments for word in ("--set", one))]
    with sentences():
        watch = FileWatch(Path.cwd(), files)
    return Reloading(options, watch, lambda sentence: typer.echo(f"broadway: {sentence}", err=True)).run()


@app.command()
def check(
    files: Files,
    connect: Annotated[
        bool,
        typer.Option("--connect", help="Also connect to each place that the pipelines use, and look whether it works."),
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="The most seconds that each step of --connect may take.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="With --connect: print JSON instead of text.")] = False,
    assignments: Assignments = None,
) -> None:
    """Say what is wrong with the settings in FILE, without running anything. Exit code 0 or 2.

    Imports the pipeline classes and builds the pipelines, but does not
    connect to anything. A directory of [bold]state[/] or a [bold]token_file[/] that this
    machine does not have is told, too, with exit code 0: FILE may be for
    another machine.

    With --connect it then looks at each source, each place for dead letters,
    each publisher and each state file, from this machine: whether it is there,
    fits the settings and may be used. It changes nothing. Exit code 1: a
    place is not available now.

    [bold]Examples[/]

      broadway check orders.yaml

      broadway check base.yaml production.yaml

      broadway check --connect orders.yaml
    """
    from broadway_py.daemon.pipelines.loader import checked_pipelines  # noqa: PLC0415  # keeps --help fast

    examined = examine(files, assignments=assignments or [])
    settings = examined.settings
    here: list[OptionsError] = []
    built, found = checked_pipelines(settings, examined.told, here=None if connect else here)
    wrong = [*examined.wrong, *found]
    if settings.http is not None and settings.http.token_file is not None:
        try:
            read_token(settings.http.token_file)
        except OptionsError as missing:
            here.append(settings.located(missing.under("http", "token_file")))
    if wrong:
        fail(OptionsError.of([*wrong, *here]), ExitCode.USAGE)
    warn(here)
    if connect:
        connect_and_tell(settings, built, timeout, as_json=as_json)
        if as_json:
            return
    count = len(settings.pipelines)
    typer.echo(f"ok: {count} pipeline{'s' if count > 1 else ''}: {', '.join(settings.pipelines)}")


@app.command()
def topology(
    files: Files,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    assignments: Assignments = None,
) -> None:
    """Show the parts of the pipelines in FILE: which one feeds which, and how many of each run at the same time.

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
    for publisher in shape.get("publishers", ()):
        yield f"  publisher {publisher['publisher']}"
