"""Handlers that fork, in every way that callbacks are called in."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from broadway_py import Message, Pipeline, Processors


def exit_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_a_loop() -> None:
    async def one() -> None:
        await asyncio.sleep(0)

    asyncio.run(one())


def listening_ports() -> list[int]:
    """Ports that this process listens on."""
    found = []
    for one in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(one.name))) as each:
            if each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(each.getsockname()[1])
    return found


class _Forking(Pipeline[bytes]):
    """Appends what became of its children to the file ``context["file"]``. The message names what they do."""

    processors = Processors(concurrency=1, timeout=60.0)

    def forked(self, what: str) -> Iterator[str]:
        """In the parent: what became of the child. In the child, which must not come back: nothing."""
        if what == "terminated":
            for number in (signal.SIGTERM, signal.SIGHUP):
                started = multiprocessing.get_context("fork").Process(target=time.sleep, args=(20,))
                started.start()
                assert started.pid is not None
                os.kill(started.pid, number)  # as early as can be
                started.join(10)
                yield f"{started.exitcode}"
                started.kill()
        elif what == "runs a loop":
            started = multiprocessing.get_context("fork").Process(target=run_a_loop)
            started.start()
            started.join(20)
            yield f"{started.exitcode}"
        elif what == "holds no port":
            child = os.fork()
            if child == 0:
                os._exit(len(listening_ports()))
            yield f"{exit_of(child)}"

    def note(self, what: str, *became: Any) -> None:
        with Path(self.context["file"]).open("a") as file:
            file.write(f"{type(self).__name__}, {what}: {' '.join(map(str, became))}\n")

    def handle(self, message: Message[bytes]) -> None:
        what = message.data.decode()
        became = list(self.forked(what))
        if not became:
            child = os.fork()
            if child == 0:
                if what == "exits":
                    sys.exit(3)
                if what == "raises":
                    raise ValueError
                return  # "returns"
            became = [str(exit_of(child))]
        self.note(what, *became)


class InLoop(_Forking):
    async def handle_message(self, message: Message[bytes]) -> None:
        self.handle(message)


class InThread(_Forking):
    def handle_message(self, message: Message[bytes]) -> None:
        self.handle(message)


class InProcess(_Forking):
    processors = Processors(concurrency=1, executor="process", timeout=60.0)

    def handle_message(self, message: Message[bytes]) -> None:
        self.handle(message)
