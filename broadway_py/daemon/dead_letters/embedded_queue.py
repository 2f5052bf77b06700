"""The dead letters of an embedded queue."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.daemon.dead_letters.letters import Head, size_of, time_of
from broadway_py.errors import OptionsError, did_you_mean
from broadway_py.storage.queue_dead import DeadHead
from broadway_py.storage.queue_file import QueueFile

__all__ = ["EmbeddedLetters", "opened"]


class EmbeddedLetters:
    """The dead letters of one queue in a file."""

    is_approximate: Final = False

    def __init__(self, file: QueueFile) -> None:
        self._file = file
        self.name = file.name

    async def count(self) -> int:
        """Returns how many there are."""
        return len(await self._file.dead_heads())

    async def note(self) -> None:
        """Returns nothing: the list is complete."""

    async def portions(self, most: int | None = None) -> AsyncGenerator[Sequence[Head], None]:
        """Yields the oldest *most* of them (None: all) at once, the oldest first."""
        yield [_head(one) for one in await self._file.dead_heads(most)]

    async def payload(self, letter: str) -> bytes:
        """Returns the payload of *letter*."""
        return await self._file.dead_payload(int(letter)) or b""

    async def replay(self, letters: Sequence[str]) -> int:
        """Puts *letters* back into the queue as new messages. Returns how many."""
        return await self._file.replay([int(one) for one in letters])

    async def discard(self, letters: Sequence[str]) -> int:
        """Removes *letters* for good. Returns how many."""
        return await self._file.discard_dead([int(one) for one in letters])

    async def discard_all(self) -> int:
        """Removes all of them for good. Returns how many."""
        return await self._file.discard_dead([one.id for one in await self._file.dead_heads()])


@asynccontextmanager
async def opened(reference: str) -> AsyncIterator[EmbeddedLetters]:
    """Opens the queue that ``FILE.db:NAME`` names. The queue must exist: nothing is created.

    Raises:
        OptionsError: *reference* does not have this form, or there is no such file or queue.
        StorageError: the file cannot be used.
    """
    path, colon, name = reference.rpartition(":")
    if not colon or not path or not name:
        raise OptionsError((), f"--queue {reference}: expected FILE:NAME, such as var/queue.db:orders")
    _refuse_missing(path)
    names = await QueueFile.names(path)
    if name not in names:
        known = f"; known here: {', '.join(names)}{did_you_mean(name, names)}" if names else ""
        raise OptionsError((), f"--queue: {path}: there is no queue {name!r} in this file{known}")
    file = await QueueFile.open(path, name, SYSTEM_CLOCK)
    try:
        yield EmbeddedLetters(file)
    finally:
        await file.close()


def _refuse_missing(path: str) -> None:
    if not Path(path).exists():
        raise OptionsError((), f"--queue: {path}: no such file")


def _head(one: DeadHead) -> Head:
    metadata = {} if one.metadata is None else json.loads(one.metadata)
    facts = [
        ("id", str(one.id)),
        ("cause", one.cause),
        ("exception", one.exception or "-"),
        ("attempts", str(one.attempts)),
        ("put", time_of(one.enqueued_at)),
        ("died", time_of(one.dead_at)),
        ("pipeline", one.pipeline),
        ("size", size_of(one.size)),
        ("metadata", json.dumps(metadata)),
    ]
    return Head(str(one.id), one.dead_at, one.attempts, one.cause, one.exception, one.size, facts)
