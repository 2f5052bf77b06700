"""Ends a command with one sentence and an exit code."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

import typer

from broadway_py.daemon.logs import logs
from broadway_py.daemon.process.main_thread import ExitCode, bounded, leave
from broadway_py.error_text import clipped, text_of
from broadway_py.errors import BroadwayError, OptionsError

__all__ = ["INTERRUPTED", "fail", "sentences", "warn"]

#: The exit code that a shell shows for a program that Ctrl-C ended.
INTERRUPTED: Final = 130

# The most characters of a sentence; one about many settings is long.
_MOST_SAID: Final = 65_536


@contextmanager
def sentences() -> Iterator[None]:
    """Turns an OptionsError of the ``with`` block into one sentence for each problem and exit code 2."""
    try:
        yield
    except OptionsError as wrong:
        fail(wrong, ExitCode.USAGE)


def fail(error: BroadwayError | str, code: int) -> NoReturn:
    """Prints *error*, with the errors that were found at the same time, without credentials. Exits with *code*."""
    wrong = error.all() if isinstance(error, OptionsError) else [error]
    said = [_sentence(one) for one in wrong]
    logs.flush()
    done = threading.Event()

    def say() -> None:
        with suppress(OSError):  # nobody reads the output; the exit code is enough
            for one in said:
                typer.echo(one, err=True)
        done.set()

    bounded(say, 1.0)
    if not done.is_set():
        # Nobody reads standard error. A normal exit would wait for a reader when it closes the stream.
        leave(code, at_once=True)
    raise typer.Exit(code)


def warn(doubts: Iterable[BroadwayError]) -> None:
    """Prints *doubts* on standard error, without credentials. The command goes on."""
    for one in doubts:
        with suppress(OSError):  # nobody reads standard error
            typer.echo(_sentence(one), err=True)


def _sentence(error: BroadwayError | str) -> str:
    text = clipped(error, _MOST_SAID) if isinstance(error, str) else text_of(error, _MOST_SAID)
    return f"broadway: {logs.mask_credentials(text)}"
