"""``broadway new``: makes a project that runs and tests itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from broadway_py.cli.endings import sentences

__all__ = ["new"]


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the project and of its Python package.")],
    source: Annotated[
        Literal["queue", "rabbitmq", "sqs"],
        typer.Option(help="Where messages come from. [bold]queue[/] is a file; it needs no broker."),
    ] = "queue",
    has_windows: Annotated[
        bool, typer.Option("--windows", help="Add up messages in windows of time, instead of storing them in batches.")
    ] = False,
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to make it. Default: a directory NAME in this one.")
    ] = None,
) -> None:
    """Make a project: a pipeline with its settings and tests, a README, and what its broker needs to run here.

    It works as it is: its tests pass, and it runs. Change it to what you
    need. Nothing that exists is overwritten.

    [bold]Examples[/]

      broadway new shop

      broadway new shop --source rabbitmq

      broadway new shop --source sqs --windows --directory services/shop
    """
    from broadway_py.cli.new_project.project import (  # noqa: PLC0415  # keeps --help fast
        next_steps,
        project_files,
        refuse_name,
        write_project,
    )
    from broadway_py.daemon.json_schema import settings_schema  # noqa: PLC0415  # the same

    folder = Path(name) if directory is None else directory
    with sentences():
        refuse_name(name)
        write_project(folder, project_files(name, source, has_windows=has_windows, schema=settings_schema()))
    typer.echo(f"{folder} is made. Its README says how to go on. In short:")
    for step in next_steps(folder, source):
        typer.echo(f"  {step}")
