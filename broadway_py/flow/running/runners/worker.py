"""The program of a worker process of a flow: it hosts some of the stages of the plan."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from broadway_py import forks
from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import FlowFailed
from broadway_py.flow.counts import Counts, is_hidden
from broadway_py.flow.running.carried import keep_definitions
from broadway_py.flow.running.failed_worker import pack_failure
from broadway_py.flow.running.placement import Placement
from broadway_py.flow.running.remote import RemoteEdges
from broadway_py.flow.running.runners.tasks import HostedPlan, HostReport
from broadway_py.flow.stages.file_lines import FileRange
from broadway_py.flow.stages.file_turns import FileTurns
from broadway_py.foreign import foreign_errors
from broadway_py.process.frames import Frame, dumps
from broadway_py.process.packed_errors import PackedError, pack_error
from broadway_py.process.parent_socket import ParentSocket
from broadway_py.stage import first_completed

__all__ = ["Descriptors", "PackedReport", "Said", "Share", "work"]


class Said(IntEnum):
    """What a worker process and its parent say to each other, besides what goes over the edges."""

    #: The parent: the process must end now.
    LEAVE = 1
    #: The worker: its stages have ended, also if they were ended. The body is a :class:`PackedReport`.
    DONE = 2
    #: The worker: the flow has failed here. The body is a
    #: :class:`~broadway_py.flow.running.failed_worker.PackedFailure`.
    FAILED = 3
    #: The parent: it wants to know what was done so far.
    COUNT = 4
    #: The worker: the answer to that. The body is a :class:`~broadway_py.flow.counts.Counts`.
    COUNTED = 5


class Descriptors(NamedTuple):
    """What a worker process inherits."""

    #: The socket to each other process, by its place.
    sockets: Mapping[int, int]
    #: The turns of the ranges of each source of files that the workers read.
    turns: Mapping[int, tuple[int, int]]

    def all(self) -> list[int]:
        """Returns all of them."""
        return [*self.sockets.values(), *(each for pair in self.turns.values() for each in pair)]


class PackedReport(NamedTuple):
    """What the stages of a worker process have done. The errors stand for those that are left out of the report."""

    report: HostReport
    counts: Counts
    errors: tuple[tuple[str | None, str, PackedError], ...]


class Share(NamedTuple):
    """What a worker process is told when it starts."""

    #: The place of the process, and how many worker processes there are.
    place: int
    workers: int
    descriptors: Descriptors
    #: The plan, and what an error does.
    packed: bytes
    #: What the program defines of that.
    definitions: list[bytes]
    #: The ranges of files that the workers share, by the number of the source.
    ranges: Mapping[int, Sequence[FileRange]]


def work(parent: ParentSocket, share: Share) -> None:
    """Hosts the stages that are in this process, until the parent says that it must end."""
    inherited = share.descriptors.all()
    for each in inherited:
        os.set_inheritable(each, False)  # a program that user code starts would keep it open
    forks.when_forked(lambda: forks.part_with(inherited))
    is_hidden.set(True)
    asyncio.run(_Worker(parent, share).main())


class _Worker:
    def __init__(self, parent: ParentSocket, share: Share) -> None:
        self._parent = parent
        self._share = share
        self._hosted: HostedPlan | None = None
        self._is_done = False

    async def main(self) -> None:
        """Works, and then waits until the process must end: others may still want to send something."""
        loop, leave = asyncio.get_running_loop(), asyncio.Event()

        def hear(said: Frame) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(leave.set if said.kind == Said.LEAVE else self._count)

        self._parent.listen(hear)
        hosting = asyncio.create_task(self._host())
        await leave.wait()
        hosting.cancel()
        await asyncio.wait({hosting})
        if self._hosted is not None and not self._is_done:
            self._tell(self._hosted)

    async def _host(self) -> None:
        place = self._share.place
        try:
            self._tell(await self._worked())
        except FlowFailed as error:
            self._parent.send(Said.FAILED, dumps(pack_failure(error, place)))
        except Exception as error:  # noqa: BLE001  # the parent must learn of it, whatever it is
            self._parent.send(Said.FAILED, dumps(pack_failure(FlowFailed(f"worker process {place}", error), place)))

    def _count(self) -> None:
        """Says what was done so far."""
        counts = Counts() if self._hosted is None else self._hosted.counts()
        self._parent.send(Said.COUNTED, dumps(counts))

    def _tell(self, hosted: HostedPlan) -> None:
        """Says what was done, once."""
        self._is_done = True
        report = hosted.report()
        errors = tuple((place, operator, pack_error(error)) for place, operator, error in report.errors)
        self._parent.send(Said.DONE, dumps(PackedReport(report._replace(errors=()), hosted.counts(), errors)))

    async def _worked(self) -> HostedPlan:
        """Works, and returns what has worked."""
        failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def fail(error: FlowFailed) -> None:
            if not failure.done():
                failure.set_exception(error)

        descriptors = self._share.descriptors.sockets
        edges = RemoteEdges({place: socket.socket(fileno=number) for place, number in descriptors.items()}, fail)
        self._hosted = hosted = self._made(edges)
        edges.open()
        running = asyncio.create_task(_run(hosted))
        try:
            await first_completed(running, failure)
        finally:
            running.cancel()
            try:
                await asyncio.gather(running, return_exceptions=True)
            finally:
                if not failure.cancel():
                    failure.exception()  # else asyncio tells that nobody has read it, if this call was cancelled
        if not failure.cancelled():
            failure.result()
        running.result()
        return hosted

    def _made(self, edges: RemoteEdges) -> HostedPlan:
        share = self._share
        try:
            keep_definitions(share.definitions)
            plan, on_error = pickle.loads(share.packed)  # noqa: S301  # from our own parent
        except foreign_errors() as error:
            error.add_note(
                "This came up when the functions of the flow, and what they use, were unpickled in a worker process."
            )
            raise
        turns = {source: FileTurns(pair) for source, pair in share.descriptors.turns.items()}
        return HostedPlan(
            plan,
            (),
            on_error=on_error,
            clock=SYSTEM_CLOCK,
            placement=Placement(share.workers, share.place, share.ranges.keys()),
            remote=edges,
            ranges={source: each.taken(share.ranges[source]) for source, each in turns.items()},
        )


async def _run(hosted: HostedPlan) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            hosted.start(group)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
