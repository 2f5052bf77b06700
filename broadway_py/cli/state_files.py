"""Finds the files with the state of a pipeline: a single one, or one for each partition in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from broadway_py.storage.errors import StorageError

__all__ = ["StateFile", "state_files"]

_SUFFIX = ".db"


class StateFile(NamedTuple):
    """A file with window state."""

    path: str
    #: None: the pipeline has no partitions.
    partition: int | None

    @property
    def head(self) -> tuple[str, ...]:
        """The first cell of each table row about this file; none without partitions."""
        return () if self.partition is None else (str(self.partition),)

    @property
    def prefix(self) -> str:
        """The beginning of each line about this file."""
        return "" if self.partition is None else f"partition {self.partition}: "


def state_files(path: Path) -> list[StateFile]:
    """Returns the files at *path* in the order of their partitions. A path that is no folder is returned as it is.

    Raises:
        StorageError: it is a folder without such files, or it cannot be read.
    """
    if not path.is_dir():
        return [StateFile(str(path), None)]
    try:
        names = [one for one in path.iterdir() if one.suffix == _SUFFIX and one.stem.isascii() and one.stem.isdigit()]
    except OSError as error:
        raise StorageError(f"folder {path}: it cannot be read: {error.strerror}") from error
    if not names:
        raise StorageError(
            f"folder {path}: it has no file such as 0{_SUFFIX}: give the path in `state` of the pipeline"
        )
    return sorted((StateFile(str(one), int(one.stem)) for one in names), key=lambda one: (one.partition, one.path))
