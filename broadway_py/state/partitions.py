"""The state of a pipeline whose sources have partitions: a directory with a file for each partition."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.storage.errors import StorageError
from broadway_py.storage.places import refusal_of_creating

__all__ = [
    "StatePartition",
    "claim",
    "file_of",
    "new_beside_others",
    "prepare",
    "refuse_another_number",
    "refuse_unmakeable",
]

_FILE: Final = re.compile(r"(\d+)\.db", re.ASCII)
#: Seconds to wait for a process that has a neighbouring file locked.
_PATIENCE: Final = 1.0


@dataclass(frozen=True, slots=True)
class StatePartition:
    """Which partition a file belongs to. A file never changes it."""

    number: int
    #: How many partitions there are.
    count: int


def file_of(directory: str, number: int) -> str:
    """Returns the path of the file of the partition *number*."""
    return str(Path(directory) / f"{number}.db")


def prepare(directory: str, count: int) -> None:
    """Makes the directory if it is missing, and compares the number of partitions with all files in it.

    Raises:
        StorageError: it is no directory and cannot become one, or it has files for another number of partitions.
    """
    try:
        Path(directory).mkdir(exist_ok=True)
    except OSError as error:
        raise _unusable(directory, error) from error
    refuse_another_number(directory, count)


def refuse_unmakeable(directory: str) -> None:
    """Refuses a directory that is missing and that :func:`prepare` could not make. Nothing is made.

    Raises:
        StorageError: what :func:`prepare` would say.
    """
    place = Path(directory)
    error: OSError | None
    try:
        if place.is_dir():
            return
        # A link that leads nowhere is there, too.
        error = FileExistsError() if os.path.lexists(place) else refusal_of_creating(directory)
    except OSError as refused:  # not even its name can be looked up
        error = refused
    if error is not None:
        raise _unusable(directory, error)


def refuse_another_number(directory: str, count: int) -> None:
    """Compares the number of partitions with all files in the directory, and changes nothing.

    The owner of a partition that is new would else begin with an empty file, beside those of another number.

    Raises:
        StorageError: it has files for another number of partitions, or cannot be read.
    """
    try:
        files = _files(directory)
    except OSError as error:
        raise _unusable(directory, error) from error
    for number, path in sorted(files.items()):
        known = _partition_in(path)
        if known is not None and known.count != count:
            raise StorageError(_of_another_number(str(path), known.count, count))
        if known is None and number >= count and path.stat().st_size:
            raise StorageError(
                f"state directory {directory}: it has the file {path.name}, and the sources have only {count} "
                "partitions: choose another directory"
            )


def new_beside_others(directory: str, owned: Collection[int]) -> str | None:
    """Returns a sentence if files of *owned* partitions are missing, although others have windows here; else None.

    At the first start all are missing. A file in which nothing was ever stored counts as none.
    """
    new = [number for number in owned if not Path(file_of(directory, number)).exists()]
    if not new:
        return None
    try:
        there = sorted(number for number, path in _files(directory).items() if number not in new and _is_used(path))
    except OSError:  # the opening of the files says so
        return None
    if not there:
        return None
    return (
        f"state directory {directory}: it has {_names(there)}, but not {_names(new)}, which will be new: where such a "
        "partition was read before, its open windows lie on another machine or in a file that was moved, and results "
        "of both have the same ids: stop the pipeline and put that file here"
    )


def _names(partitions: Iterable[int]) -> str:
    return ", ".join(f"{number}.db" for number in partitions)


def _files(directory: str) -> dict[int, Path]:
    """Returns the files of all partitions that the directory has."""
    return {int(match[1]): path for path in Path(directory).iterdir() if (match := _FILE.fullmatch(path.name))}


def _is_used(path: Path) -> bool:
    """Returns whether a checkpoint was ever stored in the file."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_to_read(path)) as connection:
        return connection.execute("SELECT 1 FROM aggregators WHERE number > 0").fetchone() is not None
    return False


def _unusable(directory: str, error: OSError) -> StorageError:
    if isinstance(error, FileNotFoundError):
        problem = f"its directory {Path(directory).parent} does not exist: create it"
    elif isinstance(error, FileExistsError):
        problem = "this is a file, and a directory with a file for each partition is needed: move it away"
    else:
        problem = f"it cannot be used ({error.strerror}): give this user the permission to write there"
    return StorageError(f"state directory {directory}: {problem}, or choose another path")


def claim(connection: sqlite3.Connection, what: str, partition: StatePartition | None) -> None:
    """Compares *partition* with the file, inside a transaction. A file that nobody has used gets it.

    Raises:
        StorageError: the file belongs to something else. Nothing must be committed.
    """
    known = _noted(connection)
    if partition is None:
        if known is None:
            return
        raise StorageError(
            f"{what}: it belongs to partition {known.number} of {known.count}, and the sources have no partitions: "
            f"set partitions: {known.count} on the source, with the directory of the file as state, or choose another "
            "path"
        )
    if known is None:
        (aggregators,) = connection.execute("SELECT count(*) FROM aggregators").fetchone()
        if aggregators:
            raise StorageError(
                f"{what}: it was made without partitions, and is to be that of partition {partition.number} of "
                f"{partition.count}: choose another directory"
            )
        connection.execute(
            "INSERT INTO source_partition (number, partitions) VALUES (?, ?)", (partition.number, partition.count)
        )
    elif known.count != partition.count:
        raise StorageError(f"{what}: {_differs(known.count, partition.count)}")
    elif known.number != partition.number:
        raise StorageError(
            f"{what}: it belongs to partition {known.number}, and not to {partition.number}: give the files of the "
            "directory the names back that they had"
        )


def _of_another_number(path: str, former: int, count: int) -> str:
    return f"{STATE_SCHEMA.what} {path}: {_differs(former, count)}"


def _differs(former: int, count: int) -> str:
    return (
        f"it belongs to one of {former} partitions, and the sources have {count}, so that its keys may lie in others "
        f"now: let its windows close with partitions: {former}, and then choose another directory"
    )


def _partition_in(path: Path) -> StatePartition | None:
    """Returns what the file says of itself; None: nothing, because it is new, without partitions, or damaged."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_to_read(path)) as connection:
        return _noted(connection)
    return None  # its owner tells what is wrong with it


def _to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE)


def _noted(connection: sqlite3.Connection) -> StatePartition | None:
    row = connection.execute("SELECT number, partitions FROM source_partition").fetchone()
    return None if row is None else StatePartition(*row)
