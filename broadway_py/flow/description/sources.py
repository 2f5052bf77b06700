"""Checks what a flow takes its elements from."""

from __future__ import annotations

import codecs
import glob
from collections.abc import AsyncIterable, Iterable
from inspect import isfunction
from io import IOBase
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final, cast

from broadway_py.errors import DefinitionError, OptionsError
from broadway_py.flow.description.checks import whole_number
from broadway_py.flow.description.layers import FromFiles, FromIterable, FromStage, Layer
from broadway_py.foreign import article, shown
from broadway_py.stage.emitting import EmittingStage

__all__ = ["RANGE_BYTES", "Paths", "files", "iterable", "iterables", "running_stages"]

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]

#: The most bytes of a file that a stage reads at a time: some milliseconds of work, which no other stage waits for.
RANGE_BYTES: Final = 1_048_576


def iterable(where: str, items: object) -> FromIterable:
    """Returns the source of the elements of *items*.

    Raises:
        DefinitionError: it cannot be iterated.
    """
    if not isinstance(items, Iterable | AsyncIterable):
        hint = f"; write {items.__name__}()" if isfunction(items) and items.__name__.isidentifier() else ""
        raise DefinitionError(f"{where}: expected an iterable or async iterable, got {article(items)}{hint}")
    return FromIterable(items)


def iterables(where: str, several: object) -> tuple[FromIterable, ...]:
    """Returns a source for each of *several* iterables.

    Raises:
        DefinitionError: there is none, or one of them cannot be iterated.
    """
    if not isinstance(several, Iterable):
        raise DefinitionError(f"{where}: expected a list of iterables, got {article(several)}")
    found = tuple(iterable(f"{where}, source {number}", items) for number, items in enumerate(several))
    if not found:
        raise DefinitionError(f"{where}: expected at least one iterable, got none")
    return found


def running_stages(where: str, stages: object, *kinds: type[Any], fed_by: Layer | None = None) -> tuple[FromStage, ...]:
    """Returns a source for each of *stages*, which must be of all *kinds*.

    Raises:
        DefinitionError: there is none, or one of them is not of these kinds.
    """
    if not isinstance(stages, Iterable):
        raise DefinitionError(f"{where}: expected a list of stages, got {article(stages)}")
    found = tuple(stages)
    for stage in found:
        for kind in kinds:
            if not isinstance(stage, kind):
                does = "emit" if kind is EmittingStage else "take"
                raise DefinitionError(f"{where}: expected stages that {does} events, got {article(stage)}")
    if not found:
        raise DefinitionError(f"{where}: expected at least one stage, got none")
    return tuple(FromStage(stage, fed_by) for stage in found)


def files(where: str, paths: object, encoding: object, range_bytes: object) -> FromFiles:
    """Returns the source of the lines of files. In a path, ``*``, ``?``, ``[…]`` and ``**`` stand for several files.

    Raises:
        OptionsError: there is no such file, or no such encoding.
        DefinitionError: there is no path.
    """
    is_one = isinstance(paths, str | bytes | PathLike | IOBase) or not isinstance(paths, Iterable)
    given = [paths] if is_one else list(cast("Iterable[object]", paths))
    found = [name for each in given for name in _matches(where, each)]
    if not found:
        raise DefinitionError(f"{where}: expected at least one path, got none")
    return FromFiles(tuple(found), _encoding(where, encoding), whole_number(where, "range_bytes", range_bytes))


def _matches(where: str, path: object) -> list[str]:
    name = fspath(path) if isinstance(path, str | PathLike) else None
    if not isinstance(name, str):
        hint = "; write Flow.from_iterable(file)" if isinstance(path, IOBase) else ""
        raise OptionsError((where, "paths"), f"expected a path or a list of paths, got {article(path)}{hint}")
    if glob.has_magic(name) and not Path(name).exists():
        found = sorted(each for each in glob.glob(name, recursive=True) if not Path(each).is_dir())  # noqa: PTH207
        if not found:
            raise OptionsError((where, "paths"), f"no file matches {name!r}")
        return found
    if Path(name).is_dir():
        raise OptionsError((where, "paths"), f"{name!r} is a directory; write {str(Path(name) / '*')!r}")
    if not Path(name).exists():
        raise OptionsError((where, "paths"), f"there is no file {name!r}")
    return [name]


def _encoding(where: str, name: object) -> str:
    try:
        found = codecs.lookup(name) if isinstance(name, str) else None
    except (LookupError, ValueError):
        found = None
    # Codecs such as "hex" are no encodings of text; only this attribute, which is not documented, tells.
    if found is None or not found._is_text_encoding:
        raise OptionsError(
            (where, "encoding"), f"expected the name of a text encoding such as 'utf-8', got {shown(name)}"
        )
    return found.name
