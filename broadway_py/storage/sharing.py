"""Shares one writer per file among all its users in a process."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Final

from broadway_py.storage.schema import Schema
from broadway_py.storage.writer import Writer

__all__ = ["acquire", "release"]

_lock: Final = threading.Lock()
# The process is part of the key: a forked child finds the entries of its parent here.
_writers: Final[dict[tuple[int, str], Writer]] = {}
_users: Final[dict[Writer, int]] = {}


async def acquire(path: str, schema: Schema) -> Writer:
    """Returns the open writer of *path* in this process. Each call needs one :func:`release`.

    Raises:
        StorageError: the file cannot be opened. Nothing needs to be released.
    """
    writer = _join(path, schema)
    try:
        await asyncio.wrap_future(writer.opened)
    except BaseException:
        _leave(writer)
        raise
    return writer


async def release(writer: Writer) -> None:
    """Ends one use of *writer*. The last call closes the file, and returns when it is closed."""
    if _leave(writer):
        await asyncio.wrap_future(writer.ended)


def _join(path: str, schema: Schema) -> Writer:
    key = (os.getpid(), os.path.realpath(path))
    with _lock:
        writer = _writers.get(key)
        if writer is None or writer.ended.done():
            writer = _writers[key] = Writer(key[1], schema)
            _users[writer] = 0
            writer.start()
        _users[writer] += 1
        return writer


def _leave(writer: Writer) -> bool:
    with _lock:
        _users[writer] -= 1
        if _users[writer] > 0:
            return False
        del _users[writer]
        for key in [key for key, known in _writers.items() if known is writer]:
            del _writers[key]
    writer.stop()
    return True
