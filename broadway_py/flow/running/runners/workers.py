"""What runners with workers share: what goes to the workers, and what they say."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from broadway_py.errors import DefinitionError, FlowFailed
from broadway_py.flow.counts import Counts
from broadway_py.flow.description.layers import FromFiles, FromIterable, FromStage, Layer, Source
from broadway_py.flow.description.settings import OnError
from broadway_py.flow.plan import Plan
from broadway_py.flow.report import CollectedError, StageReport
from broadway_py.flow.running.carried import is_carried, variable_at_fault, with_definitions
from broadway_py.flow.running.failed_worker import unpack_failure
from broadway_py.flow.running.placement import Placement
from broadway_py.flow.running.remote import RemoteEdges
from broadway_py.flow.running.runners.tasks import HostReport
from broadway_py.flow.running.runners.worker import PackedReport, Said
from broadway_py.flow.stages.file_lines import FileRange, ranges_of
from broadway_py.foreign import foreign_errors, text_of, type_name
from broadway_py.process.packed_errors import unpack_error

__all__ = ["Heard", "Workers", "file_ranges", "packed_plan"]


class Workers(Protocol):
    """The workers of one run of a flow. Each has stages of every layer."""

    #: Which stages are in the parent.
    placement: Placement
    heard: Heard

    async def start(self) -> RemoteEdges:
        """Starts the workers. Returns the edges to them.

        Raises:
            FlowFailed: they cannot be started, or a file cannot be read.
        """

    async def run(self) -> None:
        """Waits until all workers have done their work.

        Raises:
            FlowFailed: a function of the user has failed, or a worker has died.
        """

    async def close(self) -> None:
        """Ends the workers, and waits until they are gone, also if this call is cancelled meanwhile."""

    def ask_for_counts(self) -> None:
        """Asks the workers for what they have done so far. One that has not answered is not asked again."""


class Heard:
    """What the workers of a run have said.

    Args:
        count: how many workers there are.
        stopped: called when a stage has ended.
        is_awaited: returns True while a list from a worker may still come.
    """

    def __init__(self, count: int, stopped: Callable[[StageReport], object], is_awaited: Callable[[], bool]) -> None:
        #: What each worker has done, by its place.
        self.reports: dict[int, HostReport] = {}
        #: What each worker has done so far, as it has said last.
        self.counts: dict[int, Counts] = {}
        #: The nodes of a cluster that the workers are on, by place; empty: they are on this machine.
        self.nodes: Sequence[str] = ()
        #: Done when the flow has failed, or all workers have done their work.
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count = count
        self._stopped = stopped
        self._is_awaited = is_awaited
        # Which workers will still say what they have done so far.
        self._asked: set[int] = set()

    def take(self, place: int, kind: int, body: bytes) -> None:
        """Takes what the worker at *place* has said."""
        content = pickle.loads(body)  # noqa: S301  # from our own worker
        if kind == Said.FAILED:
            self.fail(unpack_failure(content))
        elif kind == Said.COUNTED:
            self._asked.discard(place)
            self.counts[place] = content
        else:
            self._note_report(place, content)

    def to_ask(self) -> Iterator[int]:
        """Yields the places of the workers that are to be asked for what they have done so far."""
        for place in range(self._count):
            if place not in self._asked and place not in self.reports:
                self._asked.add(place)
                yield place

    def _note_report(self, place: int, packed: PackedReport) -> None:
        errors = tuple(CollectedError(where, operator, unpack_error(error)) for where, operator, error in packed.errors)
        stages = packed.report.stages
        if self.nodes:
            stages = {key: replace(stage, node=self.nodes[place]) for key, stage in stages.items()}
        self.reports[place] = packed.report._replace(errors=errors, stages=stages)
        self.counts[place] = packed.counts
        for stage in stages.values():
            self._stopped(stage)
        self.note_progress()

    def note_progress(self) -> None:
        """Something has come. What a worker says may overtake the last results, which come over an edge."""
        if len(self.reports) == self._count and not self._is_awaited() and not self.outcome.done():
            self.outcome.set_result(None)

    def fail(self, error: FlowFailed) -> None:
        """The flow has failed."""
        if not self.outcome.done():
            self.outcome.set_exception(error)

    def end(self) -> None:
        """Nobody waits for the outcome any more."""
        if not self.outcome.cancel() and not self.outcome.cancelled():
            self.outcome.exception()  # somebody else has failed before


# --- what goes to the workers


def file_ranges(plan: Plan, placement: Placement) -> dict[int, list[FileRange]]:
    """Returns the ranges of the files that the workers read, by the number of the source.

    Raises:
        FlowFailed: a file cannot be read.
    """
    found: dict[int, list[FileRange]] = {}
    for planned in plan.sources:
        source = planned.source
        if isinstance(source, FromFiles) and planned.number in placement.files:
            found[planned.number] = [part for path in source.paths for part in _ranges_of(source, path)]
    return found


def _ranges_of(source: FromFiles, path: str) -> list[FileRange]:
    try:
        return list(ranges_of((path,), source.encoding, source.range_bytes))
    except OSError as error:
        raise FlowFailed("from_files", error, place=path) from error


def packed_plan(plan: Plan, on_error: OnError) -> tuple[bytes, list[bytes]]:
    """Returns what a worker must know, and what the program defines of it.

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


def _sent(plan: Plan) -> Plan:
    """Returns *plan* without what stays in the parent: sources, and the layers as they are chained."""
    sources = tuple(each._replace(source=_sent_source(each.source)) for each in plan.sources)
    return Plan(sources, tuple(each._replace(layer=replace(each.layer, inputs=())) for each in plan.layers))


def _sent_source(source: Source) -> Source:
    if isinstance(source, FromFiles):
        return source
    return FromStage(None) if isinstance(source, FromStage) else FromIterable(())


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
