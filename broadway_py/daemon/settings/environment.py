"""Reads settings from the environment: variables ``BROADWAY_<SECTION>__<FIELD>``, and ``${VAR}`` inside files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from broadway_py.daemon.settings.files import Document, Origin, SettingPath
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.text_files import without_end
from broadway_py.written import Written, opened

__all__ = ["assign", "expand", "from_assignments", "from_environment"]

_PREFIX: Final = "BROADWAY_"
_VARIABLE: Final = re.compile(
    r"\$(?P<escaped>\$\{)|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<odd>))"
)
_NULLS: Final = frozenset({"null", "~"})


def from_environment(
    environ: Mapping[str, str], files: Mapping[str, Any], sections: tuple[str, ...], wrong: list[OptionsError]
) -> Document:
    """Returns the settings in *environ*, which win over those of *files*. The case of names does not matter.

    Only names with ``__`` count. Other ``BROADWAY_…`` names belong to other programs. A name of this form that matches
    no setting is added to *wrong*.
    """
    found = Document()
    for name in sorted(environ):
        if not name.upper().startswith(_PREFIX) or "__" not in name[len(_PREFIX) :]:
            continue
        try:
            path = _path_of(name, files, sections)
            value = _value_of(name, environ, (f"environment variable {name}",))
        except OptionsError as refused:
            wrong.append(refused)
        else:
            assign(found, path, Written(value), Origin(f"environment variable {name}"))
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
    """Returns the key of the files that *word* means.

    Shells allow no dash, dot or blank in a name, so ``_`` stands for them. The case does not matter.
    """
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


def _value_of(name: str, environ: Mapping[str, str], where: SettingPath) -> str:
    value = environ[name]
    try:
        value.encode()
    except UnicodeEncodeError:
        # Python could not decode it in the encoding of the locale. The locale "C", for example, has only ASCII.
        try:
            value = os.fsencode(value).decode()
        except UnicodeError:
            raise OptionsError(
                where, f"expected UTF-8 text, but the environment variable {name} has bytes that are not UTF-8"
            ) from None
    return without_end(value)


def from_assignments(assignments: tuple[str, ...], files: Mapping[str, Any], wrong: list[OptionsError]) -> Document:
    """Returns the settings of ``--set path=value``. An assignment that does not have this form is added to *wrong*."""
    found = Document()
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals or not all(path.split(".")):
            wrong.append(
                OptionsError(
                    (), f"--set {path}: expected path=value, such as pipelines.orders.processors.concurrency=20"
                )
            )
            continue
        assign(found, _dotted(path, files), Written(without_end(value)), Origin(f"--set {path}"))
    return found


def _dotted(path: str, files: Mapping[str, Any]) -> SettingPath:
    """Splits *path* at its dots, except inside a name that has dots in the files."""
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
    """Sets *path* in *document*. If *value* is a mapping, it is merged when the document is merged."""
    level = document.data
    for part in path[:-1]:
        inner = opened(level.get(part))
        level[part] = inner = inner if isinstance(inner, dict) else {}
        level = inner
    level[path[-1]] = value
    document.origins[path] = origin


def expand(
    document: Document, environ: Mapping[str, str], overridden: set[SettingPath], wrong: list[OptionsError]
) -> None:
    """Replaces ``${VAR}`` and ``${VAR:-default}`` in every string of *document*. ``$${`` stands for ``${``.

    The result is :class:`~broadway_py.written.Written`: the field decides its type. Paths in *overridden* are left
    alone: their values are not used, so their variables need not be set. A variable that is not set and has no default
    is added to *wrong*.
    """
    document.data = _Expansion(document, environ, overridden, wrong).of(document.data, ())


class _Expansion:
    def __init__(
        self, document: Document, environ: Mapping[str, str], overridden: set[SettingPath], wrong: list[OptionsError]
    ) -> None:
        self._document = document
        self._environ = environ
        self._overridden = overridden
        self._wrong = wrong

    def of(self, value: Any, at: SettingPath) -> Any:
        if at in self._overridden:
            return value
        if isinstance(value, dict):
            return {key: self.of(item, (*at, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.of(item, (*at, str(i))) for i, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            return self._replaced(value, at)
        except OptionsError as refused:
            self._wrong.append(refused)
            # The value is not known, so any other error about it would be wrong.
            return Written("")

    def _replaced(self, value: str, at: SettingPath) -> Any:
        used: list[str] = []

        def substitute(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "${"
            if match["odd"] is not None:
                raise OptionsError(at, "expected ${NAME} or ${NAME:-default} where ${ stands; write $${ for ${ itself")
            name, default = match["name"], match["default"]
            # As in a shell, the default of ":-" also replaces a variable that is set to the empty text.
            if name in self._environ and (default is None or self._environ[name]):
                used.append(name)
                return _value_of(name, self._environ, at)
            if default is None:
                raise OptionsError(
                    at, f"the environment variable {name} is not set; set it, or write ${{{name}:-default}} in the file"
                )
            if "${" in default:
                raise OptionsError(at, f"the default of ${{{name}:-…}} contains another ${{; expected plain text")
            return default

        text = _VARIABLE.sub(substitute, value)
        is_plain = isinstance(value, Written) and _VARIABLE.fullmatch(value) is not None
        if used:
            origin = self._document.origin(at)
            place = "" if origin is None else f"{origin.place}, "
            which = "variable" if len(used) == 1 else "variables"
            self._document.origins[at] = Origin(f"{place}environment {which} {', '.join(used)}")
        elif is_plain and text in _NULLS:
            return None  # the default is written in the file, where these words mean null
        return Written(text, plain=is_plain)
