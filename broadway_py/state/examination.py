"""Looks at the files of a pipeline's state before a start. Nothing is created or changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from broadway_py.examination import Finding
from broadway_py.state.lock import holder
from broadway_py.state.partitions import file_of
from broadway_py.state.place import refuse_place
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.storage.errors import StorageError
from broadway_py.storage.examination import examine_place, read_in

__all__ = ["examine_state"]


def examine_state(path: str, partitions: Sequence[int] | None) -> list[Finding]:
    """Returns what the state file at *path* is like; with *partitions*, their files in the directory *path*."""
    try:
        refuse_place(path, partitions)
    except StorageError as refused:
        return [Finding("wrong", str(refused), ("path",))]
    if partitions is not None and not Path(path).is_dir():
        return [Finding("right", f"state directory {path} is not there yet; the pipeline makes it")]
    files = [path] if partitions is None else [file_of(path, number) for number in partitions]
    return [finding for file in files for finding in _examined(file)]


def _examined(file: str) -> Iterator[Finding]:
    what = STATE_SCHEMA.what
    yield from examine_place(what, file)
    if (owner := holder(file)) is not None:
        yield Finding(
            "away", f"{what} {file}: {owner} has it; a pipeline that starts now stands by until it is free", ("path",)
        )
    if not Path(file).exists():
        yield Finding("right", f"{what} {file} is not there yet; the pipeline makes it")
        return
    try:
        version = read_in(file, STATE_SCHEMA, lambda _, version: version)
    except StorageError as unusable:
        yield Finding("wrong", str(unusable), ("path",))
    else:
        is_old = 0 < version < STATE_SCHEMA.version
        later = f", which becomes {STATE_SCHEMA.version} at the start" if is_old else ""
        yield Finding("right", f"{what} {file} is there: version {version}{later}")
