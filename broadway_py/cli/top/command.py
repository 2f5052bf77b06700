"""The command ``broadway top``: finds the daemon, and shows it on a terminal or prints it once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from broadway_py.cli.endings import sentences
from broadway_py.daemon.settings.settings import Http, read_settings
from broadway_py.errors import OptionsError

__all__ = ["top"]


def top(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="The settings files of the daemon. They say where it serves."),
    ] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the daemon serves, such as http://127.0.0.1:8080.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The file with the token that pause and resume need, if the daemon has one."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the figures of one second as text, and end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print them once as JSON, with one object in a line for each pipeline.")
    ] = False,
) -> None:
    """Show the pipelines of a running daemon, as it goes on: rates, failures, latencies, sources, windows, workers.

    Without FILE and --url, the daemon at http://127.0.0.1:8080 is shown. The arrow keys (or j and k) choose a pipeline,
    enter opens it, p pauses or resumes it after a question, and q ends. Where the output is not a terminal, the figures
    are printed once.

    [bold]Examples[/]

      broadway top

      broadway top orders.yaml

      broadway top --url http://10.0.0.7:8080 --token-file /run/secrets/token

      broadway top --once

      broadway top --json | jq .settled_per_second
    """
    from broadway_py.cli.http_client import DaemonClient, address_of, read_token  # noqa: PLC0415  # keeps --help fast

    with sentences():
        if files and url is not None:
            raise OptionsError((), "top: give settings files or --url, not both")
        token = None
        if files:
            settings = read_settings(files)
            try:
                url, token = address_of(settings)
            except OptionsError as wrong:
                raise settings.located(wrong) from None
        elif url is None:
            url = f"http://{Http().host}:{Http().port}"
        if token_file is not None:
            try:
                token = read_token(str(token_file))
            except OptionsError as wrong:
                raise wrong.under("--token-file") from None
        try:
            client = DaemonClient(url, token)
        except OptionsError as wrong:
            raise wrong.under("--url") from None
    if once or as_json or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in {"dumb", "unknown"}:
        from broadway_py.cli.top.once import print_once  # noqa: PLC0415  # keeps --help fast

        print_once(client, as_json=as_json)
        return
    from rich.console import Console  # noqa: PLC0415  # keeps --help fast

    from broadway_py.cli.top.session import show  # noqa: PLC0415  # the same

    show(client, Console(highlight=False, markup=False, emoji=False))
