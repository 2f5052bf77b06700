"""The settings of a daemon: files, environment and ``--set`` are merged, checked once and frozen."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field

from broadway_py.daemon.settings.environment import expand, from_assignments, from_environment
from broadway_py.daemon.settings.files import Document, Origin, SettingPath, merge, read_file
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.options import Options, load
from broadway_py.written import opened

__all__ = ["Examined", "Http", "Log", "Settings", "Top", "examine", "news", "read_settings"]

O = TypeVar("O", bound=Options)  # noqa: E741  # the usual name would hide what it is


class Http(Options):
    """The address of the live page, the metrics and the health checks. ``http: null`` serves nothing."""

    #: The address to listen on. 0.0.0.0 means all addresses of this machine.
    host: str = "127.0.0.1"
    #: The port to listen on. 0 takes a free port and logs its number.
    port: Annotated[int, Field(ge=0, le=65535, strict=True)] = 8080
    #: The file that holds the token for control: one line of at least 16 characters. It is read at each request that
    #: changes something. null: control needs no token at a loopback host, and is refused at any other.
    token_file: str | None = None
    #: Whether the sources are asked every ten seconds how many messages they hold, for the page and the metrics.
    source_messages: Annotated[bool, Field(strict=True)] = True


class Log(Options):
    """The settings of the log, which goes to standard error."""

    #: The lowest level that is shown.
    level: Literal["debug", "info", "warning", "error"] = "info"
    #: "console" is for people, "json" is for machines. "auto" means console on a terminal and json elsewhere.
    format: Literal["auto", "json", "console"] = "auto"
    #: "type" shows the type of an error and its places in the code. "text" also shows the error's text, which often
    #: quotes the message. Use it for development.
    errors: Literal["type", "text"] = "type"


class Top(Options):
    """The settings outside of every section."""

    #: How many processes run the pipelines. Rate limits are divided among them. A reload may change it, but not from 1
    #: or to 1.
    workers: Annotated[int, Field(ge=1, le=1024, strict=True)] = 1


SECTIONS: Final = ("http", "log", "pipelines", "workers")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a daemon. They can be pickled: each worker gets all of them."""

    #: One section per pipeline. The sections are not checked here, because only the pipeline class knows its settings.
    pipelines: Mapping[str, Mapping[str, Any]]
    workers: int
    http: Http | None
    log: Log
    #: Where each setting was given.
    origins: Mapping[SettingPath, Origin]

    def choose_pipeline(self, name: str | None) -> str:
        """Returns *name*, the value of ``--pipeline``, or the only pipeline if it is None.

        Raises:
            OptionsError: there is no such pipeline, or there are several and *name* is None.
        """
        known = list(self.pipelines)
        if name is None and len(known) == 1:
            return known[0]
        if name is None:
            raise OptionsError(
                (), f"--pipeline is needed, because the settings have several pipelines: {', '.join(known)}"
            )
        if name not in self.pipelines:
            raise OptionsError(
                (), f"--pipeline {name}: no such pipeline; known here: {', '.join(known)}{did_you_mean(name, known)}"
            )
        return name

    def located(self, wrong: OptionsError) -> OptionsError:
        """Returns *wrong* with its place in front: the file and line, environment variable or ``--set``."""
        return OptionsError.of(_placed(self.origins, one) for one in wrong.all())


@dataclass(frozen=True, slots=True)
class Examined:
    """The settings that could be read, and everything that is wrong with them."""

    settings: Settings
    wrong: Sequence[OptionsError]
    #: The paths of the settings that are wrong. Nothing more is reported about them.
    told: frozenset[SettingPath]


def read_settings(
    files: Sequence[Path], *, assignments: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Settings:
    """Merges *files* in their order, then the environment, then *assignments*, and checks the result.

    Raises:
        OptionsError: something is wrong. Each problem is one sentence that says what and where.
    """
    examined = examine(files, assignments=assignments, environ=environ)
    if examined.wrong:
        raise OptionsError.of(examined.wrong)
    return examined.settings


def examine(
    files: Sequence[Path], *, assignments: Sequence[str] = (), environ: Mapping[str, str] | None = None
) -> Examined:
    """Does the same as :func:`read_settings`, but returns the problems with the settings that could be read."""
    environ = os.environ if environ is None else environ
    wrong: list[OptionsError] = []
    document = Document()
    for file in files:
        try:
            document = merge(document, read_file(file))
        except OptionsError as refused:
            wrong += refused.all()
    if wrong:
        # Without this file the other sources can mean something else, so they are not examined.
        return Examined(Settings({}, 1, None, Log(), {}), wrong, frozenset())
    variables = from_environment(environ, document.data, tuple(s for s in SECTIONS if s != "workers"), wrong)
    overrides = merge(variables, from_assignments(tuple(assignments), document.data, wrong))
    expand(document, environ, set(overrides.origins), wrong)
    document = merge(document, overrides)
    told = frozenset(one.path for one in wrong if one.path)
    settings = _checked(document, wrong, told)
    told = frozenset(one.path for one in wrong if one.path)
    return Examined(settings, [_placed(document.origins, one) for one in wrong], told)


def news(found: Iterable[OptionsError], told: Collection[SettingPath]) -> list[OptionsError]:
    """Returns the errors of *found* where neither the setting nor a section around it is in *told*."""
    return [one for one in found if not any(one.path[:length] in told for length in range(1, len(one.path) + 1))]


def _placed(origins: Mapping[SettingPath, Origin], wrong: OptionsError) -> OptionsError:
    origin = Document({}, dict(origins)).origin(wrong.path)
    return wrong if origin is None else OptionsError((), f"{origin.place}: {wrong}")


def _checked(document: Document, wrong: list[OptionsError], told: Collection[SettingPath]) -> Settings:
    """Returns the settings of *document*. A wrong setting gets its default, and its error is added to *wrong*."""
    data = document.data
    known = ", ".join(SECTIONS)
    wrong += [
        OptionsError((str(key),), f"unknown setting; known here: {known}{did_you_mean(str(key), SECTIONS)}")
        for key in data
        if key not in SECTIONS
    ]

    def loaded(model: type[O], raw: object, path: SettingPath = ()) -> O:
        try:
            return load(model, raw, path)
        except OptionsError as refused:
            wrong.extend(news(refused.all(), told))
            return model()

    http, log = opened(data.get("http", {})), opened(data.get("log"))
    return Settings(
        pipelines=_pipelines(opened(data.get("pipelines")), wrong, told),
        workers=loaded(Top, {"workers": data["workers"]} if "workers" in data else {}).workers,
        http=None if http is None else loaded(Http, http, ("http",)),
        log=loaded(Log, {} if log is None else log, ("log",)),
        origins=document.origins,
    )


def _pipelines(
    section: object, wrong: list[OptionsError], told: Collection[SettingPath]
) -> dict[str, Mapping[str, Any]]:
    complaints: list[OptionsError] = []
    found: dict[str, Mapping[str, Any]] = {}
    if not isinstance(section, Mapping):
        came = "nothing" if section is None else type(section).__name__
        complaints.append(
            OptionsError(
                ("pipelines",),
                f"expected at least one pipeline, such as 'orders: {{class: orders:Orders}}', got {came}",
            )
        )
    else:
        for name, said in section.items():
            value = opened(said)
            if isinstance(value, Mapping):
                found[str(name)] = value
            elif value is not None:
                complaints.append(
                    OptionsError(
                        ("pipelines", str(name)),
                        f"expected a section of settings with a class, got {type(value).__name__}",
                    )
                )
        if not found and not complaints:
            complaints.append(OptionsError(("pipelines",), "expected at least one pipeline, but all of them are null"))
    wrong.extend(news(complaints, told))
    return found
