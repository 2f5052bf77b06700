"""Settings files as plain data, together with the place each setting was written at."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from broadway_py.errors import OptionsError

__all__ = ["Document", "Origin", "SettingPath", "merge", "parse_value", "read_file"]

SettingPath = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting was given, for error messages; *plain*: written in YAML without quotes."""

    place: str
    plain: bool = False


@dataclass(slots=True)
class Document:
    """Settings as read, and where each of them came from."""

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[SettingPath, Origin] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: ``on`` and ``no`` are words, ``1:30`` and ``2024-01-01`` are text."""


_LOOSE_TAGS: Final = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _LOOSE_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^(?:[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)


def read_file(path: Path) -> Document:
    """Read a YAML, TOML or JSON file, told apart by its suffix (YAML when it is another one).

    Raises:
        OptionsError: the file cannot be read, is not well-formed, holds no settings, or gives a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as failed:
        raise OptionsError((), f"{path}: cannot be read: {failed.strerror or type(failed).__name__}") from None
    except UnicodeDecodeError as failed:
        raise OptionsError((), f"{path}: expected UTF-8 text, found another byte at offset {failed.start}") from None
    suffix = path.suffix.lower()
    if suffix == ".toml":
        return _from_toml(path, text)
    if suffix == ".json":
        return _from_json(path, text)
    return _from_yaml(path, text)


def parse_value(text: str) -> Any:
    """A value given as text (``--set``, an environment variable), typed as in a YAML file.

    What is no number, true, false, null, list or mapping stays exactly the text that it is: a password may hold
    ``#`` or ``: ``.
    """
    try:
        value = yaml.load(text, _Loader)  # noqa: S506  # _Loader is a SafeLoader
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "'\""
        return value if quoted else text
    if isinstance(value, Mapping) and not text.lstrip().startswith("{"):
        return text
    if isinstance(value, list) and not text.lstrip().startswith("["):
        return text
    return text if value is None and text.strip() not in {"null", "~"} else value


def merge(base: Document, over: Document) -> Document:
    """Both together; what *over* says wins, mappings field by field.

    A producer section of another ``kind`` replaces the whole section: the fields of one kind mean nothing to another.
    """
    return Document(_merged(base.data, over.data), {**base.origins, **over.origins})


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and not _other_kind(before, value):
            merged[key] = _merged(before, value)
        else:
            merged[key] = value
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


def _from_toml(path: Path, text: str) -> Document:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise OptionsError((), f"{path}: not valid TOML: {wrong}") from None
    return Document(data, _whole_file(path, data))


def _from_json(path: Path, text: str) -> Document:
    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        section: dict[str, Any] = {}
        for key, value in pairs:
            if key in section:
                raise OptionsError((), f"{path}: {key!r} is given twice in one section; keep one of the two")
            section[key] = value
        return section

    try:
        data = _section(path, json.loads(text, object_pairs_hook=refuse_twice))
    except json.JSONDecodeError as wrong:
        raise OptionsError((), f"{path}:{wrong.lineno}: not valid JSON: {wrong.msg}") from None
    return Document(data, _whole_file(path, data))


def _whole_file(path: Path, data: Mapping[str, Any], at: SettingPath = ()) -> dict[SettingPath, Origin]:
    origins: dict[SettingPath, Origin] = {}
    for key, value in data.items():
        origins[(*at, key)] = Origin(str(path))
        if isinstance(value, Mapping):
            origins |= _whole_file(path, value, (*at, key))
    return origins


def _from_yaml(path: Path, text: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document()
        origins = _YamlWalk(path).walk(root, (), ())
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        place = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        line = text.splitlines()[mark.line] if mark is not None and mark.line < len(text.splitlines()) else ""
        hint = "; put quotes around ${…} inside { } or [ ]" if "${" in line else ""
        raise OptionsError((), f"{place}: not valid YAML: {wrong.problem or wrong.context}{hint}") from None
    except yaml.YAMLError as wrong:
        raise OptionsError((), f"{path}: not valid YAML: {type(wrong).__name__}") from None
    finally:
        loader.dispose()
    return Document(_section(path, data), origins)


class _YamlWalk:
    """Notes the line of every key and refuses a key that comes twice: YAML itself would keep the last one."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def walk(self, node: yaml.Node, at: SettingPath, inside: tuple[int, ...]) -> dict[SettingPath, Origin]:
        if id(node) in inside:
            raise OptionsError(at, f"{self._place(node)}: an alias (*name) that contains itself")
        origins: dict[SettingPath, Origin] = {}
        if isinstance(node, yaml.MappingNode):
            for key, (line, value) in self._keys(node, at).items():
                plain = isinstance(value, yaml.ScalarNode) and value.style is None
                origins[(*at, key)] = Origin(f"{self._file}:{line}", plain)
                origins |= self.walk(value, (*at, key), (*inside, id(node)))
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                plain = isinstance(item, yaml.ScalarNode) and item.style is None
                origins[(*at, str(index))] = Origin(self._place(item), plain)
                origins |= self.walk(item, (*at, str(index)), (*inside, id(node)))
        return origins

    def _keys(self, node: yaml.MappingNode, at: SettingPath) -> dict[str, tuple[int, yaml.Node]]:
        found: dict[str, tuple[int, yaml.Node]] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key: Hashable = key_node.value
            name, line = str(key), key_node.start_mark.line + 1
            if name in found:
                raise OptionsError(
                    (),
                    f"{self._file}:{line}: {'.'.join((*at, name))}: given twice in one file, first on line "
                    f"{found[name][0]}; keep one of the two, or give them different names",
                )
            found[name] = (line, value_node)
        return found

    def _place(self, node: yaml.Node) -> str:
        return f"{self._file}:{node.start_mark.line + 1}"
