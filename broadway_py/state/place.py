"""Tells before a start whether this machine has a place for window state. Nothing is created or locked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from broadway_py.state.lock import refuse_unlockable
from broadway_py.state.partitions import file_of, refuse_unmakeable
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.storage.errors import refuse_hopeless

__all__ = ["refuse_place"]


def refuse_place(path: str, partitions: Iterable[int] | None) -> None:
    """Refuses a path at which a store could not be opened, because of directories and permissions.

    Args:
        path: the file; with *partitions*, the directory.
        partitions: the partitions whose files would be opened; None: the sources have none.

    Raises:
        StorageError: what the start would say.
    """
    files = [path]
    if partitions is not None:
        refuse_unmakeable(path)
        # The files of a directory that is yet to be made can be made, too.
        files = [file_of(path, number) for number in partitions] if Path(path).is_dir() else []
    for file in files:
        refuse_hopeless(STATE_SCHEMA.what, file)
        refuse_unlockable(STATE_SCHEMA.what, file)
