"""The settings at one moment, with a mark of what the files hold that they name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from broadway_py.daemon.settings.settings import Settings
from broadway_py.text_files import content_of
from broadway_py.written import opened

__all__ = ["Resolved", "keeping", "name_of", "resolved"]

# A mark tells nothing about a secret to anybody who sees it: the key is that of this process.
_KEY: Final = os.urandom(32)
_UNREADABLE: Final = b""
_SUFFIX: Final = "_file"


@dataclass(frozen=True, slots=True)
class Resolved:
    """The settings, and marks for the contents of the files that they name."""

    settings: Settings
    #: By the name of a pipeline, then by file. Two marks are equal if the contents are.
    marks: Mapping[str, Mapping[str, bytes]]


def resolved(settings: Settings) -> Resolved:
    """Returns *settings* with the marks of the files that their pipelines name. Blocks while it reads them."""
    return Resolved(
        settings,
        {
            name_of(key, section): {file: _mark(file) for file in _files_named_in(section)}
            for key, section in settings.pipelines.items()
        },
    )


def keeping(before: Resolved, after: Resolved, names: Collection[str]) -> Resolved:
    """Returns *after*, but the pipelines *names* as they are in *before*. Those that are not there are left out."""
    old = {name_of(key, section): section for key, section in before.settings.pipelines.items()}
    sections: dict[str, Mapping[str, Any]] = {}
    marks: dict[str, Mapping[str, bytes]] = {}
    for key, section in after.settings.pipelines.items():
        name = name_of(key, section)
        if name not in names:
            sections[key], marks[name] = section, after.marks[name]
        elif name in old:
            sections[key], marks[name] = {**old[name], "name": name}, before.marks[name]
    return Resolved(replace(after.settings, pipelines=sections), marks)


def name_of(key: str, section: Mapping[str, Any]) -> str:
    """Returns the name of the pipeline with this key and section, as :func:`build_pipelines` does."""
    return str(section.get("name", key))


def _files_named_in(section: Any) -> Iterator[str]:
    """Yields the values of the settings ``…_file`` in *section*: files with secrets."""
    waiting, seen = [section], set[int]()
    while waiting:
        value = opened(waiting.pop())
        if not isinstance(value, Mapping | list) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, list):
            waiting += value
            continue
        for name, inner in value.items():
            if isinstance(inner, str) and str(name).endswith(_SUFFIX):
                yield str(inner)
            else:
                waiting.append(inner)


def _mark(file: str) -> bytes:
    try:
        return hashlib.blake2b(content_of(file), key=_KEY).digest()
    except ValueError:
        return _UNREADABLE  # whoever uses the file says what is wrong with it
