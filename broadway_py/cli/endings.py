"""How commands end: one sentence and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import typer

from broadway_py.daemon import logs
from broadway_py.daemon.watch import ExitCode
from broadway_py.errors import BroadwayError, OptionsError

__all__ = ["INTERRUPTED", "fail", "sentences"]

#: What a shell shows for a program that Ctrl-C ended.
INTERRUPTED: Final = 130


@contextmanager
def sentences() -> Iterator[None]:
    """What is wrong with the settings, as one sentence for each and exit code 2."""
    try:
        yield
    except OptionsError as wrong:
        fail(wrong, ExitCode.USAGE)


def fail(error: BroadwayError | str, code: int) -> NoReturn:
    """Say *error* and what else was wrong at the same time, without credentials, and leave with *code*."""
    with suppress(OSError):  # nobody reads it: the code still tells
        for one in error.all() if isinstance(error, OptionsError) else [error]:
            typer.echo(f"broadway: {logs.mask_credentials(str(one))}", err=True)
    raise typer.Exit(code)
