"""Runs the stages of a plan in worker processes. The parent has the sources that are not files, and the results."""

from __future__ import annotations

import asyncio
import pickle
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from broadway_py._core.exits import exit_text
from broadway_py.clock import Clock
from broadway_py.errors import DefinitionError, FlowFailed
from broadway_py.flow.counts import Counts
from broadway_py.flow.description.layers import FromFiles, FromIterable, FromStage, Layer, Source
from broadway_py.flow.description.settings import OnError
from broadway_py.flow.plan import Plan
from broadway_py.flow.report import CollectedError, StageReport
from broadway_py.flow.running.carried import is_carried, variable_at_fault, with_definitions
from broadway_py.flow.running.failed_worker import unpack_failure
from broadway_py.flow.running.placement import PARENT, Placement, files_of_workers, workers_of
from broadway_py.flow.running.remote import RemoteEdges
from broadway_py.flow.running.runners.tasks import HostReport
from broadway_py.flow.running.runners.worker import Descriptors, PackedReport, Said, Share, work
from broadway_py.flow.running.socket_pairs import SocketPairs
from broadway_py.flow.stages.file_lines import FileRange, ranges_of
from broadway_py.flow.stages.file_turns import FileTurns
from broadway_py.foreign import foreign_errors, text_of, type_name
from broadway_py.process.frames import Frame
from broadway_py.process.packed_errors import WorkerError, unpack_error
from broadway_py.process.worker_process import WorkerProcess

__all__ = ["FlowWorkers"]

#: Seconds that a worker process may take to end after it was asked to; then it is killed. It may wait for a function of
#: the user.
_END_S: Final = 1.0


class FlowWorkers:
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
        self._stopped = stopped
        self._count = workers_of(plan, most)
        #: Which stages are in the parent.
        self.placement = Placement(self._count, files=files_of_workers(plan) if self._count else ())
        self._packed, self._definitions = _packed(plan, on_error)
        self._processes: list[WorkerProcess] = []
        self._reports: dict[int, HostReport] = {}
        # What worker processes have done so far, as they have said, and which of them will still say it.
        self._counts: dict[int, Counts] = {}
        self._asked: set[int] = set()
        self._edges: RemoteEdges | None = None
        # Set when a worker process has exited.
        self._has_exited = asyncio.Event()
        # Done when the flow has failed, or all worker processes have done their work.
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> RemoteEdges:
        """Starts the worker processes. Returns the edges to them.

        Raises:
            FlowFailed: a file cannot be read.
            OSError: a process cannot be started now.
        """
        if not self._count:
            return RemoteEdges({}, self._fail)
        ranges = self._file_ranges()
        with ExitStack() as stack:
            turns: dict[int, FileTurns] = {}
            for source in ranges:
                turns[source] = FileTurns.new()
                stack.callback(turns[source].close)
            pairs = SocketPairs(range(PARENT, self._count))
            stack.callback(pairs.close)
            self._edges = RemoteEdges(pairs.of(PARENT), self._fail, self._note_progress)
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
                (Share(place, self._count, descriptors, self._packed, self._definitions, ranges),),
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
            await self._outcome

    async def close(self) -> None:
        """Ends the worker processes, and waits for their exit, also if this call is cancelled meanwhile."""
        if not self._outcome.cancel() and not self._outcome.cancelled():
            self._outcome.exception()  # somebody else has failed before
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

    def reports(self) -> Iterator[HostReport]:
        """Yields what each worker process has done."""
        yield from self._reports.values()

    def counts(self) -> Iterator[Counts]:
        """Yields what each worker process has done, as it has said last."""
        yield from self._counts.values()

    def ask_for_counts(self) -> None:
        """Asks the worker processes for what they have done so far. One that has not answered is not asked again."""
        for place, process in enumerate(self._processes):
            if place not in self._asked and place not in self._reports:
                self._asked.add(place)
                process.send(Said.COUNT)

    def _file_ranges(self) -> dict[int, list[FileRange]]:
        """Returns the ranges of the files that the worker processes read, by the number of the source."""
        found: dict[int, list[FileRange]] = {}
        for planned in self._plan.sources:
            source = planned.source
            if isinstance(source, FromFiles) and planned.number in self.placement.files:
                found[planned.number] = [part for path in source.paths for part in _ranges_of(source, path)]
        return found

    # --- what the worker processes say

    def _take(self, place: int, frame: Frame) -> None:
        if frame.kind == Said.FAILED:
            self._fail(unpack_failure(pickle.loads(frame.body)))  # noqa: S301  # from our own worker process
            return
        if frame.kind == Said.COUNTED:
            self._asked.discard(place)
            self._counts[place] = pickle.loads(frame.body)  # noqa: S301  # as above
            return
        packed: PackedReport = pickle.loads(frame.body)  # noqa: S301  # as above
        errors = tuple(CollectedError(where, operator, unpack_error(error)) for where, operator, error in packed.errors)
        self._reports[place] = packed.report._replace(errors=errors)
        self._counts[place] = packed.counts
        for stage in packed.report.stages.values():
            self._stopped(stage)
        self._note_progress()

    def _note_progress(self) -> None:
        # What a worker process says here may overtake the last results, which come over an edge.
        is_done = len(self._reports) == self._count and self._edges is not None and not self._edges.is_awaited
        if is_done and not self._outcome.done():
            self._outcome.set_result(None)

    def _ended(self, place: int) -> None:
        self._has_exited.set()
        code = self._processes[place].exit or 0
        error = FlowFailed(f"worker process {place}", WorkerError(f"the process has died: {exit_text(code)}"))
        perhaps = "; perhaps memory ran out" if code == -signal.SIGKILL else ""
        error.args = (f"worker process {place} has died: {exit_text(code)}{perhaps}",)
        self._fail(error)

    def _fail(self, error: FlowFailed) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error)


def _ranges_of(source: FromFiles, path: str) -> list[FileRange]:
    try:
        return list(ranges_of((path,), source.encoding, source.range_bytes))
    except OSError as error:
        raise FlowFailed("from_files", error, place=path) from error


# --- what goes to the worker processes


def _sent(plan: Plan) -> Plan:
    """Returns *plan* without what stays in the parent: sources, and the layers as they are chained."""
    sources = tuple(each._replace(source=_sent_source(each.source)) for each in plan.sources)
    return Plan(sources, tuple(each._replace(layer=replace(each.layer, inputs=())) for each in plan.layers))


def _sent_source(source: Source) -> Source:
    if isinstance(source, FromFiles):
        return source
    return FromStage(None) if isinstance(source, FromStage) else FromIterable(())


def _packed(plan: Plan, on_error: OnError) -> tuple[bytes, list[bytes]]:
    """Returns what a worker process must know, and what the program defines of it.

    Raises:
        DefinitionError: something in it does not pickle.
    """
    try:
        return with_definitions((_sent(plan), on_error))
    except foreign_errors() as error:
        raise DefinitionError(
            f"{_at_fault(plan)} does not pickle ({type_name(error)}: {text_of(error)}), "
            "so it cannot go to a worker process; make it inside of the function"
        ) from error


def _at_fault(plan: Plan) -> str:
    """Returns the operator and the variable that do not pickle."""
    for planned in plan.layers:
        for label, function in _functions(planned.layer):
            if not is_carried(function):
                variable = variable_at_fault(function)
                return f"{label}: {'the function' if variable is None else f'the variable {variable!r}'}"
    return "the flow"


def _functions(layer: Layer) -> Iterator[tuple[str, object]]:
    """Yields the functions of a layer, each with what it belongs to."""
    parts = (layer.reduction, layer.join, layer.departition, layer.emission)
    for part in (*layer.mappers, *parts, *layer.after):
        if part is not None:
            yield from ((part.label, each) for each in part)
    yield from ((layer.label, each) for each in (layer.on_init, layer.on_late, layer.window, layer.route))
