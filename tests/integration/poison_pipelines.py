"""Pipelines in which some messages end the process that handles them, as broken libraries and large files do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from broadway_py import Batcher, BatchInfo, Message, Pipeline, Processors
from tests.support.counter import HandledIds, message_id

#: How much more memory than at its start the limit lets a process have.
_LIMIT_BYTES: Final = 256 << 20


def abort() -> NoReturn:
    """What a C library does that finds itself in a state it does not understand."""
    os.abort()


def allocate() -> NoReturn:
    """Ask for memory until the limit ends the process."""
    hoard = []
    while True:
        hoard.append(b"x" * (1 << 20))


def leave() -> NoReturn:
    """What some code does that wants to end a program."""
    os._exit(3)


#: What ``context["poison"]`` may say of a message.
WAYS: Final = {"abort": abort, "allocate": allocate, "leave": leave}


def limit_memory() -> None:
    """Do what the kernel does with a process that outgrows its control group: SIGKILL, and nobody is asked."""
    most = _resident() + _LIMIT_BYTES

    def watch() -> None:
        while _resident() < most:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class _Poisoned(Pipeline[bytes]):
    """Notes what it has handled in one file of its context, what has failed in another."""

    processors = Processors(concurrency=8)

    async def setup(self) -> None:
        self._open()

    def _open(self) -> None:
        limit_memory()
        self.handled = HandledIds(Path(self.context["handled"]))
        self.failed = HandledIds(Path(self.context["failed"]))
        self.ways = {int(number): WAYS[way] for number, way in self.context["poison"].items()}

    def work(self, *messages: Message[bytes]) -> None:
        """Note the messages; the first that is poison ends the process."""
        for message in messages:
            way = self.ways.get(int(message_id(message.data)))
            if way is not None:
                way()
        self.handled.add(message_id(message.data) for message in messages)

    def handle_failed(self, messages: Sequence[Message[bytes]]) -> None:
        """In the process of the pipeline, wherever the others run."""
        self.failed.add(f"{message_id(m.data)} {m.status.cause if m.status else None}" for m in messages)


class InLoop(_Poisoned):
    """In ``async def handle_message``."""

    async def handle_message(self, message: Message[bytes]) -> None:
        self.work(message)


class InThread(_Poisoned):
    """In ``def handle_message``."""

    def handle_message(self, message: Message[bytes]) -> None:
        self.work(message)


class InBatch(_Poisoned):
    """In ``handle_batch``."""

    batchers = {"default": Batcher(batch_size=50, batch_timeout=0.2, concurrency=2)}  # noqa: RUF012  # an option

    async def handle_message(self, message: Message[bytes]) -> None:
        pass

    async def handle_batch(self, messages: Sequence[Message[bytes]], info: BatchInfo) -> None:
        self.work(*messages)


class InHandleFailed(_Poisoned):
    """In ``handle_message``, and again in ``handle_failed``, so that nothing of it may be called any more."""

    async def handle_message(self, message: Message[bytes]) -> None:
        self.work(message)

    def handle_failed(self, messages: Sequence[Message[bytes]]) -> None:
        self.work(*messages)


class InProcess(_Poisoned):
    """In a worker process of the stage."""

    processors = Processors(concurrency=2, executor="process")

    def setup_worker(self) -> None:
        self._open()

    def handle_message(self, message: Message[bytes]) -> None:
        self.work(message)


class Innocent(_Poisoned):
    """Takes its time."""

    async def handle_message(self, message: Message[Any]) -> None:
        time.sleep(0.001)
        self.work(message)
