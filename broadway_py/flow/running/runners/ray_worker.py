"""A worker of a flow in an actor of Ray: it hosts some of the stages of the plan."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context, copy_context
from functools import partial
from importlib.metadata import version
from types import ModuleType
from typing import Any, Final, NamedTuple

import ray
from ray.exceptions import RayError
from structlog.contextvars import bind_contextvars

from broadway_py.flow.running.placement import PARENT
from broadway_py.flow.running.remote import Connect, Connection
from broadway_py.flow.running.runners.calls import AskedConnection, CallingConnection, Chunk
from broadway_py.flow.running.runners.ray_cluster import node_label
from broadway_py.flow.running.runners.ray_errors import is_death, reason_of
from broadway_py.flow.running.runners.worker import Said, Share, Worker
from broadway_py.flow.stages.file_lines import FileRange
from broadway_py.installed import package_version
from broadway_py.process.frames import Frame, dumps
from broadway_py.process.parent_watch import end_with_parent

__all__ = ["MOST_BYTES", "TURNS", "About", "FileStat", "Lost", "RayWorker", "Versions", "file_stat", "versions_here"]

#: The most bytes of an element that goes from one worker to another one.
MOST_BYTES: Final = 64 << 20
#: Calls that a function of the user must not hold up have a thread of their own.
TURNS: Final = "turns"
#: A worker takes so many turns, or more, for the ranges that are left.
_TURNS_LEFT: Final = 4


class Versions(NamedTuple):
    """What must be the same in the program and in each worker."""

    python: str
    broadway_py: str
    cloudpickle: str


class FileStat(NamedTuple):
    """What tells one state of a file from another one."""

    size: int
    modified_ns: int


class About(NamedTuple):
    """What a worker is, and what it sees."""

    #: The address of its node, with the beginning of Ray's name for the node.
    node: str
    versions: Versions
    #: The files that it was asked for; a text says why it cannot read one.
    files: Sequence[FileStat | str]


class Lost(NamedTuple):
    """A worker could not be called by another one."""

    place: int
    reason: str
    has_died: bool


def versions_here() -> Versions:
    """Returns the versions of this process."""
    return Versions("{}.{}".format(*sys.version_info), package_version(), version("cloudpickle"))


def file_stat(path: str) -> FileStat | str:
    """Returns the state of a file; a text if it cannot be read."""
    try:
        found = os.stat(path)  # noqa: PTH116  # what processes load is the same in all
    except OSError as error:
        return error.strerror or str(error)
    return FileStat(found.st_size, found.st_mtime_ns)


class RayWorker:
    """The actor of a worker. The stages run in the event loop of its methods.

    Args:
        flow: the number of the run in its program.
        place: of the worker.
    """

    def __init__(self, flow: int, place: int) -> None:
        self._name = f"flow {flow}, worker {place}"
        self._flow = flow
        self._place = place
        # What the program defines gets its name here, and must not meet what Ray's own program defines.
        self._program_of_ray, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
        # How many ranges of each source of files were taken.
        self._taken: dict[int, int] = {}
        self._has_begun = asyncio.Event()
        self._connections: dict[int, AskedConnection | CallingConnection] = {}
        self._working: asyncio.Task[None] | None = None
        # Ray does it too, but not while its process there is a zombie: some containers collect none.
        end_with_parent()

    def __repr__(self) -> str:
        # Ray shows it before each line that functions of the user print.
        return self._name

    async def about(self, paths: Sequence[str]) -> About:
        """Returns what this worker is, and how it sees the files *paths*."""
        node: str = ray.get_runtime_context().get_node_id()
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]  # Ray's own types lack it
        return About(node_label(address, node), versions_here(), [file_stat(path) for path in paths])

    async def begin(self, share: Share, handles: Mapping[int, Any], set_log_up: Callable[[], None] | None) -> None:
        """Begins to work.

        Args:
            share: what is worked on here.
            handles: the other workers.
            set_log_up: sets the log up as it is in the program; None: the program has not done so.
        """
        if set_log_up is not None:
            set_log_up()
        connects: dict[int, Connect] = {
            place: partial(self._connect, place, handle) for place, handle in handles.items()
        }
        connects[PARENT] = self._connect_program
        first = handles.get(0, ray.get_runtime_context().current_actor)
        ranges = {
            source: _CalledRanges(partial(self._next_ranges, first, source, len(found), share.workers), found)
            for source, found in share.ranges.items()
        }
        worker = Worker(
            share,
            f"Ray worker {self._place}",
            connects,
            ranges,
            self._say,
            most_bytes=MOST_BYTES,
            context_of=self._context_of,
        )
        self._worker = worker
        self._working = asyncio.create_task(self._work(worker), name="flow.worker")
        self._has_begun.set()

    async def take(self, place: int, number: int, data: bytes) -> None:
        """Takes what another place has sent."""
        await self._has_begun.wait()
        self._connections[place].arrived(number, data)

    async def give(self) -> Chunk | None:
        """Waits for what the program must get next, and returns it; None: it was the last."""
        await self._has_begun.wait()
        return await self._program.next()

    @ray.method(concurrency_group=TURNS)
    async def next_ranges(self, source: int, ranges: int, workers: int) -> range:
        """Returns the numbers of the next ranges of a worker. All workers ask the first one, perhaps before it begins.

        They are fewer towards the end, so that all workers end together (guided self-scheduling, Polychronopoulos and
        Kuck 1987).

        Args:
            source: the number of the source.
            ranges: how many its files have.
            workers: how many share them.
        """
        taken = self._taken.get(source, 0)
        self._taken[source] = end = taken + -(-(ranges - taken) // (_TURNS_LEFT * workers))
        return range(taken, end)

    def _context_of(self, stage: str) -> Context:
        """Returns the context in which a stage runs: what it logs has these fields."""
        context = copy_context()
        context.run(bind_contextvars, flow=self._flow, worker=self._place, stage=stage)
        return context

    async def _next_ranges(self, first: Any, *asked: int) -> range:
        try:
            numbers: range = await first.next_ranges.remote(*asked)
        except RayError as error:
            self._note_lost(0, error)
            # The program ends the flow.
            numbers = await asyncio.get_running_loop().create_future()
        return numbers

    async def _work(self, worker: Worker) -> None:
        try:
            await worker.main()
        finally:
            self._program.finish()

    def _say(self, said: Said, body: bytes) -> None:
        self._program.send(said, body)

    def _connect_program(self, take: Callable[[Frame], object]) -> Connection:
        def hear(said: Frame) -> None:
            if said.kind >= Said.LEAVE:
                self._worker.hear(said.kind)
            else:
                take(said)

        self._program = self._connections[PARENT] = AskedConnection(hear)
        return self._program

    def _connect(self, place: int, handle: Any, take: Callable[[Frame], object]) -> Connection:
        def call(number: int, data: bytes) -> asyncio.Future[None]:
            return asyncio.wrap_future(handle.take.remote(self._place, number, data).future())

        connection = self._connections[place] = CallingConnection(take, call, partial(self._note_lost, place))
        return connection

    def _note_lost(self, place: int, error: BaseException) -> None:
        self._say(Said.LOST, dumps(Lost(place, reason_of(error), is_death(error))))


class _CalledRanges:
    """The ranges of a worker that asks for the next ones while it reads some.

    Args:
        take: returns the numbers of the next ranges; none: there are no more.
        ranges: of all workers.
    """

    def __init__(self, take: Callable[[], Awaitable[range]], ranges: Sequence[FileRange]) -> None:
        self._take = take
        self._ranges = ranges
        self._mine: deque[int] = deque()
        self._coming: asyncio.Future[range] | None = None

    async def next(self) -> FileRange | None:
        """Returns the next range; None: there are no more."""
        if not self._mine:
            self._mine.extend(await (self._coming or self._ask()))
            if not self._mine:
                return None
            self._coming = self._ask()
        return self._ranges[self._mine.popleft()]

    def _ask(self) -> asyncio.Future[range]:
        asked = asyncio.ensure_future(self._take())
        asked.add_done_callback(_note_result)
        return asked


def _note_result(asked: asyncio.Future[range]) -> None:
    """Takes the error of a call that perhaps nobody waits for any more."""
    if not asked.cancelled():
        asked.exception()
