"""The settings of a daemon: files, environment and ``--set`` merged, checked once, and frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from broadway_py.daemon.environment import expand, from_assignments, from_environment
from broadway_py.daemon.files import Document, Origin, SettingPath, merge, read_file
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.options import Options, load

__all__ = ["Http", "Log", "Settings", "Top", "read_settings"]


class Http(Options):
    """Where the live page, the metrics and the health checks are served. ``http: null`` serves nothing."""

    #: The address to listen on; 0.0.0.0 for all of this machine's.
    host: str = "127.0.0.1"
    #: The port to listen on; 0 takes a free one and logs which.
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = 8080


class Log(Options):
    """What is logged, to standard error."""

    #: The least severe level that is shown.
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: "console" for people, "json" for machines; "auto": console on a terminal, else json.
    format: Literal["auto", "json", "console"] = "auto"
    #: "type": of an error its type and the places in the code; "text": also what it says, which often quotes the
    #: message. For development.
    errors: Literal["type", "text"] = "type"


class Top(Options):
    """What stands outside of every section."""

    #: How many processes run the pipelines; rate limits are divided among them.
    workers: Annotated[int, Field(ge=1, le=1024, strict=True)] = 1


SECTIONS: Final = ("http", "log", "pipelines", "workers")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a daemon was told. Picklable: workers get it whole."""

    #: One section per pipeline, not yet checked: only its class knows what it takes.
    pipelines: Mapping[str, Mapping[str, Any]]
    workers: int
    http: Http | None
    log: Log
    #: Where each setting was given.
    origins: Mapping[SettingPath, Origin]

    def located(self, wrong: OptionsError) -> OptionsError:
        """*wrong* with the file and line, environment variable or ``--set`` that gave the setting before it."""
        for length in range(len(wrong.path), 0, -1):
            origin = self.origins.get(wrong.path[:length])
            if origin is not None:
                return OptionsError((), f"{origin.place}: {wrong}")
        return wrong


def read_settings(
    files: Sequence[Path], *, assignments: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Settings:
    """Merge *files* in their order, then the environment, then *assignments*, and check the result.

    Raises:
        OptionsError: something is wrong, in one sentence that says what and where.
    """
    environ = os.environ if environ is None else environ
    document = Document()
    for file in files:
        document = merge(document, read_file(file))
    variables = from_environment(environ, document.data, tuple(s for s in SECTIONS if s != "workers"))
    assigned = from_assignments(tuple(assignments), document.data)
    overrides = merge(variables, assigned)
    try:
        expand(document, environ, set(overrides.origins))
    except OptionsError as wrong:
        raise _placed(document, wrong) from None
    document = merge(document, overrides)
    try:
        return _checked(document)
    except OptionsError as wrong:
        raise _placed(document, wrong) from None


def _placed(document: Document, wrong: OptionsError) -> OptionsError:
    return Settings({}, 1, None, Log(), document.origins).located(wrong)


def _checked(document: Document) -> Settings:
    data = document.data
    for key in data:
        if key not in SECTIONS:
            raise OptionsError(
                (str(key),), f"unknown setting; known here: {', '.join(SECTIONS)}{did_you_mean(str(key), SECTIONS)}"
            )
    http = data.get("http", {})
    return Settings(
        pipelines=_pipelines(data.get("pipelines")),
        workers=load(Top, {"workers": data["workers"]} if "workers" in data else {}).workers,
        http=None if http is None else load(Http, http, ("http",)),
        log=load(Log, data.get("log") or {}, ("log",)),
        origins=document.origins,
    )


def _pipelines(section: object) -> dict[str, Mapping[str, Any]]:
    if not isinstance(section, Mapping):
        came = "nothing" if section is None else type(section).__name__
        raise OptionsError(
            ("pipelines",), f"expected at least one pipeline, such as 'orders: {{class: orders:Orders}}', got {came}"
        )
    found: dict[str, Mapping[str, Any]] = {}
    for name, value in section.items():
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise OptionsError(
                ("pipelines", str(name)), f"expected a section of settings with a class, got {type(value).__name__}"
            )
        found[str(name)] = value
    if not found:
        raise OptionsError(("pipelines",), "expected at least one pipeline, but all of them are null")
    return found
