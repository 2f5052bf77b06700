"""Where a queue is: the settings that its writers and its readers share."""

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
    """A queue in a file."""

    #: The file; made if it is missing, its directory must exist. Not on a network file system.
    path: Annotated[str, BeforeValidator(_path)]
    #: The queue in the file; made if it is new.
    queue: Annotated[str, Field(min_length=1, strict=True)]
