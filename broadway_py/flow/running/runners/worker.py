"""A worker of a flow: it hosts its share of the stages of a plan. How it hears of others is the runner's business."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from enum import IntEnum
from typing import Final, NamedTuple

from broadway_py.clock import SYSTEM_CLOCK
from broadway_py.errors import FlowFailed
from broadway_py.flow.counts import Counts, is_hidden
from broadway_py.flow.running.carried import keep_definitions
from broadway_py.flow.running.failed_worker import pack_failure
from broadway_py.flow.running.placement import Placement
from broadway_py.flow.running.remote import Connect, RemoteEdges
from broadway_py.flow.running.runners.tasks import HostedPlan, HostReport
from broadway_py.flow.stages.file_lines import FileRange
from broadway_py.flow.stages.file_turns import RangesOf
from broadway_py.foreign import foreign_errors
from broadway_py.process.frames import dumps
from broadway_py.process.packed_errors import PackedError, pack_error
from broadway_py.stage import first_completed

__all__ = ["PackedReport", "Said", "Share", "Worker"]


class Said(IntEnum):
    """What a worker and its parent say to each other, besides what goes over the edges.

    The numbers begin where those of the edges have ended, so that both can go over one connection.
    """

    #: The parent: the worker must end now.
    LEAVE = 16
    #: The worker: its stages have ended, also if they were ended. The body is a :class:`PackedReport`.
    DONE = 17
    #: The worker: the flow has failed here. The body is a
    #: :class:`~broadway_py.flow.running.failed_worker.PackedFailure`.
    FAILED = 18
    #: The parent: it wants to know what was done so far.
    COUNT = 19
    #: The worker: the answer to that. The body is a :class:`~broadway_py.flow.counts.Counts`.
    COUNTED = 20
    #: The worker: it cannot call another one. Only where workers call each other.
    LOST = 21


class PackedReport(NamedTuple):
    """What the stages of a worker have done. The errors stand for those that are left out of the report."""

    report: HostReport
    counts: Counts
    errors: tuple[tuple[str | None, str, PackedError], ...]


class Share(NamedTuple):
    """What a worker is told when it starts."""

    #: The place of the worker, and how many workers there are.
    place: int
    workers: int
    #: The plan, and what an error does.
    packed: bytes
    #: What the program defines of that.
    definitions: list[bytes]
    #: The ranges of files that the workers share, by the number of the source.
    ranges: Mapping[int, Sequence[FileRange]]


class Worker:
    """Hosts the stages of a share, in the running event loop.

    Args:
        share: what this worker is told.
        name: of this worker, for errors.
        connections: what makes the connection to each other place.
        ranges: what this worker reads of the files of a source, by its number.
        say: called with what the parent must hear.
        most_bytes: the most bytes of an element that goes to another place; None: there is no limit.
        context_of: returns the context in which a stage runs, by what it is called; None: that of :meth:`main`.
    """

    def __init__(
        self,
        share: Share,
        name: str,
        connections: Mapping[int, Connect],
        ranges: Mapping[int, RangesOf],
        say: Callable[[Said, bytes], object],
        *,
        most_bytes: int | None = None,
        context_of: Callable[[str], Context] | None = None,
    ) -> None:
        is_hidden.set(True)
        self._share = share
        self._name = name
        self._ranges = ranges
        self._say = say
        self._context_of = context_of
        self._hosted: HostedPlan | None = None
        self._is_done = False
        self._leave: Final = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.edges: Final = RemoteEdges(connections, self._fail, most_bytes=most_bytes)

    async def main(self) -> None:
        """Works, and then waits until the worker must end: others may still want to send something."""
        hosting = asyncio.create_task(self._host())
        await self._leave.wait()
        hosting.cancel()
        await asyncio.wait({hosting})
        if self._hosted is not None and not self._is_done:
            self._tell(self._hosted)

    def hear(self, said: int) -> None:
        """Takes what the parent has said."""
        if said == Said.LEAVE:
            self._leave.set()
        else:
            counts = Counts() if self._hosted is None else self._hosted.counts()
            self._say(Said.COUNTED, dumps(counts))

    async def _host(self) -> None:
        try:
            self._tell(await self._worked())
        except FlowFailed as error:
            self._say(Said.FAILED, dumps(pack_failure(error, self._name)))
        except Exception as error:  # noqa: BLE001  # the parent must learn of it, whatever it is
            self._say(Said.FAILED, dumps(pack_failure(FlowFailed(self._name, error), self._name)))

    def _tell(self, hosted: HostedPlan) -> None:
        """Says what was done, once."""
        self._is_done = True
        report = hosted.report()
        errors = tuple((place, operator, pack_error(error)) for place, operator, error in report.errors)
        self._say(Said.DONE, dumps(PackedReport(report._replace(errors=()), hosted.counts(), errors)))

    def _fail(self, error: FlowFailed) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _worked(self) -> HostedPlan:
        """Works, and returns what has worked."""
        failure = self._failure
        self._hosted = hosted = self._made()
        self.edges.open()
        running = asyncio.create_task(_run(hosted, self._context_of))
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

    def _made(self) -> HostedPlan:
        share = self._share
        try:
            keep_definitions(share.definitions)
            plan, on_error = pickle.loads(share.packed)  # noqa: S301  # from our own parent
        except foreign_errors() as error:
            error.add_note(
                "This came up when the functions of the flow, and what they use, were unpickled in a worker process."
            )
            raise
        return HostedPlan(
            plan,
            (),
            on_error=on_error,
            clock=SYSTEM_CLOCK,
            placement=Placement(share.workers, share.place, share.ranges.keys()),
            remote=self.edges,
            ranges=self._ranges,
        )


async def _run(hosted: HostedPlan, context_of: Callable[[str], Context] | None) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            hosted.start(group, context_of=context_of)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
