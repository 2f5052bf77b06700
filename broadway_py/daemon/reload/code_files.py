"""Notices that the code of loaded modules has changed since it was loaded."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["CodeFiles", "changed_code", "loaded_code"]

#: By the name of a file: when it was changed last, in nanoseconds, and its size. None: it cannot be looked at.
CodeFiles = Mapping[str, tuple[int, int] | None]

_SKIPPED: Final = frozenset({"site-packages", "dist-packages"})


def loaded_code() -> dict[str, tuple[int, int] | None]:
    """Returns the files of the modules that are loaded, without the standard library and installed packages."""
    files = {_file_of(module) for module in list(sys.modules.values())}
    places = _library_places()
    return _looked_at(file for file in files if file is not None and not _is_installed(file, places))


def changed_code(noted: CodeFiles) -> list[str]:
    """Returns the files of *noted* that are not as they were then."""
    return sorted(file for file, now in _looked_at(noted).items() if now != noted[file])


def _looked_at(files: Iterable[str]) -> dict[str, tuple[int, int] | None]:
    return {file: _look(file) for file in files}


def _look(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116  # very many files, and nothing else is done with them
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size


def _file_of(module: object) -> str | None:
    # Libraries put other objects in the place of modules. Asking these for an attribute may run code of theirs.
    try:
        file = vars(module).get("__file__")
    except TypeError:
        return None
    return file if isinstance(file, str) and "\0" not in file else None


def _library_places() -> tuple[str, ...]:
    paths = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(os.path.join(os.path.realpath(path), "") for path in paths if path)  # noqa: PTH118  # as above


def _is_installed(file: str, places: tuple[str, ...]) -> bool:
    real = os.path.realpath(file)
    return real.startswith(places) or not _SKIPPED.isdisjoint(Path(real).parts)
