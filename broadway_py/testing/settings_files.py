"""Finds a pipeline in settings files, as the daemon does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from broadway_py.daemon.pipelines.loader import pipeline_parts
from broadway_py.daemon.settings.settings import read_settings
from broadway_py.errors import BroadwayError, OptionsError, did_you_mean
from broadway_py.pipeline import Pipeline

__all__ = ["parts_of_files"]


def parts_of_files(
    files: Sequence[Path], name: str | None, environ: Mapping[str, str]
) -> tuple[type[Pipeline[Any]], dict[str, Any]]:
    """Returns the class of a pipeline, and the arguments that the files give its constructor.

    Args:
        files: the settings files, merged in their order.
        name: the name of the pipeline. None: the files have only one.
        environ: the environment variables that the settings see.

    Raises:
        OptionsError: something is wrong with the settings. The text names file and line.
        BroadwayError: there is no such pipeline, or there are several and *name* is None.
    """
    try:
        settings = read_settings(files, environ=environ)
    except OptionsError as error:
        if "environment variable" in str(error):
            error.add_note("a harness sees only the variables that it is given: environ={…}")
        raise
    known = list(settings.pipelines)
    if name is None and len(known) > 1:
        raise BroadwayError(f"from_settings: expected pipeline= with one of {', '.join(known)}, got none")
    key = known[0] if name is None else name
    if key not in known:
        raise BroadwayError(
            f"from_settings: there is no pipeline {key!r}; known: {', '.join(known)}{did_you_mean(key, known)}"
        )
    return pipeline_parts(settings, key)
