"""Reads settings files (YAML, TOML, JSON) as plain data and merges them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from broadway_py.daemon.settings.line_numbers import SettingPath, json_lines, toml_lines, yaml_lines
from broadway_py.errors import OptionsError
from broadway_py.text_files import NotText, decoded
from broadway_py.written import PlainYaml, Written, opened

__all__ = ["Document", "Origin", "SettingPath", "merge", "read_file"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The place where a setting was given, for error messages."""

    place: str


@dataclass(slots=True)
class Document:
    """The settings as read, and the place where each was given."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[SettingPath, Origin] = field(default_factory=dict)

    def origin(self, path: SettingPath) -> Origin | None:
        """Returns the place of the setting at *path*, or else that of the nearest section around it."""
        return next((self.origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.origins), None)


class _Loader(PlainYaml):
    """Marks each ``${…}`` without quotes. Its type is decided after it is replaced."""


def _text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    text = loader.construct_scalar(node)
    return Written(text) if node.style is None and "${" in text else text


_Loader.add_constructor("tag:yaml.org,2002:str", _text)


def read_file(path: Path) -> Document:
    """Reads a YAML, TOML or JSON file. The suffix decides which; any other suffix means YAML.

    Raises:
        OptionsError: the file cannot be read, is not well-formed, holds no settings, or gives a key twice.
    """
    try:
        text = decoded(path.read_bytes())
    except OSError as failed:
        raise OptionsError((), f"{path}: cannot be read: {failed.strerror or type(failed).__name__}") from None
    except NotText as wrong:
        raise OptionsError(
            (),
            f"{path}:{wrong.line}: expected {wrong.encoding} text, but the byte in column {wrong.column} is "
            f"not {wrong.encoding}; "
            "save the file as UTF-8",
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    read = {".toml": _from_toml, ".json": _from_json}.get(path.suffix.lower(), _from_yaml)
    try:
        data, lines = read(path, text)
    except OptionsError:
        raise
    except RecursionError:
        raise OptionsError((), f"{path}: cannot be read: its lists and sections are nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError):
        raise OptionsError(
            (), f"{path}: cannot be read: it has a number, a key or a tag without a meaning; put quotes around text"
        ) from None
    origins = {at: Origin(str(path)) for at in _paths(data)}
    return Document(data, origins | {at: Origin(f"{path}:{line}") for at, line in lines.items()})


def merge(base: Document, over: Document) -> Document:
    """Returns both documents merged. *over* wins, and mappings are merged field by field.

    A producer section of another ``kind`` replaces the whole section, because the fields of one kind mean nothing to
    another.
    """
    replaced: list[SettingPath] = []
    data = _merged(base.data, over.data, (), replaced)
    gone = set(replaced)
    kept = {
        path: origin
        for path, origin in base.origins.items()
        if not any(path[:length] in gone for length in range(1, len(path) + 1))
    }
    return Document(data, {**kept, **over.origins})


def _merged(
    base: Mapping[str, Any], over: Mapping[str, Any], at: SettingPath, replaced: list[SettingPath]
) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        before, path = opened(merged.get(key)), (*at, str(key))
        new = opened(value)
        if isinstance(before, Mapping) and isinstance(new, Mapping) and not _other_kind(before, new):
            merged[key] = _merged(before, new, path, replaced)
        else:
            merged[key] = value
            replaced.append(path)
    return merged


def _other_kind(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return "kind" in before and "kind" in after and before["kind"] != after["kind"]


def _section(path: Path, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise OptionsError((), f"{path}: expected a mapping of settings, got {_kind_of(value)}")
    return value


def _kind_of(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    return "text" if isinstance(value, str) else f"a single {type(value).__name__}"


def _paths(value: Any, at: SettingPath = ()) -> list[SettingPath]:
    found: list[SettingPath] = []
    for key, item in value.items() if isinstance(value, Mapping) else ():
        found += [(*at, str(key)), *_paths(item, (*at, str(key)))]
    return found


def _marked(value: Any) -> Any:
    """Returns *value* with each ``${…}`` marked as one without quotes, which TOML and JSON cannot write."""
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return Written(value) if isinstance(value, str) and "${" in value else value


def _from_toml(path: Path, text: str) -> tuple[dict[str, Any], dict[SettingPath, int]]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        said, _, place = str(wrong).rpartition(" (at ")
        line = re.match(r"line (\d+)", place)
        number = int(line[1]) if line else text.count("\n")
        raise OptionsError((), f"{path}:{number}: not valid TOML: {said}") from None
    return _marked(data), toml_lines(text)


def _from_json(path: Path, text: str) -> tuple[dict[str, Any], dict[SettingPath, int]]:
    twice: list[str] = []

    def note_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        section = dict(pairs)
        if len(section) < len(pairs):
            names = [name for name, _ in pairs]
            twice.extend(name for name in section if names.count(name) > 1)
        return section

    try:
        data = _section(path, json.loads(text, object_pairs_hook=note_twice))
    except json.JSONDecodeError as wrong:
        raise OptionsError((), f"{path}:{wrong.lineno}: not valid JSON: {wrong.msg}") from None
    lines = json_lines(text, path)
    if twice:
        raise OptionsError((), f"{path}: {twice[0]!r} is given twice in one section; keep one of the two")
    return _marked(data), lines


def _from_yaml(path: Path, text: str) -> tuple[dict[str, Any], dict[SettingPath, int]]:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as wrong:
        line = text.count("\n", 0, wrong.position) + 1
        raise OptionsError(
            (), f"{path}:{line}: not valid YAML: the character U+{wrong.character:04X} is not allowed"
        ) from None
    try:
        root = loader.get_single_node()
        if root is None:
            return {}, {}
        lines = yaml_lines(root, path)
        return _section(path, loader.construct_document(root)), lines
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        rows = text.split("\n")
        row = rows[mark.line] if mark is not None and mark.line < len(rows) else ""
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise OptionsError((), f"{place}: not valid YAML: {_yaml_trouble(wrong, row)}") from None
    finally:
        loader.dispose()


def _yaml_trouble(wrong: yaml.MarkedYAMLError, line: str) -> str:
    """Returns why YAML refuses *line*, without the text of the line: it may be a password that needs quotes."""
    problem = wrong.problem or wrong.context or "it cannot be understood"
    begins = re.match(r"found character ['\"](.|\\t)['\"] that cannot start any token", problem)
    if begins is not None and begins[1] in ("\t", "\\t"):
        return "a tab where only spaces are allowed; indent with spaces"
    if begins is not None:
        return f"text that begins with {begins[1]} needs quotes around it"
    if "alias" in problem:
        return "an alias (*name) that no anchor (&name) defines; text that begins with * needs quotes around it"
    if "tag" in problem:
        return "a tag (!name), which settings do not support; text that begins with ! needs quotes around it"
    if "duplicate anchor" in (wrong.context or ""):
        return "an anchor (&name) that is defined twice; text that begins with & needs quotes around it"
    hint = "; put quotes around ${…} inside { } or [ ]" if "${" in line else ""
    return problem + hint
