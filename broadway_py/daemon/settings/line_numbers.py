"""Finds the line of each setting in a settings file."""

from __future__ import annotations

import tomllib
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from broadway_py.errors import OptionsError

__all__ = ["SettingPath", "json_lines", "toml_lines", "yaml_lines"]

SettingPath = tuple[str, ...]
Lines = dict[SettingPath, int]

#: For a TOML value of more lines than this, all settings inside get the number of its first line.
_LONGEST_VALUE: Final = 500
_MERGE: Final = "tag:yaml.org,2002:merge"


def yaml_lines(root: yaml.Node, file: Path) -> Lines:
    """Returns the line of each setting. A merged-in setting (``<<: *base``) has the line on which it is written.

    Raises:
        OptionsError: a key comes twice (YAML itself would keep the last one), or an alias contains itself.
    """
    walk = _Walk(file)
    lines = walk.lines(root, (), ())
    if walk.wrong:
        raise OptionsError.of(walk.wrong.values())
    return lines


def json_lines(text: str, file: Path) -> Lines:
    """Returns the line of each setting of valid JSON, or nothing where the lines cannot be found.

    JSON is YAML once its tabs are replaced, so it is read as YAML.

    Raises:
        OptionsError: a key comes twice.
    """
    loader = yaml.SafeLoader(text.replace("\t", " "))
    try:
        root = loader.get_single_node()
    except (yaml.YAMLError, RecursionError):
        return {}
    finally:
        loader.dispose()
    return {} if root is None else yaml_lines(root, file)


def toml_lines(text: str) -> Lines:
    """Returns the line of each setting of valid TOML. Settings inside a value have the value's first line."""
    lines: Lines = {}
    table: SettingPath = ()
    counts: dict[SettingPath, int] = {}
    for number, statement in _statements(text):
        found = tomllib.loads(statement)
        path = _table(statement, found, counts)
        if path is not None:
            table = path
            for length in range(1, len(path) + 1):
                lines.setdefault(path[:length], number)
        else:
            lines |= {(*table, *inner): number for inner in _paths(found)}
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yields the head of each table and each setting, with the number of its first line."""
    rows = text.split("\n")
    number = 0
    while number < len(rows):
        for length in range(1, min(_LONGEST_VALUE, len(rows) - number) + 1):
            statement = "\n".join(rows[number : number + length])
            try:
                tomllib.loads(statement)
            except tomllib.TOMLDecodeError:
                continue
            yield number + 1, statement
            number += length
            break
        else:
            return


def _table(statement: str, found: Mapping[str, Any], counts: dict[SettingPath, int]) -> SettingPath | None:
    """Returns the path of the table that *statement* begins, with indexes in lists, or None if it begins none."""
    if not statement.lstrip().startswith("["):
        return None
    names: list[str] = []
    level: Any = found
    while isinstance(level, Mapping) and level:
        ((name, level),) = level.items()
        names.append(name)
    path: SettingPath = ()
    for position, name in enumerate(names):
        path = (*path, name)
        if position == len(names) - 1 and isinstance(level, list):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, str(counts[path]))
    return path


def _paths(value: Any) -> Iterator[SettingPath]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (str(key),)
        yield from ((str(key), *inner) for inner in _paths(item))


class _Walk:
    def __init__(self, file: Path) -> None:
        self._file = file
        #: The errors about keys that were given before, by the line of the second key.
        self.wrong: dict[int, OptionsError] = {}

    def lines(self, node: yaml.Node, at: SettingPath, inside: tuple[int, ...]) -> Lines:
        if id(node) in inside:
            raise self._circle(node, at)
        found: Lines = {}
        inside = (*inside, id(node))
        if isinstance(node, yaml.MappingNode):
            for key, (line, value) in self._entries(node, at, inside).items():
                found[(*at, key)] = line
                found |= self.lines(value, (*at, key), inside)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                found[(*at, str(index))] = item.start_mark.line + 1
                found |= self.lines(item, (*at, str(index)), inside)
        return found

    def _circle(self, node: yaml.Node, at: SettingPath) -> OptionsError:
        place = f"{self._file}:{node.start_mark.line + 1}"
        return OptionsError((), f"{place}: {'.'.join(at)}: an alias (*name) that contains itself")

    def _entries(
        self, node: yaml.MappingNode, at: SettingPath, inside: tuple[int, ...]
    ) -> dict[str, tuple[int, yaml.Node]]:
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged.extend(value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node])
                continue
            key: Hashable = key_node.value
            name, line = str(key), key_node.start_mark.line + 1
            if name in own:
                self.wrong[line] = OptionsError(
                    (),
                    f"{self._file}:{line}: {'.'.join((*at, name))}: given twice in one file, first on line "
                    f"{own[name][0]}; keep one of the two, or give them different names",
                )
            else:
                own[name] = (line, value_node)
        for base in merged:
            if id(base) in inside:
                raise self._circle(base, at)
            if isinstance(base, yaml.MappingNode):
                for name, entry in self._entries(base, at, (*inside, id(base))).items():
                    own.setdefault(name, entry)
        return own
