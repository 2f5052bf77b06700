"""What the environment says: settings named ``BROADWAY_<SECTION>__<FIELD>``, and ``${VAR}`` inside files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from broadway_py.daemon.files import Document, Origin, SettingPath, parse_value
from broadway_py.errors import OptionsError, did_you_mean

__all__ = ["assign", "expand", "from_assignments", "from_environment"]

_PREFIX: Final = "BROADWAY_"
_VARIABLE: Final = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def from_environment(environ: Mapping[str, str], files: Mapping[str, Any], sections: tuple[str, ...]) -> Document:
    """The settings among *environ*, over those of *files*. Names are matched without regard to case.

    Only names with ``__`` count; other ``BROADWAY_…`` names belong to somebody else.

    Raises:
        OptionsError: a name of that form leads nowhere.
    """
    found = Document()
    for name in sorted(environ):
        if not name.upper().startswith(_PREFIX) or "__" not in name[len(_PREFIX) :]:
            continue
        path = _path_of(name, files, sections)
        assign(found, path, parse_value(environ[name]), Origin(f"environment variable {name}"))
    return found


def _path_of(name: str, files: Mapping[str, Any], sections: tuple[str, ...]) -> SettingPath:
    words = name[len(_PREFIX) :].split("__")
    if words[0].lower() not in sections:
        raise OptionsError(
            (),
            f"environment variable {name}: unknown section {words[0].lower()!r}; "
            f"known here: {', '.join(sections)}{did_you_mean(words[0].lower(), sections)}",
        )
    if not all(words):
        raise OptionsError(
            (), f"environment variable {name}: expected BROADWAY_<SECTION>__<FIELD>, found an empty name"
        )
    path: list[str] = []
    level: Any = files
    for word in words:
        keys = [str(key) for key in level] if isinstance(level, Mapping) else []
        path.append(_matching(name, word, keys, required=path == ["pipelines"]))
        level = level.get(path[-1]) if isinstance(level, Mapping) else None
    return tuple(path)


def _matching(name: str, word: str, keys: list[str], *, required: bool) -> str:
    """The key of the files that *word* means; shells take no dash, dot or blank in a name, so ``_`` stands for them."""
    same = [key for key in keys if _plain(key) == _plain(word)]
    if len(same) > 1:
        raise OptionsError(
            (), f"environment variable {name}: {word!r} may mean {' or '.join(map(repr, same))}; use --set"
        )
    if not same and required:
        raise OptionsError(
            (),
            f"environment variable {name}: no pipeline of this name in the files; "
            f"known here: {', '.join(sorted(keys)) or 'none'}{did_you_mean(word.lower(), keys)}",
        )
    return same[0] if same else word.lower()


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name).casefold()


def from_assignments(assignments: tuple[str, ...], files: Mapping[str, Any]) -> Document:
    """The settings of ``--set path=value``, the value typed as in a YAML file.

    Raises:
        OptionsError: one is not of this form.
    """
    found = Document()
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            raise OptionsError(
                (), f"--set {path}: expected path=value, such as pipelines.orders.processors.concurrency=20"
            )
        assign(found, _dotted(path, files), parse_value(value), Origin(f"--set {path}"))
    return found


def _dotted(path: str, files: Mapping[str, Any]) -> SettingPath:
    """Split at dots, except inside a name that the files have with dots."""
    words, found = path.split("."), list[str]()
    level: Any = files
    while words:
        known: Mapping[str, Any] = level if isinstance(level, Mapping) else {}
        lengths = [n for n in range(len(words), 0, -1) if ".".join(words[:n]) in known]
        taken = lengths[0] if lengths else 1
        key = ".".join(words[:taken])
        found.append(key)
        level, words = known.get(key, {}), words[taken:]
    return tuple(found)


def assign(document: Document, path: SettingPath, value: Any, origin: Origin) -> None:
    """Set *path* in *document*; a mapping as value is merged by whoever merges the document."""
    level = document.data
    for part in path[:-1]:
        inner = level.get(part)
        if not isinstance(inner, dict):
            inner = level[part] = {}
        level = inner
    level[path[-1]] = value
    document.origins[path] = origin


def expand(document: Document, environ: Mapping[str, str], overridden: set[SettingPath]) -> None:
    """Replace ``${VAR}`` and ``${VAR:-default}`` in every string of *document*; ``$${`` stands for ``${``.

    A string that is nothing but one unquoted ``${…}`` is typed afterwards as if the value stood in the file.
    Paths in *overridden* are left alone: what they say is not used, so their variables need not exist.

    Raises:
        OptionsError: a variable is not set and has no default.
    """
    document.data = _expanded(document.data, (), document, environ, overridden)


def _expanded(
    value: Any, at: SettingPath, document: Document, environ: Mapping[str, str], overridden: set[SettingPath]
) -> Any:
    if at in overridden:
        return value
    if isinstance(value, dict):
        return {key: _expanded(item, (*at, str(key)), document, environ, overridden) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, (*at, str(i)), document, environ, overridden) for i, item in enumerate(value)]
    if not isinstance(value, str) or "$" not in value:
        return value

    def substitute(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        name, default = match["name"], match["default"]
        # As in a shell, ":-" also stands in for a variable that is set to nothing.
        found = environ.get(name)
        if found or (found is not None and default is None):
            return found
        if default is None:
            raise OptionsError(
                at, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}} in the file"
            )
        return default

    whole = _VARIABLE.fullmatch(value)
    text = _VARIABLE.sub(substitute, value)
    origin = document.origins.get(at)
    return parse_value(text) if whole and origin is not None and origin.plain else text
