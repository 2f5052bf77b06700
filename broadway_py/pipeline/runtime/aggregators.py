"""Builds the stages of a pipeline's aggregators, and what they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from broadway_py._core.aggregation.identities import Identities
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.tracked_ledger import TrackedLedger
from broadway_py._core.identity import identity_of
from broadway_py._core.ledger import Ledger
from broadway_py.aggregator import State
from broadway_py.log import logger
from broadway_py.pipeline.aggregation.keeper import Keeper
from broadway_py.pipeline.aggregation.output import Output
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.intake.returning import returns_within_s
from broadway_py.pipeline.runtime.window_state import WindowState
from broadway_py.pipeline.stages.aggregator import AggregatorStage
from broadway_py.pipeline.stages.emitter import Emitter
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.producer_description import ProducerDescription
from broadway_py.state.memory import MemoryStore
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import StateStore

__all__ = ["Aggregators"]


class Aggregators:
    """The aggregators of one pipeline, being built.

    Args:
        services: the services of the pipeline.
        definitions: the aggregators by their names.
        state: where their windows are stored.
        producers: all producers by their names.
    """

    def __init__(
        self,
        services: Services,
        definitions: Mapping[str, AggregatorDefinition],
        state: State,
        producers: Mapping[str, ProducerDescription],
    ) -> None:
        self._services = services
        self._definitions = definitions
        self._state = state
        self._producers = producers
        #: What each producer has delivered.
        self.progresses = {name: Progress(description.concurrency) for name, description in producers.items()}

    @property
    def demands(self) -> dict[str, int]:
        """How many messages each aggregator holds."""
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

    def build(self, meters: Mapping[str, Meter]) -> tuple[list[AggregatorStage], WindowState]:
        """Returns the stages, and the state that is opened before they run."""
        store: StateStore = MemoryStore() if self._state.is_memory else SQLiteStore(self._state.path)
        stages: list[AggregatorStage] = []
        for name, definition in self._definitions.items():
            keeper = Keeper(
                self._services.name,
                definition,
                store,
                clock=self._services.clock,
                progresses=list(self.progresses.values()),
                identities=self._identities(definition),
                is_durable=not self._state.is_memory,
            )
            output = Output(self._services.name, definition, keeper.records, keeper.shown, clock=self._services.clock)
            emitter = Emitter(
                self._services,
                name,
                meters[f"emitter:{name}"],
                output,
                most=definition.options.emit_batch,
                timeout_s=definition.options.emit_timeout,
            )
            stages.append(
                AggregatorStage(
                    self._services,
                    definition,
                    meters[f"aggregator:{name}"],
                    keeper,
                    emitter,
                    checkpoint_interval_s=self._state.checkpoint_interval,
                )
            )
        log = logger("broadway_py.pipeline").bind(pipeline=self._services.name)
        returning = [
            (
                self.progresses[name],
                returns_within_s(description, process_died=True, complain=log.bind(producer=name).error),
            )
            for name, description in self._producers.items()
        ]
        state = WindowState(self._services, store, list(self._definitions.values()), stages, returning=returning)
        return stages, state

    def _identities(self, definition: AggregatorDefinition) -> Identities:
        # A state in memory is refused for sources that deliver again what was not acked.
        lasting = {} if self._state.is_memory else self._producers
        marking = {name for name, one in lasting.items() if one.marks_repeats}
        aggregator = definition.aggregator
        return Identities(
            definition.name,
            looked_up=lasting.keys() - marking,
            marking=marking,
            identity=aggregator.identity if definition.has("identity") else None,
            required=definition.options.require_identity,
            keep_s=self._state.dedup,
        )
