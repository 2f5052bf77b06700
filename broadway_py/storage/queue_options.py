"""The settings that say where a queue is. Its writers and its readers share them."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BeforeValidator, Field

from broadway_py.options import Options

__all__ = ["QueuePlace"]


def _path(value: object) -> object:
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise ValueError("expected the path of a file")
    path = os.fsdecode(value)
    if path == ":memory:":
        raise ValueError("expected the path of a file: a queue in memory could neither be shared nor survive")
    return path


class QueuePlace(Options):
    """The place of a queue in a file."""

    #: The file. A missing file is created, but its directory must exist. It must not be on a network file system.
    path: Annotated[str, BeforeValidator(_path)]
    #: The name of the queue in the file. A new queue is created.
    queue: Annotated[str, Field(min_length=1, strict=True)]
