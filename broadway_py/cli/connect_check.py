"""``broadway check --connect``: prints what was found out about the places of the pipelines."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from broadway_py.cli.endings import INTERRUPTED, fail, warn
from broadway_py.daemon.logs.logs import mask_credentials
from broadway_py.daemon.process.main_thread import ExitCode, leave
from broadway_py.errors import OptionsError

if TYPE_CHECKING:
    from broadway_py.daemon.connect_check.examine import Found
    from broadway_py.daemon.settings.settings import Settings
    from broadway_py.pipeline import Pipeline

__all__ = ["connect_and_tell"]

#: Seconds that the end of the examination may take.
_ENDING_S: Final = 1.0


def connect_and_tell(settings: Settings, built: Mapping[str, Pipeline[Any]], timeout: float, *, as_json: bool) -> None:
    """Examines the places of the pipelines *built*, and prints what was found out. Exits if something is not right."""
    from broadway_py.daemon.connect_check.examine import Examination  # noqa: PLC0415  # keeps --help fast
    from broadway_py.daemon.connect_check.places import places_of  # noqa: PLC0415  # keeps --help fast

    # What is wrong becomes a sentence. Libraries that log it, too, would write between these.
    logging.getLogger().addHandler(logging.NullHandler())
    examination = Examination(places_of(settings, built), timeout)
    try:
        found = examination.found()
    except KeyboardInterrupt:
        leave(INTERRUPTED, at_once=True)
    levels = {one.finding.level for one in found}
    code = ExitCode.USAGE if "wrong" in levels else ExitCode.CRASH if "away" in levels else ExitCode.CLEAN
    try:
        _tell(settings, found, code, as_json=as_json)
    finally:
        if not examination.has_ended(_ENDING_S):
            # A look-up of a host name goes on, and a normal exit would wait for it.
            leave(code, at_once=True)


def _tell(settings: Settings, found: Sequence[Found], code: int, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([_row(one) for one in found], indent=2, ensure_ascii=False))
        if code != ExitCode.CLEAN:
            raise typer.Exit(code)
        return
    for one in found:
        if one.finding.level == "right":
            typer.echo(mask_credentials(f"{'.'.join(one.path)}: {one.finding.text}"))
    warn(_located(settings, one) for one in found if one.finding.level == "note")
    refused = [_located(settings, one) for one in found if one.finding.level in ("wrong", "away")]
    if refused:
        fail(OptionsError.of(refused), code)


def _located(settings: Settings, one: Found) -> OptionsError:
    return settings.located(OptionsError(one.path, one.finding.text))


def _row(one: Found) -> dict[str, str]:
    text = mask_credentials(one.finding.text)
    return {"path": ".".join(one.path), "level": one.finding.level, "text": text}
