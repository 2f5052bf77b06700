"""From a pipeline's options to its connected stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from broadway_py._core.batching import Batch
from broadway_py._core.dispatch import DemandDispatcher, Dispatcher, PartitionDispatcher
from broadway_py._core.ledger import Ledger
from broadway_py._core.partition import partition_in_process
from broadway_py._core.rate import Rate
from broadway_py.errors import OptionsError
from broadway_py.foreign import foreign_errors
from broadway_py.message import Message
from broadway_py.options import INHERIT, Batcher, Processors, RateLimit
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.runtime.batch_fill_check import warn_of_batches_that_never_fill
from broadway_py.pipeline.runtime.layout import Stages
from broadway_py.pipeline.settlement.failures import failure_from
from broadway_py.pipeline.stages.batch_processor import BatchProcessor
from broadway_py.pipeline.stages.batcher import BatcherStage
from broadway_py.pipeline.stages.processor import Processor
from broadway_py.pipeline.stages.services import SUBMITTED, Meter, Services
from broadway_py.pipeline.stages.source import Source
from broadway_py.producer import Producer
from broadway_py.stage import Edge, Outlet

__all__ = ["Submissions", "batcher_names", "build", "named_producers", "refuse_shared_keys", "resize", "share_capacity"]

KeyOf = Callable[[Message[Any]], Any]


class Submissions(Producer):
    """Where ``submit`` and ``push_messages`` come in: a producer like any other, fed by its owner."""

    name = SUBMITTED


def named_producers(producers: Producer | Sequence[Producer]) -> dict[str, Producer]:
    """Producers by name; one without a name is called after its class.

    Raises:
        OptionsError: two of one name, or something that is no producer.
    """
    given: object = [producers] if isinstance(producers, Producer) else producers
    if not isinstance(given, list | tuple) or not given:
        raise OptionsError(("producer",), f"expected a Producer or a list of them, got {type(producers).__name__}")
    named: dict[str, Producer] = {}
    wrong: list[str] = []
    for each in given:
        if not isinstance(each, Producer):
            wrong.append(f"expected a Producer or a list of them, got {type(each).__name__}")
            continue
        name = each.name or type(each).__name__.removesuffix("Producer").lower() or "producer"
        if name in named:
            wrong.append(f"two producers are called {name!r}; give each a name= of its own")
        if name == Submissions.name:
            wrong.append(f"the name {name!r} is taken by the pipeline itself; choose another")
        named[name] = each
    if wrong:
        raise OptionsError.of(OptionsError(("producer",), problem) for problem in wrong)
    return named


def refuse_shared_keys(producers: Any, workers: int, path: Sequence[str]) -> None:
    """Refuse ``ordered`` where several workers could have messages of one key at the same time.

    Raises:
        OptionsError: at *path*; there is a source that does not keep keys apart.
    """
    given = producers if isinstance(producers, list | tuple) else [producers]
    if not all(isinstance(each, Producer) and each.keeps_keys_apart for each in given):
        raise OptionsError(
            path,
            f"a key must have one owner, but {workers} workers read the same source; set workers: 1, leave ordered "
            "off, or use an embedded queue with partitioned: true, whose messages are put with a key",
        )


def build(
    services: Services,
    producers: Mapping[str, Producer],
    processors: Processors,
    batchers: Mapping[str, Batcher],
    *,
    rate_limit: RateLimit | None,
    partition_by: KeyOf | None,
    fail_fast: bool,
    meters: Mapping[str, Meter],
    max_in_flight_bytes: int | None = None,
) -> tuple[Stages, Gate]:
    """Make every stage and subscribe it to the one before."""
    gate = Gate(None if rate_limit is None else Rate(rate_limit.allowed_messages, rate_limit.interval))
    capacity = _capacity(processors, batchers)
    warn_of_batches_that_never_fill(services.name, list(producers.values()), batchers, capacity)
    sources: list[Source] = []
    ledgers: list[Ledger] = []
    transformer = services.callbacks.transformer
    for name, description in producers.items():
        ledger = Ledger(name, services.settler)
        ledgers.append(ledger)
        share = _share(capacity, description.concurrency)
        for index in range(description.concurrency):
            source = Source(
                services,
                description,
                ledger,
                gate,
                meters["processors"],
                index=index,
                capacity=share,
                fail_fast=fail_fast,
                transformer=transformer,
            )
            sources.append(source)
    ledgers.append(Ledger(Submissions.name, services.settler))
    submissions = Source(
        services,
        Submissions(),
        ledgers[-1],
        gate,
        meters["processors"],
        index=0,
        capacity=capacity,
        fail_fast=False,
        transformer=None,
        internal=True,
    )
    stages = Stages(sources, submissions, [], [], [], ledgers)
    names = batcher_names(batchers)
    key_of = partition_by if processors.partition_by is INHERIT else processors.partition_by
    stages.processors = [
        Processor(services, index, meters["processors"], names, processors.timeout, keyed=key_of is not None)
        for index in range(processors.concurrency)
    ]
    for source in [*sources, submissions]:
        _connect_processors(source, stages.processors, processors, _in_room(services, key_of))
    for name, options in batchers.items():
        own = _in_room(services, partition_by if options.partition_by is INHERIT else options.partition_by)
        _add_batcher(
            stages, BatcherStage(services, name, options, meters[f"batcher:{name}"], _partition(own, options)), meters
        )
    _connect_to_batchers(stages, stages.processors)
    if max_in_flight_bytes is not None:
        gate.cap_bytes(max_in_flight_bytes, ledgers, [source.wake for source in [*sources, submissions]])
        services.settler.settled = gate.look_at_bytes
    return stages, gate


def batcher_names(batchers: Iterable[str]) -> dict[str, str]:
    """What messages may call the batchers: a single one is the default, whatever its name."""
    names = {name: name for name in batchers}
    if len(names) == 1:
        names.setdefault("default", next(iter(names)))
    return names


def _share(capacity: int, copies: int) -> int:
    return -(-capacity // copies)


def share_capacity(sources: Sequence[Source], processors: Processors, batchers: Mapping[str, Batcher]) -> None:
    """Tell every source how many messages the pipeline can hold now."""
    capacity = _capacity(processors, batchers)
    copies = Counter(source.ledger.producer for source in sources)
    for source in sources:
        source.live.resize(_share(capacity, copies[source.ledger.producer]))


def _capacity(processors: Processors, batchers: Mapping[str, Batcher]) -> int:
    """How many messages a pipeline holds when every processor and every batch is full."""
    gathered = sum(options.demand * (options.concurrency + 1) for options in batchers.values())
    return processors.concurrency * processors.max_demand + gathered


def _connect_processors(
    source: Source, processors: Sequence[Processor], options: Processors, key_of: KeyOf | None
) -> None:
    dispatcher: Dispatcher[Edge[Message[Any]], Message[Any]]
    if key_of is None:
        dispatcher = DemandDispatcher()
    else:
        dispatcher = PartitionDispatcher(range(len(processors)), _guarded(key_of, len(processors)))
    source.outlet = Outlet(dispatcher, source.wake)
    for processor in processors:
        source.outlet.subscribe(processor.inlet, options.max_demand, options.refill_at, processor.index)


def _guarded(key_of: KeyOf, partitions: int) -> Callable[[Message[Any]], int | None]:
    """A raise in ``partition_by`` fails that message, which then may go anywhere."""
    partition = partition_in_process(key_of, partitions)

    def guarded(message: Message[Any]) -> int | None:
        try:
            return partition(message)
        except foreign_errors() as error:
            # Code of the user: it fails this message alone.
            message.status = failure_from(error)
            return None

    return guarded


def _in_room(services: Services, key_of: KeyOf | None) -> KeyOf | None:
    """*key_of*, called in a clean context each time."""
    return None if key_of is None else partial(CleanRoom(services.base).run, key_of)


def _partition(key_of: KeyOf | None, options: Batcher) -> Callable[[Message[Any]], int | None] | None:
    return None if key_of is None else partition_in_process(key_of, options.concurrency)


def _add_batcher(stages: Stages, batcher: BatcherStage, meters: Mapping[str, Meter]) -> None:
    dispatcher: Dispatcher[Edge[Batch], Batch]
    concurrency = batcher.options.concurrency
    if batcher.is_partitioned:
        dispatcher = PartitionDispatcher(range(concurrency), lambda batch: batch.info.partition)
    else:
        dispatcher = DemandDispatcher()
    batcher.outlet = Outlet(dispatcher, batcher.wake)
    layer = f"batch_processors:{batcher.key}"
    for index in range(concurrency):
        processor = BatchProcessor(
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
    """Bring the pool to *options*' concurrency: the last ones retire, or new ones are made and connected; those.

    Only for pools without ``partition_by``: a key's owner is found by the number of processors.
    """
    wanted, have = options.concurrency, len(stages.processors)
    for processor in stages.processors[wanted:]:
        processor.retire()
        stages.retired.append(processor)
    del stages.processors[wanted:]
    stages.retired = [processor for processor in stages.retired if (task := processor.call.task) and not task.done()]
    fresh = [make(index) for index in range(have, wanted)]
    _connect_to_batchers(stages, fresh)
    for source in [*stages.sources, stages.submissions]:
        if not source.outlet.closed:
            for processor in fresh:
                source.outlet.subscribe(processor.inlet, options.max_demand, options.refill_at, processor.index)
    stages.processors += fresh
    return fresh


def _connect_to_batchers(stages: Stages, processors: Sequence[Processor]) -> None:
    batchers = {batcher.key: batcher.options for batcher in stages.batchers}
    if not batchers:
        return
    for processor in processors:
        processor.outlet = Outlet(
            DemandDispatcher()
            if len(batchers) == 1
            else PartitionDispatcher(list(batchers), lambda message: message.batcher),
            processor.wake,
        )
        for batcher in stages.batchers:
            demand = batchers[batcher.key].demand
            processor.outlet.subscribe(batcher.inlet, demand, demand // 2, batcher.key)
