"""Hosts the stages of a plan in one event loop: each is a task."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from broadway_py.clock import Clock
from broadway_py.errors import FlowFailed
from broadway_py.flow.counts import Counts
from broadway_py.flow.description.settings import OnError
from broadway_py.flow.failure import place_of
from broadway_py.flow.frames import Frame
from broadway_py.flow.operator_errors import OperatorErrors
from broadway_py.flow.plan import Plan, PlannedLayer, Way
from broadway_py.flow.report import CollectedError, StageReport
from broadway_py.flow.running.placement import PARENT, Placement
from broadway_py.flow.running.remote import RemoteConsumer, RemoteEdges
from broadway_py.flow.stages.exchange import Exchange
from broadway_py.flow.stages.file_turns import RangesOf
from broadway_py.flow.stages.in_memory import InMemory, in_memory, is_in_memory
from broadway_py.flow.stages.intake import Consumer, FlowOutlet, Producer, subscribe
from broadway_py.flow.stages.reading import operator_of, source_stage
from broadway_py.flow.stages.source_stage import SourceStage
from broadway_py.flow.stages.stage import FlowStage, Hop
from broadway_py.flow.stages.subscribed_stage import SubscribedStage
from broadway_py.flow.work.layer_functions import LayerFunctions
from broadway_py.flow.work.work import Work
from broadway_py.stage import Edge

if TYPE_CHECKING:
    from broadway_py.flow.stages.flow_exit import FlowExit

__all__ = ["HostReport", "HostedPlan", "summed"]

_MOST_ERRORS: Final = 10_000
#: What leaves the flow, beside the labels of layers.
_RESULT: Final = "result"
_ALL_HERE: Final = Placement()
_NO_RANGES: Final[Mapping[int, RangesOf]] = {}


class HostReport(NamedTuple):
    """What the sources and stages of a plan that are in one process have done."""

    elements_in: int
    late: int
    ahead: int
    #: How many elements were late or too far ahead, and nobody was told.
    lost_by_time: int
    #: How many bytes of lists were sent to other processes.
    sent_bytes: int
    #: How many elements were left out, by the operator that failed on them.
    skipped: dict[str, int]
    errors: tuple[CollectedError, ...]
    #: By the number of the layer and the index of the stage.
    stages: dict[tuple[int, int], StageReport]


def summed(reports: Iterable[HostReport]) -> HostReport:
    """Returns what all processes of a flow have done together."""
    several = list(reports)
    skipped: dict[str, int] = {}
    stages: dict[tuple[int, int], StageReport] = {}
    for report in several:
        stages |= report.stages
        for operator, count in report.skipped.items():
            skipped[operator] = skipped.get(operator, 0) + count
    return HostReport(
        sum(each.elements_in for each in several),
        sum(each.late for each in several),
        sum(each.ahead for each in several),
        sum(each.lost_by_time for each in several),
        sum(each.sent_bytes for each in several),
        skipped,
        tuple(error for each in several for error in each.errors)[:_MOST_ERRORS],
        dict(sorted(stages.items())),
    )


class _End(NamedTuple):
    """Where lists come from."""

    place: int
    #: None: it is in another process.
    outlet: FlowOutlet | None
    way: Way
    #: The sources whose lists come from there.
    origins: Sequence[int]
    #: What sends the lists, for errors.
    label: str
    #: The number of the layer, and the index of the stage in it; None: it is a source.
    stage: tuple[int, int] | None


class HostedPlan:
    """The sources and stages of a plan that are in this process, in the running event loop.

    Args:
        plan: what runs.
        exits: where elements leave, by the number of the exit; they are in the parent.
        on_error: what an error of a user's function does.
        clock: for timers and waits.
        make_hop: returns what calls the functions of a stage, by its name; None: they are called in the event loop.
        placement: which stages are in this process.
        remote: the edges to other processes; None: there are none.
        ranges: what is read here of the files of a source, by its number. What is not there is read in whole.
    """

    def __init__(
        self,
        plan: Plan,
        exits: Sequence[FlowExit],
        *,
        on_error: OnError,
        clock: Clock,
        make_hop: Callable[[str], Hop] | None = None,
        placement: Placement = _ALL_HERE,
        remote: RemoteEdges | None = None,
        ranges: Mapping[int, RangesOf] = _NO_RANGES,
    ) -> None:
        self._plan = plan
        self._on_error = on_error
        self._clock = clock
        self._make_hop = make_hop
        self._exits = exits
        self._placement = placement
        self._remote = remote
        self._errors: list[OperatorErrors] = []
        # What stands for the stages of other processes, with the stage that sends to it; None: a source sends.
        self._consumers: list[tuple[tuple[int, int] | None, RemoteConsumer]] = []
        here = placement.here
        self._memories = dict(self._memories_of_stages())
        self._sources: dict[int, SourceStage] = {
            source.number: source_stage(
                source, self._exchange(source.way, OperatorErrors(on_error)), clock, ranges.get(source.number)
            )
            for source in plan.sources
            if here in placement.of_source(source) and source.way.to not in self._memories
        }
        self._stages: dict[tuple[int, int], FlowStage] = {}
        for layer in plan.layers:
            if indexes := [index for index in range(layer.stages) if here == placement.of_stage(index)]:
                functions = LayerFunctions(layer.layer, layer.part, on_error)
                self._stages |= {(layer.number, index): self._stage(layer, index, functions) for index in indexes}
        self._connect()

    def _memories_of_stages(self) -> Iterator[tuple[int, InMemory]]:
        """Yields what stages take their lists from, by the number of their layer. There is no stage for such a source.

        All stages of the layer must be here. It must be their only source, and who gets a list must not matter.
        Functions must run in the loop: else the stage whose thread is the quickest would get the first list.
        """
        if self._placement.workers or self._make_hop is not None:
            return
        ways = Counter(way.to for _, way in self._plan.ways())
        for source in self._plan.sources:
            way = source.way
            if way.to is None or way.sharing != "spread" or ways[way.to] > 1 or not is_in_memory(source.source):
                continue
            if Exchange(way, OperatorErrors()).is_plain and not self._plan.layers[way.to].layer.is_windowed:
                yield way.to, in_memory(source)

    def _exchange(self, way: Way, errors: OperatorErrors) -> Exchange:
        self._errors.append(errors)
        return Exchange(way, errors, in_one_process=not self._placement.workers)

    def _stage(self, planned: PlannedLayer, index: int, functions: LayerFunctions) -> FlowStage:
        first, way = planned.first_origin, planned.way
        work = Work(
            planned.layer,
            index=index,
            copies=planned.stages,
            part=planned.part,
            is_gathered=planned.is_gathered,
            on_error=self._on_error,
            sources=planned.origins,
            partitions=sum(stages for stages, each in self._plan.ways() if each.to == planned.number),
            number=None if first is None else first + index,
            functions=functions,
        )
        exchange = self._exchange(way, work.errors)
        memory = self._memories.get(planned.number)
        if memory is not None:
            # Worker processes start faster without it.
            from broadway_py.flow.stages.memory_stage import MemoryStage  # noqa: PLC0415

            at_once = way.to is None and self._exits[way.exit].takes_at_once
            return MemoryStage(planned, index, work, exchange, clock=self._clock, memory=memory, leaves_at_once=at_once)
        hop = None if self._make_hop is None else self._make_hop(f"flow.{planned.number}.{index}")
        return SubscribedStage(planned, index, work, exchange, clock=self._clock, hop=hop)

    def _connect(self) -> None:
        placement, here = self._placement, self._placement.here
        # The same in each process: so an edge has the same number at both of its ends.
        for number, (end, index) in enumerate(self._edges()):
            place = PARENT if end.way.to is None else placement.of_stage(index)
            if place == here:
                self._subscribe(end, index, self._producer(end, number))
            elif end.outlet is not None and self._remote is not None:
                subscribe_ = partial(_connected, end.outlet, end.way, index)
                own = 0 if end.stage is None else end.stage[1]
                consumer = self._remote.add_consumer(place, number, end.label, own, subscribe_)
                self._consumers.append((end.stage, consumer))
        for stage in self._stages.values():
            if isinstance(stage, SubscribedStage):
                stage.ask_first()
        if here == PARENT:
            for each in self._exits:
                each.ask_first()

    def _producer(self, end: _End, number: int) -> Producer:
        if end.outlet is not None:
            return end.outlet
        assert self._remote is not None  # noqa: S101  # without other processes, all outlets are here
        return self._remote.producer(end.place, number, end.label)

    def _subscribe(self, end: _End, index: int, producer: Producer) -> None:
        way = end.way
        if way.to is None:
            self._exits[way.exit].subscribe(producer, way.lists)
        else:
            stage = self._stages[way.to, index]
            assert isinstance(stage, SubscribedStage)  # noqa: S101  # a source in memory has no edges
            stage.subscribe(producer, way.lists, end.origins)

    def _edges(self) -> Iterator[tuple[_End, int]]:
        """Yields each edge of the plan: where its lists come from, and the index of the stage that they go to."""
        placement = self._placement
        for source in self._plan.sources:
            if source.way.to in self._memories:
                continue
            for place in placement.of_source(source):
                outlet = self._sources[source.number].outlet if place == placement.here else None
                end = _End(place, outlet, source.way, (source.number,), operator_of(source.source), None)
                for index in range(source.way.stages):
                    if placement.is_connected(source, place, placement.of_stage(index)):
                        yield end, index
        for planned in self._plan.layers:
            first = planned.first_origin
            for own in range(planned.stages):
                stage = self._stages.get((planned.number, own))
                origins = planned.origins if first is None else (first + own,)
                outlet = None if stage is None else stage.outlet
                place, key = placement.of_stage(own), (planned.number, own)
                end = _End(place, outlet, planned.way, origins, _label(planned), key)
                yield from ((end, index) for index in range(planned.way.stages))

    def start(
        self,
        group: asyncio.TaskGroup,
        stopped: Callable[[StageReport], object] | None = None,
        *,
        context_of: Callable[[str], Context] | None = None,
    ) -> None:
        """Starts the tasks of the sources and stages, in a group of the current task.

        Args:
            group: it ends behind them.
            stopped: called when a stage has ended; None: nobody wants to know.
            context_of: returns the context in which a stage runs, by what it is called; None: the current one.
        """
        main = asyncio.current_task()
        for source in self._sources.values():
            group.create_task(_host(source, main), name=source.name)
        for stage in self._stages.values():
            context = None if context_of is None else context_of(f"{stage.planned.name}, stage {stage.index}")
            group.create_task(_host(stage, main, stopped), name=stage.name, context=context)

    def counts(self) -> Counts:
        """Returns what was done here so far, for a person who waits."""
        waiting = dict.fromkeys([*(each.name for each in self._plan.layers), _RESULT], 0)
        senders: list[SourceStage | FlowStage] = [*self._sources.values(), *self._stages.values()]
        for sender in senders:
            to = sender.planned.way.to
            waiting[_RESULT if to is None else self._plan.layers[to].name] += sender.outlet.backlog
        for stage in self._stages.values():
            waiting[stage.planned.name] += stage.waiting
        waiting[_RESULT] += sum(each.waiting for each in self._exits)
        return Counts(self._elements_in(), sum(each.read_bytes.count for each in self._sources.values()), waiting)

    def _elements_in(self) -> int:
        sources: list[SourceStage | InMemory] = [*self._sources.values(), *self._memories.values()]
        return sum(source.given for source in sources)

    def report(self) -> HostReport:
        """Returns what was done here."""
        skipped: dict[str, int] = {}
        for errors in self._errors:
            for operator, count in errors.skipped.items():
                skipped[operator] = skipped.get(operator, 0) + count
        sent_bytes = dict.fromkeys(self._stages, 0)
        for sender, consumer in self._consumers:
            if sender is not None:
                sent_bytes[sender] += consumer.sent_bytes
        unheard = [stage.work for stage in self._stages.values() if stage.planned.layer.on_late is None]
        return HostReport(
            self._elements_in(),
            sum(stage.work.late for stage in self._stages.values()),
            sum(stage.work.ahead for stage in self._stages.values()),
            sum(work.late + work.ahead for work in unheard),
            sum(consumer.sent_bytes for _, consumer in self._consumers),
            skipped,
            self._collected(),
            {place: _report_of(stage, sent_bytes[place]) for place, stage in self._stages.items()},
        )

    def _collected(self) -> tuple[CollectedError, ...]:
        kept = [failed for errors in self._errors for failed in errors.collected][:_MOST_ERRORS]
        return tuple(
            CollectedError(
                None if failed.index is None else place_of(failed.first, failed.index), failed.operator, failed.error
            )
            for failed in kept
        )


async def _host(
    stage: SourceStage | FlowStage,
    main: asyncio.Task[Any] | None,
    stopped: Callable[[StageReport], object] | None = None,
) -> None:
    """Runs a stage. A function that cancels the task of its stage fails: others would wait for this stage."""
    try:
        await stage.run()
    except asyncio.CancelledError as cancelled:
        if main is None or main.cancelling():
            raise
        error = RuntimeError("a function has cancelled the task that it runs in")
        error.__cause__ = cancelled
        raise FlowFailed(stage.operator, error, stage=stage.index) from error
    finally:
        if stopped is not None and isinstance(stage, FlowStage):
            stopped(_report_of(stage, 0))  # who wants to know has no stages in other processes


def _connected(outlet: FlowOutlet, way: Way, index: int, consumer: Consumer) -> Edge[Frame]:
    return subscribe(outlet, consumer, way.lists, index)


def _label(planned: PlannedLayer) -> str:
    """Returns what makes the elements that leave a layer, for errors."""
    layer = planned.layer
    last = (*layer.mappers, layer.reduction, layer.join, layer.departition, layer.emission, *layer.after)
    return next((each.label for each in reversed(last) if each is not None), layer.label)


def _report_of(stage: FlowStage, sent_bytes: int) -> StageReport:
    work = stage.work
    return StageReport(
        stage.planned.name,
        stage.index,
        work.taken,
        work.given,
        work.late,
        stage.busy_seconds,
        sent_bytes,
        work.windows_opened,
        work.windows_closed,
    )
