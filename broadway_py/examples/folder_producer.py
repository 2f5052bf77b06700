"""A producer of your own: the messages are files in a directory. The page "How to write a producer" explains it.

A file in ``ready/`` waits. A reader moves what it takes to a directory of its own in ``held/``, and removes it from
there when it is acked. What has failed goes to ``failed/``. A name such as ``01790000000000000000-a4f23c01.2`` has the
place in the queue, an id, and the number of deliveries.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from broadway_py import Acknowledgement, Acknowledger, Message, ProducerError, SettleError
from broadway_py.producers import Producer, ProducerDescription, SourceMessages

__all__ = ["FolderProducer", "put"]

#: Seconds between two looks at an empty directory. The standard library has no way to be told of new files.
_LOOK_EVERY_S: Final = 0.1


def put(directory: str | Path, body: bytes) -> None:
    """Puts a message into *directory*. No reader ever sees a file that is not complete."""
    ready = Path(directory, "ready")
    ready.mkdir(parents=True, exist_ok=True)
    new = Path(directory, f".{uuid.uuid4().hex}")
    new.write_bytes(body)
    # In the order of the puts of one process. Others may come in between.
    new.rename(ready / f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}.0")


class FolderProducer(ProducerDescription):
    """Reads the files of a directory.

    Args:
        directory: the directory. It is made if it is missing.
        name: the producer's name in metrics and logs.
    """

    outlives_process = True

    def __init__(self, directory: str, *, name: str | None = None) -> None:
        self.directory = directory
        self.name = name

    def create(self) -> Producer:
        """Returns a reader of the directory."""
        return FolderReader(Path(self.directory))


class FolderReader(Producer):
    """Holds the files that it has handed over, until they are settled."""

    def __init__(self, directory: Path) -> None:
        self.ready, self.failed = directory / "ready", directory / "failed"
        self.everybodys = directory / "held"
        self.held = self.everybodys / uuid.uuid4().hex
        self.is_paused = False
        self.lock: TextIO | None = None

    async def open(self) -> None:
        """Makes the directories, and gives back what dead readers hold."""
        try:
            await asyncio.to_thread(self._open)
        except OSError as error:
            raise ProducerError(f"{self.everybodys.parent} cannot be used: {error.strerror}") from error
        self.acknowledger = FolderAcknowledger(self)

    def _open(self) -> None:
        for directory in (self.ready, self.failed, self.held):
            directory.mkdir(parents=True, exist_ok=True)
        # The lock ends with the process, however it dies. It gets its name when it is locked: otherwise another reader
        # could take this one for dead.
        lock = self.held.with_suffix(".new").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(lock.name).rename(self.held.with_suffix(".lock"))
        self.lock = lock
        for other in self.everybodys.glob("*.lock"):
            with contextlib.suppress(OSError), other.open() as theirs:
                fcntl.flock(theirs, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._abandon(other.with_suffix(""))

    def _abandon(self, held: Path) -> None:
        """Puts back all that is in the directory of a reader, and removes it. These deliveries count as attempts."""
        for file in held.iterdir():
            file.rename(self.ready / file.name)
        held.rmdir()
        held.with_suffix(".lock").unlink()

    async def handle_demand(self, demand: int) -> list[Message[bytes]]:
        """Returns at most *demand* messages. It waits for the first one."""
        while not self.draining.is_set():
            if not self.is_paused:
                messages = await asyncio.to_thread(self._take, demand)
                if messages:
                    return messages
            with contextlib.suppress(TimeoutError):
                async with self.context.clock.timeout(_LOOK_EVERY_S):
                    await self.draining.wait()
        return []

    def _take(self, most: int) -> list[Message[bytes]]:
        try:
            return list(self._taken(most))
        except OSError as error:
            raise ProducerError(f"{self.ready} cannot be read: {error.strerror}") from error

    def _taken(self, most: int) -> Iterator[Message[bytes]]:
        now = self.context.clock.wall()
        for file in sorted(self.ready.iterdir()):
            if most == 0:
                return
            name, _, deliveries = file.name.rpartition(".")
            attempt = int(deliveries) + 1
            taken = self.held / f"{name}.{attempt}"
            with contextlib.suppress(FileNotFoundError):  # another reader was faster
                if file.stat().st_mtime > now:
                    continue  # it waits for its next attempt
                file.rename(taken)
                metadata = {"message_id": name, "redelivered": attempt > 1}
                message = Message(taken.read_bytes(), metadata, Acknowledgement(self.acknowledger, None, taken))
                message.attempt = attempt
                most -= 1
                yield message

    async def source_messages(self) -> SourceMessages:
        """Returns how many files wait, how many of them for their next attempt, and how many have failed."""
        return await asyncio.to_thread(self._count)

    def _count(self) -> SourceMessages:
        now, ready, delayed = self.context.clock.wall(), 0, 0
        try:
            for file in self.ready.iterdir():
                with contextlib.suppress(FileNotFoundError):  # a reader has taken it
                    if file.stat().st_mtime > now:
                        delayed += 1
                    else:
                        ready += 1
            return SourceMessages(ready, delayed, dead=len(list(self.failed.iterdir())))
        except OSError as error:
            raise ProducerError(f"{self.ready.parent} cannot be read: {error.strerror}") from error

    async def pause(self) -> None:
        """Stops taking files. Nothing is taken in advance, so nothing is to be given back."""
        self.is_paused = True

    async def resume(self) -> None:
        """Takes files again."""
        self.is_paused = False

    async def close(self) -> None:
        """Puts back what is not settled."""
        lock, self.lock = self.lock, None
        if lock is not None:
            with lock:
                await asyncio.to_thread(self._abandon, self.held)


class FolderAcknowledger(Acknowledger):
    """Settles the messages of one reader."""

    def __init__(self, reader: FolderReader) -> None:
        self.reader = reader

    async def ack(self, ref: Hashable, successful: Sequence[Message[Any]], failed: Sequence[Message[Any]]) -> None:
        """Removes the successful ones, and moves the failed ones to ``failed/``."""
        failing = {id(message) for message in failed}

        def settle(message: Message[Any], file: Path) -> None:
            if id(message) in failing:
                file.rename(self.reader.failed / file.name)
            else:
                file.unlink()

        await self._settle([*successful, *failed], settle)

    async def dead_letter(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Moves the messages to ``failed/``."""
        await self.ack(ref, [], messages)

    async def release(self, ref: Hashable, messages: Sequence[Message[Any]]) -> None:
        """Puts the messages back to their places. The delivery does not count."""

        def put_back(_message: Message[Any], file: Path) -> None:
            name, _, deliveries = file.name.rpartition(".")
            file.rename(self.reader.ready / f"{name}.{int(deliveries) - 1}")

        await self._settle(messages, put_back)

    async def retry(self, ref: Hashable, messages_and_delays: Sequence[tuple[Message[Any], float]]) -> None:
        """Puts the messages back with the time of their next attempt as the time of the file."""
        now = self.reader.context.clock.wall()
        due = {id(message): now + delay for message, delay in messages_and_delays}

        def put_off(message: Message[Any], file: Path) -> None:
            os.utime(file, (due[id(message)], due[id(message)]))
            # A failure that was not the message's fault takes its attempt back.
            name = f"{file.name.rpartition('.')[0]}.{message.attempt}"
            file.rename(self.reader.ready / name)

        await self._settle([message for message, _ in messages_and_delays], put_off)

    async def _settle(self, messages: Sequence[Message[Any]], step: Any) -> None:
        """Does *step* with each message and its file. Raises SettleError for those whose files are gone."""

        def steps() -> list[Message[Any]]:
            gone: list[Message[Any]] = []
            for message in messages:
                try:
                    step(message, message.acknowledgement.data)
                except OSError:
                    gone.append(message)
            return gone

        gone = list(messages) if self.reader.lock is None else await asyncio.to_thread(steps)
        if gone:
            raise SettleError(f"{len(gone)} of {len(messages)} files are not held any more", unsettled=gone)
