"""``broadway reload``: has a running daemon read its settings again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from broadway_py.cli.arguments import Assignments, Files
from broadway_py.cli.endings import fail, sentences
from broadway_py.daemon.process.main_thread import ExitCode
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.errors import OptionsError

__all__ = ["reload"]

# In seconds: how long an answer may take, and how often it is asked whether a long reload has ended.
_ANSWER: Final = 40.0
_EVERY: Final = 1.0


def reload(
    files: Files,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the daemon serves, if FILE does not say it.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The file with the token, if FILE does not name it.")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Have the running daemon of FILE read its settings again. Pipelines without a change run on.

    The daemon reads the files, variables and options that it was started
    with. FILE here says only where it serves. Exit code 0: it is done;
    2: the new settings are wrong, or need a restart, and nothing has changed;
    1: no daemon answers, or not everything could be done.

    [bold]Examples[/]

      broadway reload orders.yaml

      broadway reload orders.yaml --url http://10.0.0.7:8080 --token-file /run/secrets/token
    """
    from broadway_py.cli.http_client import (  # noqa: PLC0415  # keeps --help fast
        DaemonClient,
        DaemonError,
        address_of,
        read_token,
    )

    with sentences():
        token: str | None = None
        if url is None:
            settings = read_settings(files, assignments=assignments or [])
            try:
                url, token = address_of(settings)
            except OptionsError as wrong:
                raise settings.located(wrong) from None
        if token_file is not None:
            try:
                token = read_token(str(token_file))
            except OptionsError as wrong:
                raise wrong.under("--token-file") from None
        try:
            client = DaemonClient(url, token, timeout_s=_ANSWER)
        except OptionsError as wrong:
            raise wrong.under("--url") from None
    try:
        answer = client.post("/api/reload")
        while answer.get("running"):
            time.sleep(_EVERY)
            answer = client.get("/api/reload")
    except DaemonError as refused:
        told = refused.answer if isinstance(refused.answer, dict) else {}
        wrong_settings = told.get("refused")
        if wrong_settings:
            fail(OptionsError.of(OptionsError((), str(one)) for one in wrong_settings), ExitCode.USAGE)
        fail(refused, ExitCode.CRASH)
    _say(answer.get("last") or answer)


def _say(result: dict[str, Any]) -> None:
    if result.get("outcome") == "refused":
        fail("nothing was reloaded; the daemon's log says why", ExitCode.USAGE)
    if result.get("failed"):
        fail("; ".join(map(str, result["failed"])), ExitCode.CRASH)
    parts = [
        f"{what} {', '.join(map(str, names))}"
        for what, names in (
            ("changed", result.get("changed")),
            ("new", result.get("new")),
            ("gone", result.get("gone")),
            ("also changed:", result.get("others")),
        )
        if names
    ]
    typer.echo(f"reloaded: {'; '.join(parts) or 'nothing has changed'}")
    for note in result.get("notes", ()):
        typer.echo(f"broadway: {note}", err=True)
