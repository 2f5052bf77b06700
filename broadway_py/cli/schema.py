"""``broadway schema``: the JSON Schema of settings files, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from broadway_py.cli.endings import fail
from broadway_py.daemon.process.main_thread import ExitCode

__all__ = ["schema"]


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of the terminal.")
    ] = None,
) -> None:
    """Print the JSON Schema of settings files, with which an editor completes and checks settings as you type.

    Put this line at the top of a settings file, and VS Code (with its
    extension for YAML) finds the schema beside it:

      # yaml-language-server: $schema=broadway.schema.json

    The schema knows the kinds of queues that are installed here. Make it
    anew after an update. [bold]broadway check[/] notices more: it knows your class.

    [bold]Examples[/]

      broadway schema --output broadway.schema.json

      broadway schema | less
    """
    from broadway_py.daemon.json_schema import settings_schema  # noqa: PLC0415  # keeps --help fast

    text = json.dumps(settings_schema(), indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as failed:
        fail(f"{output}: cannot be written: {failed.strerror}", ExitCode.USAGE)
