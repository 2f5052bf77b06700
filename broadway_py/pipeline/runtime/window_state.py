"""The state of a pipeline's aggregators: opened before its stages run, closed after they have ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from broadway_py._core.aggregation.progress import Progress
from broadway_py.error_text import name_of
from broadway_py.errors import OptionsError
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.contexts import drive
from broadway_py.pipeline.deduplication.handled_ids import FACTS, NAME, HandledIds
from broadway_py.pipeline.stages.aggregator import AggregatorStage
from broadway_py.pipeline.stages.services import Services
from broadway_py.state.facts import window_text
from broadway_py.state.json_kinds import name_of as type_name_of
from broadway_py.state.store import AggregatorFacts, StateStore

__all__ = ["PartitionState", "WindowState", "facts_of"]

log = logger("broadway_py.pipeline")

#: Why a pipeline is not ready while it is not known yet how much there is to load.
_OPENING = "the state is being opened"


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The state of one partition; of the whole pipeline, if its sources have none."""

    #: Where its windows are stored.
    store: StateStore
    #: The stages of the aggregators. None of them runs before the state is open.
    stages: Sequence[AggregatorStage]
    #: Of each producer, what it has delivered, and the seconds after which what a process that died has held is
    #: delivered again.
    returning: Sequence[tuple[Progress, float]]
    #: The ids of handled messages; None without ``deduplicate_by``.
    ids: HandledIds | None = None

    @property
    def was_clean(self) -> bool:
        """True if all that was delivered before this start is stored or settled."""
        return all(stage.keeper.was_clean for stage in self.stages)


class WindowState:
    """Opens the stores of a pipeline, and loads the windows of each aggregator.

    The stores are opened one after the other, in the order of their partitions. If another process has one, the
    pipeline waits for it, and reads none of its sources meanwhile.

    Args:
        services: the services of the pipeline.
        definitions: the aggregators.
        parts: the state of each partition. Its stages are in the order of *definitions*.
        prepare: called first, in a thread. It may return a warning. None: nothing is to be done before.
    """

    def __init__(
        self,
        services: Services,
        definitions: Sequence[AggregatorDefinition],
        parts: Sequence[PartitionState],
        *,
        prepare: Callable[[], str | None] | None = None,
    ) -> None:
        self._services = services
        self._definitions = definitions
        self._parts = parts
        self._prepare = prepare
        self._stages = [stage for part in parts for stage in part.stages]
        self._waits_for: str | None = None
        self._is_ready = False
        self._set_up: list[AggregatorDefinition] = []
        self._log = log.bind(pipeline=services.name)

    @property
    def trouble(self) -> str | None:
        """Why the pipeline cannot read its sources yet, in one sentence; None if it can."""
        if self._is_ready:
            return None
        if self._waits_for is not None:
            return self._waits_for
        trouble = next((one for stage in self._stages if (one := stage.keeper.committer.trouble) is not None), None)
        if trouble is not None:
            return trouble
        ids = [part.ids for part in self._parts if part.ids is not None]
        if ids and all(stage.keeper.loader.loaded == stage.keeper.loader.to_load for stage in self._stages):
            loaded, all_of_them = sum(one.loaded for one in ids), sum(one.to_load for one in ids)
            if all_of_them == 0:
                return _OPENING
            return f"the ids of handled messages are being loaded: {loaded} of {all_of_them}"
        loaded = sum(stage.keeper.loader.loaded for stage in self._stages)
        all_of_them = sum(stage.keeper.loader.to_load for stage in self._stages)
        if all_of_them == 0:
            return _OPENING
        return f"the windows are being loaded: {loaded} of {all_of_them}"

    async def open(self) -> None:
        """Lock the stores, load all windows, and run ``setup`` of each aggregator. A cancellation ends it at any point.

        Raises:
            StorageError: a store cannot be used.
            OptionsError: what ``initial`` of an aggregator returns cannot be stored.
            Exception: what ``setup`` or ``upgrade`` of an aggregator raised.
        """
        facts = {definition.name: facts_of(definition) for definition in self._definitions}
        if any(part.ids is not None for part in self._parts):
            facts[NAME] = FACTS
        if self._prepare is not None:
            doubt = await asyncio.to_thread(self._prepare)
            if doubt is not None:
                self._log.warning(doubt)
        for part in self._parts:
            await part.store.open(facts, waiting=self._wait)
            self._waits_for = None
        for part in self._parts:
            await self._load(part)
        for definition, stage in zip(self._definitions, self._parts[0].stages, strict=True):
            self._set_up.append(definition)
            await self._call(definition.aggregator.setup)
            try:
                self._services.base.copy().run(stage.keeper.check_initial)
            except OptionsError as wrong:
                raise wrong.under("aggregators", definition.name) from None
        self._is_ready = True

    async def _load(self, part: PartitionState) -> None:
        for stage in part.stages:
            stage.emitter.add(await stage.keeper.load())
        if part.ids is not None:
            await part.ids.load()
        if not part.was_clean:
            self._stand(part)
        elif any(returns_within_s > 0 for _, returns_within_s in part.returning):
            await self._note_start(part.stages[0])

    async def close(self) -> None:
        """Wait for what is being stored, run ``teardown`` of each aggregator, and close the stores."""
        try:
            for stage in self._stages:
                await stage.close()
                await self._close_output(stage)
            for part in self._parts:
                if part.ids is not None:
                    await part.ids.close()
            for definition in self._set_up:
                try:
                    await self._call(definition.aggregator.teardown)
                except foreign_errors() as error:
                    self._log.error(
                        "teardown of an aggregator raised", aggregator=definition.name, exception=type(error).__name__
                    )
        finally:
            # All of them, also if one cannot be closed: another process may wait for the others.
            closed = await asyncio.gather(*(part.store.close() for part in self._parts), return_exceptions=True)
        errors = [one for one in closed if isinstance(one, BaseException)]
        if errors:
            raise errors[0]

    async def _close_output(self, stage: AggregatorStage) -> None:
        try:
            await stage.emitter.output.close()
        except foreign_errors() as error:
            # The state must be free for the next process all the same.
            self._log.warning("a sink could not be closed", aggregator=stage.key, exception=name_of(error))

    def _stand(self, part: PartitionState) -> None:
        """Let the watermarks wait for what a process that died may have held."""
        now = self._services.clock.monotonic()
        for progress, returns_within_s in part.returning:
            progress.stand(now, returns_within_s)

    async def _note_start(self, stage: AggregatorStage) -> None:
        """Store that a process runs, before it takes messages in. If it dies, the next start must know that."""
        keeper = stage.keeper
        commit, results = keeper.checkpoint(is_last=False, most_in_parts=0)
        commit, due = await keeper.with_results(commit, results, ())
        # It tries again until it is stored, or until a stop cancels it. Nothing is stored after such a stop.
        await keeper.committer.commit(commit)
        keeper.note_stored()
        stage.emitter.add(due)

    async def _call(self, method: Any) -> None:
        await drive(method(), self._services.base.copy())

    def _wait(self, sentence: str) -> None:
        self._waits_for = sentence
        self._log.warning(sentence)


def facts_of(definition: AggregatorDefinition) -> AggregatorFacts:
    """Returns what a store compares with what it has of this aggregator."""
    return AggregatorFacts(
        definition.version,
        window_text(definition.window.shape),
        type_name_of(definition.key_type),
        type_name_of(definition.acc_type),
        definition.has("upgrade"),
    )
