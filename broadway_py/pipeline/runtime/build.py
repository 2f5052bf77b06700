"""Builds a pipeline from its options: the services, and the connected stages."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from broadway_py._core.aggregation.tracked_ledger import ChildrenLedger
from broadway_py._core.ledger import Ledger
from broadway_py._core.rate import Rate
from broadway_py._core.restarts import Restarts
from broadway_py.aggregator import State
from broadway_py.clock import Clock
from broadway_py.options import INHERIT, Batcher, FailurePolicy, Processors, RateLimit
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.callbacks.definition import Callbacks
from broadway_py.pipeline.callbacks.threads import CallbackThreads
from broadway_py.pipeline.deduplication.deduplication import Deduplication
from broadway_py.pipeline.deduplication.naming import BY_ID
from broadway_py.pipeline.intake.copies import Copies
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.poison.isolation import Isolation
from broadway_py.pipeline.processes.callback_process import CallbackProcesses
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.pipeline.runtime.aggregators import Aggregators
from broadway_py.pipeline.runtime.batch_fill_check import warn_of_batches_that_never_fill
from broadway_py.pipeline.runtime.breaker import BreakerGuard
from broadway_py.pipeline.runtime.capacity import Capacity
from broadway_py.pipeline.runtime.deduplication import build_deduplication
from broadway_py.pipeline.runtime.dispatchers import (
    KeyOf,
    destination,
    in_room,
    partition_of,
    to_batch_processors,
    to_batchers,
    to_processors,
)
from broadway_py.pipeline.runtime.layout import Stages
from broadway_py.pipeline.runtime.run import PipelineRun
from broadway_py.pipeline.runtime.source_counts import SourceCounts
from broadway_py.pipeline.runtime.stores import Stores
from broadway_py.pipeline.runtime.topology import topology_of
from broadway_py.pipeline.runtime.window_state import PartitionState, WindowState
from broadway_py.pipeline.settlement.failure_plans import log_which_policy_counts
from broadway_py.pipeline.settlement.failure_router import FailureRouter
from broadway_py.pipeline.sources import Sources
from broadway_py.pipeline.stages.batch_processor import BatchProcessor, TracedBatchProcessor
from broadway_py.pipeline.stages.batcher import BatcherStage
from broadway_py.pipeline.stages.processor import Processor
from broadway_py.pipeline.stages.services import SUBMITTED, Meter, Services
from broadway_py.pipeline.stages.source import Source
from broadway_py.pipeline.tracers import new_tracer
from broadway_py.producer import Producer
from broadway_py.producer_description import described

__all__ = ["Builder", "Described", "Submissions", "batcher_names", "meters_of", "resize", "share_capacity"]


class Submissions(Producer):
    """The producer for messages of ``submit`` and ``push_messages``. The pipeline itself feeds it."""

    name = SUBMITTED


class Described(Protocol):
    """The options of a pipeline that the builder reads."""

    name: str
    processors: Processors
    batchers: Mapping[str, Batcher]
    context: Any
    failure: FailurePolicy | None
    partition_by: Any
    ordered: bool
    shutdown_timeout: float
    max_in_flight_bytes: int | None
    max_restarts: int
    max_seconds: float
    fail_fast: bool
    clock: Clock
    state: Any
    deduplicate_by: Any
    _uniform: Callable[[float, float], float] | None
    tracing: bool
    _counts_sources: bool


class Builder:
    """Builds the services and stages of a pipeline.

    It reads the options when the pipeline starts, because ``setup`` may have changed them.

    Args:
        pipeline: the pipeline with the options.
        sources: what the pipeline reads.
        callbacks: the callbacks of the pipeline.
        definitions: the aggregators, by name.
        in_processes: names of the layers whose callbacks run in worker processes.
        meters: the figures of each layer.
        publishers: what callbacks publish with.
        failure_is_given: True if the user has chosen the failure policy.
        request_stop: begins the drain.
    """

    def __init__(
        self,
        pipeline: Described,
        sources: Sources,
        callbacks: Callbacks,
        *,
        definitions: Mapping[str, AggregatorDefinition],
        in_processes: frozenset[str],
        meters: Mapping[str, Meter],
        publishers: Publishers,
        failure_is_given: bool,
        request_stop: Callable[[], None],
    ) -> None:
        self._pipeline = pipeline
        self._sources = sources
        self._callbacks = callbacks
        self._definitions = definitions
        self._in_processes = in_processes
        self._meters = meters
        self._publishers = publishers
        self._failure_is_given = failure_is_given
        self._request_stop = request_stop

    def _services(self, threads: CallbackThreads, isolation: Isolation | None) -> Services:
        pipeline = self._pipeline
        processes = None
        if self._in_processes:
            processes = CallbackProcesses(pipeline, self._in_processes, self._request_stop)
        return Services(
            pipeline.name,
            self._callbacks,
            pipeline.clock,
            pipeline.context,
            self._failure_router(),
            threads=threads,
            processes=processes,
            isolation=isolation,
            tracer=new_tracer(pipeline.name) if pipeline.tracing else None,
        )

    def _failure_router(self) -> FailureRouter | None:
        pipeline = self._pipeline
        if pipeline.failure is None:
            return None
        log_which_policy_counts(pipeline.name, self._sources.producers, failure_is_given=self._failure_is_given)
        return FailureRouter(
            pipeline.failure,
            pipeline.clock,
            request_stop=self._request_stop,
            ordered=pipeline.ordered,
            failure_is_given=self._failure_is_given,
            uniform=random.uniform if pipeline._uniform is None else pipeline._uniform,
        )

    def run(self, threads: CallbackThreads, rate_limit: RateLimit | None, isolation: Isolation | None) -> PipelineRun:
        """Returns the stages, connected and ready to run. Call it in the pipeline's own task, after ``setup``.

        Args:
            threads: the threads in which plain callbacks run.
            rate_limit: the rate limit at this moment.
            isolation: the isolation of the daemon's worker; None in a process that no daemon watches.
        """
        pipeline = self._pipeline
        services = self._services(threads, isolation)
        if services.tracer is not None:
            self._publishers.trace_by(services.tracer)
        stores = self._stores()
        aggregators = self._aggregators(services, stores)
        deduplication = self._deduplication(services, stores, aggregators)
        stages, gate, parts = _build(
            services,
            self._sources,
            pipeline.processors,
            pipeline.batchers,
            aggregators=aggregators,
            deduplication=deduplication,
            rate_limit=rate_limit,
            partition_by=pipeline.partition_by,
            fail_fast=pipeline.fail_fast,
            meters=self._meters,
            max_in_flight_bytes=pipeline.max_in_flight_bytes,
        )
        window_state: WindowState | None = None
        if stores is not None:
            window_state = WindowState(
                services,
                list(self._definitions.values()),
                [
                    replace(
                        parts.get(partition) or PartitionState(store, (), ()),
                        ids=None if deduplication is None else deduplication.parts[partition],
                    )
                    for partition, store in stores.by_partition.items()
                ],
                prepare=stores.prepare,
            )
        restarts = Restarts(pipeline.max_restarts, pipeline.max_seconds)
        return PipelineRun(
            services,
            stages,
            restarts,
            pipeline.shutdown_timeout,
            _guard(services, stages, gate),
            gate=gate,
            topology=topology_of(
                pipeline.name,
                self._sources.producers,
                pipeline.processors,
                pipeline.batchers,
                aggregators=self._definitions,
                publishers=self._publishers,
            ),
            publishers=self._publishers,
            fail_fast=pipeline.fail_fast,
            window_state=window_state,
            source_counts=SourceCounts(services, stages.sources) if pipeline._counts_sources else None,
        )

    def _stores(self) -> Stores | None:
        """Returns the stores of the state; None if the pipeline keeps none."""
        state: State | None = self._pipeline.state
        if state is None or not (self._definitions or self._pipeline.deduplicate_by is not None):
            return None
        return Stores(state, self._sources)

    def _aggregators(self, services: Services, stores: Stores | None) -> Aggregators | None:
        if not self._definitions or stores is None:
            return None
        return Aggregators(services, self._definitions, stores, self._sources)

    def _deduplication(
        self, services: Services, stores: Stores | None, aggregators: Aggregators | None
    ) -> Deduplication | None:
        by = self._pipeline.deduplicate_by
        if by is None or stores is None:
            return None
        return build_deduplication(
            services,
            stores,
            self._sources,
            None if by == BY_ID else by,
            key_of=in_room(services, _key_of(self._pipeline)) if self._pipeline.ordered else None,
            progresses=None if aggregators is None else aggregators.progresses,
        )


def _key_of(pipeline: Described) -> KeyOf | None:
    """Returns the function by which messages are given to processors."""
    own = pipeline.processors.partition_by
    key_of: KeyOf | None = pipeline.partition_by if own is INHERIT else own
    return key_of


def meters_of(batchers: Iterable[str], aggregators: Iterable[str] = ()) -> dict[str, Meter]:
    """Returns the figures of each layer, all zero."""
    layers = ["processors", *(f"{kind}:{key}" for key in batchers for kind in ("batcher", "batch_processors"))]
    layers += [f"{kind}:{key}" for key in aggregators for kind in ("aggregator", "emitter")]
    return {layer: Meter() for layer in layers}


def _guard(services: Services, stages: Stages, gate: Gate) -> BreakerGuard | None:
    router = services.router
    if router is None or router.breaker is None:
        return None
    guard = BreakerGuard(
        services.name, router, router.breaker, stages, gate=gate, settler=services.settler, clock=services.clock
    )
    # Not by the constructor: the stages need the router, and the guard needs the stages.
    router.breaker_moved = guard.moved
    return guard


def _build(
    services: Services,
    reads: Sources,
    processors: Processors,
    batchers: Mapping[str, Batcher],
    *,
    aggregators: Aggregators | None,
    deduplication: Deduplication | None,
    rate_limit: RateLimit | None,
    partition_by: KeyOf | None,
    fail_fast: bool,
    meters: Mapping[str, Meter],
    max_in_flight_bytes: int | None,
) -> tuple[Stages, Gate, Mapping[int | None, PartitionState]]:
    """Make every stage and subscribe it to the layer before it. Returns also the aggregators of each partition."""
    gate = Gate(None if rate_limit is None else Rate(rate_limit.allowed_messages, rate_limit.interval))
    demands = {} if aggregators is None else aggregators.demands
    if aggregators is not None:
        services.children = ChildrenLedger("", services.settler)
    producers = reads.producers
    capacity = Capacity(processors, batchers, demands.values(), len(reads.owned))
    warn_of_batches_that_never_fill(services.name, list(producers.values()), batchers, capacity)
    names = batcher_names([*batchers, *demands])
    key_of = partition_by if processors.partition_by is INHERIT else processors.partition_by
    dispatcher = partial(to_processors, processors.concurrency, in_room(services, key_of))
    sources: list[Source] = []
    ledgers: list[Ledger] = []
    transformer = services.callbacks.transformer
    for name, description in producers.items():
        ledger = Ledger(name, services.settler) if aggregators is None else aggregators.ledger(name)
        ledgers.append(ledger)
        if deduplication is not None:
            ledger.readers = deduplication.readers[name]
        copies, share = Copies(description), capacity.of_copy(description.concurrency)
        for index in range(description.concurrency):
            source = Source(
                services,
                copies,
                ledger,
                gate,
                meters["processors"],
                dispatcher=dispatcher(),
                index=index,
                capacity=share,
                most_in_flight=capacity.most_of_partition,
                fail_fast=fail_fast,
                transformer=transformer,
                ids=None if deduplication is None else deduplication.ids_of(name),
            )
            sources.append(source)
    ledgers.append(Ledger(Submissions.name, services.settler))
    submissions = Source(
        services,
        Copies(described(Submissions())),
        ledgers[-1],
        gate,
        meters["processors"],
        dispatcher=dispatcher(),
        index=0,
        capacity=capacity.of_submissions,
        fail_fast=False,
        transformer=None,
        internal=True,
    )
    stages = Stages(sources, submissions, [], [], [], ledgers)
    stages.partitions, stages.owned, stages.partition_of = reads.partitions, reads.owned, reads.partition_of
    if capacity.most_of_partition is not None:
        stages.most_of_partition = capacity.most_of_partition * len(reads.names_of(reads.owned[0]))
    stages.processors = [
        Processor(
            services,
            index,
            meters["processors"],
            names,
            processors.timeout,
            dispatcher=to_batchers(batchers, demands, reads.partition_of),
            aggregators=demands,
            partition_of=reads.partition_of,
            keyed=key_of is not None,
        )
        for index in range(processors.concurrency)
    ]
    for source in [*sources, submissions]:
        _connect_processors(source, stages.processors, processors)
    for name, options in batchers.items():
        own = in_room(services, partition_by if options.partition_by is INHERIT else options.partition_by)
        _add_batcher(
            stages,
            BatcherStage(
                services,
                name,
                options,
                meters[f"batcher:{name}"],
                partition_of=partition_of(own, options),
                dispatcher=to_batch_processors(options.concurrency, is_partitioned=own is not None),
            ),
            meters,
        )
    parts: Mapping[int | None, PartitionState] = {}
    if aggregators is not None:
        parts = aggregators.build(meters)
        stages.aggregators = [stage for part in parts.values() for stage in part.stages]
    _connect_to_batchers(stages, stages.processors)
    look_for_room = [source.cap.look for source in sources if source.cap is not None]
    if max_in_flight_bytes is not None:
        # Not by constructors: the sources need the gate, and their ledgers need the settler.
        gate.cap_bytes(max_in_flight_bytes, ledgers, [source.wake for source in [*sources, submissions]])
        look_for_room.append(gate.look_at_bytes)
    if look_for_room:
        services.settler.settled = partial(_call_each, look_for_room)
    return stages, gate, parts


def _call_each(functions: Iterable[Callable[[], None]]) -> None:
    for function in functions:
        function()


def batcher_names(batchers: Iterable[str]) -> dict[str, str]:
    """Returns the names that messages may use for the batchers. A single batcher is also called ``default``."""
    names = {name: name for name in batchers}
    if len(names) == 1:
        names.setdefault("default", next(iter(names)))
    return names


def share_capacity(stages: Stages, processors: Processors, batchers: Mapping[str, Batcher]) -> None:
    """Tell every source how many of its messages the pipeline can hold now."""
    demands = {stage.key: stage.options.max_demand for stage in stages.aggregators}
    capacity = Capacity(processors, batchers, demands.values(), len(stages.owned))
    copies = Counter(source.ledger.producer for source in stages.sources)
    for source in stages.sources:
        source.live.resize(capacity.of_copy(copies[source.ledger.producer]))


def _connect_processors(source: Source, processors: Sequence[Processor], options: Processors) -> None:
    for processor in processors:
        source.outlet.subscribe(processor.inlet, options.max_demand, options.refill_at, processor.index)


def _add_batcher(stages: Stages, batcher: BatcherStage, meters: Mapping[str, Meter]) -> None:
    layer = f"batch_processors:{batcher.key}"
    for index in range(batcher.options.concurrency):
        processor = (BatchProcessor if batcher.services.tracer is None else TracedBatchProcessor)(
            batcher.services,
            batcher.key,
            index,
            meters[layer],
            batcher.options.timeout,
            keyed=batcher.is_partitioned,
        )
        batcher.outlet.subscribe(processor.inlet, 1, 0, index)
        stages.batch_processors.append(processor)
    stages.batchers.append(batcher)


def resize(stages: Stages, make: Callable[[int], Processor], options: Processors) -> list[Processor]:
    """Bring the pool to the concurrency in *options*. Returns the new processors.

    If there are too many processors, the last ones retire. If there are too few, new ones are made and connected.
    Call it only for pools without ``partition_by``: the processor of a key depends on the number of processors.
    """
    wanted, have = options.concurrency, len(stages.processors)
    for processor in stages.processors[wanted:]:
        processor.retire()
        stages.retired.append(processor)
    del stages.processors[wanted:]
    # One without a task still has to be started: it tells the next layer that nothing comes from it.
    stages.retired = [one for one in stages.retired if one.call.task is None or not one.call.task.done()]
    fresh = [make(index) for index in range(have, wanted)]
    _connect_to_batchers(stages, fresh)
    for source in [*stages.sources, stages.submissions]:
        if not source.outlet.closed:
            for processor in fresh:
                source.outlet.subscribe(processor.inlet, options.max_demand, options.refill_at, processor.index)
    stages.processors += fresh
    return fresh


def _connect_to_batchers(stages: Stages, processors: Sequence[Processor]) -> None:
    for processor in processors:
        if processor.outlet is not None:
            for batcher in stages.batchers:
                demand = batcher.options.demand
                processor.outlet.subscribe(batcher.inlet, demand, demand // 2, batcher.key)
            for aggregator in stages.aggregators:
                demand, refill_at = aggregator.options.max_demand, aggregator.options.max_demand // 2
                if stages.most_of_partition is not None:
                    # All messages of its partition may wait in front of it. One more would wait in the processor, and
                    # stop the other partitions. The chunks stay as small as they would be.
                    chunk = demand - refill_at
                    demand = max(demand, stages.most_of_partition + chunk)
                    refill_at = demand - chunk
                name = destination(aggregator.key, aggregator.partition)
                processor.outlet.subscribe(aggregator.inlet, demand, refill_at, name)
