"""Prints the figures of a daemon once, as text or as JSON."""

from __future__ import annotations

import json
import time
from typing import Final

import typer

from broadway_py.cli import streams
from broadway_py.cli.endings import fail
from broadway_py.cli.http_client import DaemonClient, DaemonError
from broadway_py.cli.top import figures
from broadway_py.cli.top.page import Shown, plain
from broadway_py.cli.top.poller import ask, ask_workers, known_form
from broadway_py.daemon.process.main_thread import ExitCode

__all__ = ["print_once"]

#: Seconds between the two looks that a rate needs.
_BETWEEN_S: Final = 1.0


def print_once(client: DaemonClient, *, as_json: bool) -> None:
    """Prints the figures of one second. Ends the command with a sentence if the daemon does not answer."""
    history = figures.History()
    try:
        first = ask(client)
        time.sleep(_BETWEEN_S)
        answer = ask(client)
        workers = () if as_json else ask_workers(client)
        with known_form(client):
            history.add(first)
            history.add(answer)
            found = history.figures()
            shown = Shown(client.url, found, workers, answer.version, age_s=0.0, has_keys=False)
            lines = [json.dumps(figures.as_json(one)) for one in found] if as_json else plain(shown)
    except DaemonError as failed:
        fail(failed, ExitCode.CRASH)
    if lines:
        typer.echo(streams.drawable("\n".join(lines)))
