"""Builds the stages of a pipeline's aggregators, and what they stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from broadway_py._core.aggregation.identities import Identities
from broadway_py._core.aggregation.key_owners import KeyOwners
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.tracked_ledger import TrackedLedger
from broadway_py._core.identity import identity_of
from broadway_py._core.ledger import Ledger
from broadway_py.log import logger
from broadway_py.pipeline.aggregation.keeper import Keeper
from broadway_py.pipeline.aggregation.output import Output
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.intake.returning import returns_within_s
from broadway_py.pipeline.runtime.stores import Stores
from broadway_py.pipeline.runtime.window_state import PartitionState
from broadway_py.pipeline.sources import Sources
from broadway_py.pipeline.stages.aggregator import AggregatorStage
from broadway_py.pipeline.stages.emitter import Emitter
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.state.store import StateStore

__all__ = ["Aggregators"]

log = logger("broadway_py.pipeline")


class Aggregators:
    """The aggregators of one pipeline, being built. If the sources have partitions, each of them has stages for each.

    Args:
        services: the services of the pipeline.
        definitions: the aggregators by their names.
        stores: where their windows are stored.
        sources: what the pipeline reads.
    """

    def __init__(
        self,
        services: Services,
        definitions: Mapping[str, AggregatorDefinition],
        stores: Stores,
        sources: Sources,
    ) -> None:
        self._services = services
        self._definitions = definitions
        self._stores = stores
        self._state = stores.state
        self._sources = sources
        #: What each producer has delivered.
        self.progresses = {
            name: Progress(description.concurrency, name) for name, description in sources.producers.items()
        }
        # What the partitions of an aggregator share.
        self._emit_turns: dict[str, asyncio.Lock] = {}
        self._late_turns: dict[str, asyncio.Lock] = {}
        self._key_owners: dict[str, KeyOwners] = {}
        if len(sources.owned) > 1:
            self._emit_turns = {name: asyncio.Lock() for name in definitions}
            self._late_turns = {name: asyncio.Lock() for name in definitions}
            self._key_owners = {name: KeyOwners() for name in definitions}

    @property
    def demands(self) -> dict[str, int]:
        """How many messages each aggregator holds, in each partition."""
        return {name: definition.options.max_demand for name, definition in self._definitions.items()}

    def ledger(self, producer: str) -> Ledger:
        """Returns the ledger of the *producer* of this name."""
        services = self._services
        return TrackedLedger(
            producer,
            services.settler,
            progress=self.progresses[producer],
            identity_of=partial(identity_of, pipeline=services.name),
        )

    def build(self, meters: Mapping[str, Meter]) -> dict[int | None, PartitionState]:
        """Returns the stages of each partition, and their state; that of None if the sources have no partitions."""
        stores = self._stores.by_partition
        return {partition: self._part(partition, store, meters) for partition, store in stores.items()}

    def _part(self, partition: int | None, store: StateStore, meters: Mapping[str, Meter]) -> PartitionState:
        names = self._sources.names_of(partition)
        stages = [self._stage(definition, store, partition, meters) for definition in self._definitions.values()]
        returning = [
            (
                self.progresses[name],
                returns_within_s(
                    self._sources.producers[name],
                    process_died=True,
                    complain=log.bind(pipeline=self._services.name, producer=name).error,
                ),
            )
            for name in names
        ]
        return PartitionState(store, stages, returning)

    def _stage(
        self, definition: AggregatorDefinition, store: StateStore, partition: int | None, meters: Mapping[str, Meter]
    ) -> AggregatorStage:
        services, name = self._services, definition.name
        producers = self._sources.names_of(partition)
        keeper = Keeper(
            services.name,
            definition,
            store,
            clock=services.clock,
            progresses=[self.progresses[producer] for producer in producers],
            identities=self._identities(definition, producers),
            is_durable=not self._state.is_memory,
            partition=partition,
            key_owners=self._key_owners.get(name),
        )
        emitter = Emitter(
            services,
            name,
            meters[f"emitter:{name}"],
            Output(
                services.name,
                definition,
                keeper.records,
                keeper.shown,
                clock=services.clock,
                tracer=services.tracer,
            ),
            keeper.unwanted,
            most=definition.options.emit_batch,
            timeout_s=definition.options.emit_timeout,
            is_durable=not self._state.is_memory,
            partition=partition,
            turn=self._emit_turns.get(name),
        )
        return AggregatorStage(
            services,
            definition,
            meters[f"aggregator:{name}"],
            keeper,
            emitter,
            checkpoint_interval_s=self._state.checkpoint_interval,
            partition=partition,
            late_turn=self._late_turns.get(name),
        )

    def _identities(self, definition: AggregatorDefinition, producers: Sequence[str]) -> Identities:
        # A state in memory is refused for sources that deliver again what was not acked.
        lasting = () if self._state.is_memory else producers
        marking = {name for name in lasting if self._sources.producers[name].marks_repeats}
        aggregator = definition.aggregator
        return Identities(
            definition.name,
            looked_up=set(lasting) - marking,
            marking=marking,
            identity=aggregator.identity if definition.has("identity") else None,
            required=definition.options.require_identity,
            keep_s=self._state.dedup,
        )
