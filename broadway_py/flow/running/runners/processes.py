"""Runs the stages of a plan in worker processes. The parent has the sources that are not files, and the results."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

from broadway_py._core.exits import exit_text
from broadway_py.clock import Clock
from broadway_py.errors import FlowFailed
from broadway_py.flow.description.settings import OnError
from broadway_py.flow.plan import Plan
from broadway_py.flow.report import StageReport
from broadway_py.flow.running.placement import PARENT, Placement, files_of_workers, workers_of
from broadway_py.flow.running.remote import RemoteEdges, over_socket
from broadway_py.flow.running.runners.process_worker import Descriptors, work
from broadway_py.flow.running.runners.worker import Said, Share
from broadway_py.flow.running.runners.workers import Heard, file_ranges, packed_plan
from broadway_py.flow.running.socket_pairs import SocketPairs
from broadway_py.flow.stages.file_lines import FileRange
from broadway_py.flow.stages.file_turns import FileTurns
from broadway_py.process.frames import Frame
from broadway_py.process.packed_errors import WorkerError
from broadway_py.process.worker_process import WorkerProcess

__all__ = ["ProcessWorkers"]

#: Seconds that a worker process may take to end after it was asked to; then it is killed. It may wait for a function of
#: the user.
_END_S: Final = 1.0


class ProcessWorkers:
    """The worker processes of one run. Each has stages of every layer.

    Args:
        plan: what runs.
        most: the most worker processes.
        on_error: what an error of a user's function does.
        clock: for the wait at the end.
        stopped: called when a stage has ended.

    Raises:
        DefinitionError: something that goes to the worker processes does not pickle.
    """

    def __init__(
        self, plan: Plan, most: int, *, on_error: OnError, clock: Clock, stopped: Callable[[StageReport], object]
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._count = workers_of(plan, most)
        #: Which stages are in the parent.
        self.placement = Placement(self._count, files=files_of_workers(plan) if self._count else ())
        self._packed, self._definitions = packed_plan(plan, on_error)
        self._processes: list[WorkerProcess] = []
        self._edges: RemoteEdges | None = None
        #: What the worker processes have said.
        self.heard = Heard(self._count, stopped, self._is_awaited)
        # Set when a worker process has exited.
        self._has_exited = asyncio.Event()

    def _is_awaited(self) -> bool:
        return self._edges is None or self._edges.is_awaited

    async def start(self) -> RemoteEdges:
        """Starts the worker processes. Returns the edges to them.

        Raises:
            FlowFailed: a file cannot be read.
            OSError: a process cannot be started now.
        """
        if not self._count:
            return RemoteEdges({}, self.heard.fail)
        ranges = file_ranges(self._plan, self.placement)
        with ExitStack() as stack:
            turns: dict[int, FileTurns] = {}
            for source in ranges:
                turns[source] = FileTurns.new()
                stack.callback(turns[source].close)
            pairs = SocketPairs(range(PARENT, self._count))
            stack.callback(pairs.close)
            connections = {place: over_socket(each) for place, each in pairs.of(PARENT).items()}
            self._edges = RemoteEdges(connections, self.heard.fail, self.heard.note_progress)
            for place in range(self._count):
                self._processes.append(self._started(place, pairs, turns, ranges))
        return self._edges

    def _started(
        self, place: int, pairs: SocketPairs, turns: Mapping[int, FileTurns], ranges: Mapping[int, Sequence[FileRange]]
    ) -> WorkerProcess:
        sockets = pairs.of(place)
        try:
            descriptors = Descriptors(
                {other: each.fileno() for other, each in sockets.items()},
                {source: each.descriptors for source, each in turns.items()},
            )
            return WorkerProcess(
                work,
                (Share(place, self._count, self._packed, self._definitions, ranges), descriptors),
                partial(self._take, place),
                partial(self._ended, place),
                descriptors.all(),
            )
        finally:
            for each in sockets.values():
                each.close()

    async def run(self) -> None:
        """Waits until all worker processes have done their work.

        Raises:
            FlowFailed: a function of the user has failed, or a worker process has died.
        """
        if self._count:
            await self.heard.outcome

    async def close(self) -> None:
        """Ends the worker processes, and waits for their exit, also if this call is cancelled meanwhile."""
        self.heard.end()
        for process in self._processes:
            process.send(Said.LEAVE)
        cancelled: asyncio.CancelledError | None = None
        try:
            async with self._clock.timeout(_END_S):
                await self._all_have_exited()
        except TimeoutError:
            pass
        except asyncio.CancelledError as error:
            cancelled = error
        for process in self._processes:
            if process.exit is None:
                process.kill()
        while any(process.exit is None for process in self._processes):
            try:
                await self._all_have_exited()
            except asyncio.CancelledError as error:
                cancelled = error
        for process in self._processes:
            await process.exited()
        if self._edges is not None:
            self._edges.close()
        if cancelled is not None:
            raise cancelled

    async def _all_have_exited(self) -> None:
        # Not in a task, which others could cancel: the end of an event loop cancels all tasks that it finds.
        while any(process.exit is None for process in self._processes):
            self._has_exited.clear()
            await self._has_exited.wait()

    def ask_for_counts(self) -> None:
        """Asks the worker processes for what they have done so far. One that has not answered is not asked again."""
        if self._processes:
            for place in self.heard.to_ask():
                self._processes[place].send(Said.COUNT)

    # --- what the worker processes say

    def _take(self, place: int, frame: Frame) -> None:
        self.heard.take(place, frame.kind, frame.body)

    def _ended(self, place: int) -> None:
        self._has_exited.set()
        code = self._processes[place].exit or 0
        error = FlowFailed(f"worker process {place}", WorkerError(f"the process has died: {exit_text(code)}"))
        perhaps = "; perhaps memory ran out" if code == -signal.SIGKILL else ""
        error.args = (f"worker process {place} has died: {exit_text(code)}{perhaps}",)
        self.heard.fail(error)
