"""What a shell completes besides commands, options and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import typer

from broadway_py.daemon.settings.files import read_file
from broadway_py.errors import OptionsError
from broadway_py.written import opened

__all__ = ["pipeline_names"]

_SUFFIXES: Final = (".yaml", ".yml", ".toml", ".json")


def pipeline_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Returns the names of the pipelines in the settings files that were typed before, for ``--pipeline``."""
    found: dict[str, None] = {}
    # Arguments are in ctx.args, because the option that is typed has no value yet.
    for file in _files([*ctx.params.values(), *ctx.args]):
        try:
            section = opened(read_file(file).data.get("pipelines"))
        except OptionsError:
            continue  # a shell that completes has nowhere to say what is wrong
        if isinstance(section, dict):
            found |= dict.fromkeys(str(name) for name in section)
    return [name for name in found if name.startswith(incomplete)]


def _files(given: object) -> Iterator[Path]:
    if isinstance(given, list | tuple):
        for one in given:
            yield from _files(one)
    elif isinstance(given, str | Path) and Path(given).suffix in _SUFFIXES:
        yield Path(given)
