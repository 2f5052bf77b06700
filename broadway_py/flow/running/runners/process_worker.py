"""The program of a worker process of a flow: it hosts some of the stages of the plan."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from typing import NamedTuple

from broadway_py import forks
from broadway_py.flow.running.remote import over_socket
from broadway_py.flow.running.runners.worker import Share, Worker
from broadway_py.flow.stages.file_turns import FileTurns, PipedRanges
from broadway_py.process.frames import Frame
from broadway_py.process.parent_socket import ParentSocket

__all__ = ["Descriptors", "work"]


class Descriptors(NamedTuple):
    """What a worker process inherits."""

    #: The socket to each other process, by its place.
    sockets: Mapping[int, int]
    #: The turns of the ranges of each source of files that the workers read.
    turns: Mapping[int, tuple[int, int]]

    def all(self) -> list[int]:
        """Returns all of them."""
        return [*self.sockets.values(), *(each for pair in self.turns.values() for each in pair)]


def work(parent: ParentSocket, share: Share, descriptors: Descriptors) -> None:
    """Hosts the stages that are in this process, until the parent says that it must end."""
    inherited = descriptors.all()
    for each in inherited:
        os.set_inheritable(each, False)  # a program that user code starts would keep it open
    forks.when_forked(lambda: forks.part_with(inherited))
    asyncio.run(_work(parent, share, descriptors))


async def _work(parent: ParentSocket, share: Share, descriptors: Descriptors) -> None:
    worker = Worker(
        share,
        f"worker process {share.place}",
        {place: over_socket(socket.socket(fileno=number)) for place, number in descriptors.sockets.items()},
        {number: PipedRanges(FileTurns(pair), share.ranges[number]) for number, pair in descriptors.turns.items()},
        parent.send,
    )
    loop = asyncio.get_running_loop()

    def hear(said: Frame) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(worker.hear, said.kind)

    parent.listen(hear)
    await worker.main()
