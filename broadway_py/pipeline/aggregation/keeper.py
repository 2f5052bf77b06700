"""The windows of one aggregator while it runs: in memory, and in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

from pydantic_core import to_json

from broadway_py._core.aggregation.aggregation import Aggregation
from broadway_py._core.aggregation.identities import Identities
from broadway_py._core.aggregation.key_owners import KeyOwners
from broadway_py._core.aggregation.outcome import Added, Results
from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.values import Functions
from broadway_py._core.window.times import EventTime
from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.committer import Committer
from broadway_py.pipeline.aggregation.loader import Loader
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.aggregation.result_rows import rows_of
from broadway_py.pipeline.aggregation.types import Types
from broadway_py.pipeline.aggregation.window_clock import WindowClock
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.state.store import CloseWish, Commit, StateStore

__all__ = ["Keeper"]

log = logger("broadway_py.pipeline")


def _nothing() -> None:
    """Does nothing."""


class Keeper:
    """Keeps the windows of one aggregator. :meth:`load` comes first.

    Args:
        pipeline: the pipeline's name, for the log.
        definition: the aggregator.
        store: where the windows are stored. It is opened before :meth:`load`.
        clock: the pipeline's clock.
        progresses: what the producers have delivered.
        identities: which messages were there before.
        is_durable: False: the store ends with the process, so windows need not be written.
        partition: the partition of the sources whose messages these are; None: the sources have none.
        key_owners: the keys of the aggregator in all partitions of this process; None: it has not several of them.
    """

    def __init__(
        self,
        pipeline: str,
        definition: AggregatorDefinition,
        store: StateStore,
        *,
        clock: Clock,
        progresses: Sequence[Progress],
        identities: Identities,
        is_durable: bool = True,
        partition: int | None = None,
        key_owners: KeyOwners | None = None,
    ) -> None:
        #: The aggregator's name.
        self.name = definition.name
        self.identities = identities
        #: Called when something has changed that the stage must see.
        self.changed: Callable[[], object] = _nothing
        self.committer = Committer(store, clock, self._tell, pipeline=pipeline, aggregator=definition.name)
        #: The time of the windows.
        self.time = WindowClock(clock, definition.window, progresses, changed=self._tell)
        self._definition = definition
        self._store = store
        self._clock = clock
        #: False: what is stored ends with the process.
        self.is_durable = is_durable
        aggregator, codec = definition.aggregator, definition.codec
        self._types = Types(definition.acc_type, codec, aggregator.initial)
        #: Writes and reads what is stored.
        self.records = Records(definition.name, codec, aggregator.upgrade, definition.version, partition)
        #: Reads what is stored at the start.
        self.loader = Loader(pipeline, definition.name, store, self.records)
        self.aggregation = self._new()
        #: True if all that was delivered before this start is stored or settled.
        self.was_clean = False
        # What operators wanted to be closed at the start, until the results are stored.
        self._close_wish: CloseWish | None = None
        # How many results there were before the last checkpoint, by their trigger.
        self._results_before: Counter[str] = Counter()
        #: How many keys were seen here that had been seen in another partition of this process.
        self.keys_of_others = 0
        self._partition = partition
        self._key_owners = key_owners
        self._told_of: set[int] = set()
        self._log = log.bind(pipeline=pipeline, aggregator=definition.name)
        #: When the last checkpoint was stored, by the monotonic clock.
        self.stored_at = clock.monotonic()

    def _new(self) -> Aggregation:
        aggregator, types = self._definition.aggregator, self._types
        functions = Functions(
            aggregator.key,
            aggregator.initial,
            aggregator.add,
            aggregator.merge if self._definition.has("merge") else None,
            check_key=types.check_key,
            check_value=types.check_value,
            key_json=types.key_json,
            in_place=types.may_change_in_place,
        )
        definition = self._definition
        return Aggregation(definition.window, functions, self.time.now, is_stored=self.is_durable)

    # --- messages

    @property
    def state_bytes(self) -> int:
        """How many bytes the stored state of this aggregator has; 0 if none is stored."""
        return self._store.size_bytes(self._definition.name) if self.is_durable else 0

    async def unwanted(self) -> list[int]:
        """Returns the sequence numbers of the stored results that operators want to be removed."""
        return await self._store.unwanted(self._definition.name)

    async def find(self, wanted: Collection[bytes]) -> set[bytes]:
        """Returns those identities that are stored."""
        return await self._store.find(self._definition.name, wanted)

    def add(self, messages: Sequence[Message[Any]]) -> Added:
        """Add *messages* to their windows."""
        return self.aggregation.add(messages, self.time.now, self._clock.wall())

    def end(self) -> None:
        """Close all windows, because the sources have ended."""
        self.aggregation.end(self.time.now)

    # --- checkpoints

    def checkpoint(self, *, is_last: bool, most_in_parts: int) -> tuple[Commit, list[Results]]:
        """Returns what must be stored now without its results, and the results.

        Args:
            is_last: nothing more comes in. The last of what the sources have delivered may still be given back.
            most_in_parts: so many results that are taken in parts at most.

        Raises:
            CodecError: a value cannot be stored. Only :meth:`go_back` helps.
        """
        self._results_before = self.aggregation.results_by_trigger.copy()
        made = self.aggregation.checkpoint(self.time.now, most_in_parts)
        if self._key_owners is not None and self._partition is not None:
            stored = chain((part.entries for part in made.parts), (results.entries for results in made.results))
            keys = (entry[0] for entries in stored for entry in entries)
            self._note_others(self._key_owners.note(self._partition, keys))
        parts = [(part.bucket, self.records.part(part), len(part.entries)) for part in made.parts]
        identities = self.identities.begin(made.number)
        forget_before = self.identities.forget(self.time.connected_s)
        memory = {
            **made.memory,
            "now": self.time.now,
            "is_clean": is_last and self.time.is_settled,
            "awaited": self.time.memory(),
            "identities": self.identities.memory(self.time.connected_s),
        }
        commit = Commit(
            self._definition.name,
            made.number,
            to_json(memory),
            parts,
            made.dropped,
            identities,
            forget_before,
            closed=0 if self._close_wish is None else self._close_wish.number,
        )
        return commit, made.results

    def _note_others(self, others: Sequence[int]) -> None:
        """Note that keys of this checkpoint lie in *others*, too, one for each key."""
        self.keys_of_others += len(others)
        for other in set(others) - self._told_of:
            # Once for each pair: there may be very many such keys.
            self._told_of.add(other)
            self._log.error(
                "a key comes from two partitions of the source, so each of them counts a part of it, and their results "
                "have the same ids: see that the publishers give a key to one partition for ever",
                partition=self._partition,
                other=other,
            )

    async def with_results(
        self, commit: Commit, results: Sequence[Results], emitted: Sequence[int]
    ) -> tuple[Commit, list[DueResult]]:
        """Returns *commit* with *results*, and the results as they are stored.

        There can be many. So others can run now and then, and no value of *results* may change meanwhile.

        Args:
            commit: what :meth:`checkpoint` returned.
            results: the same.
            emitted: the results that were handed out since the last checkpoint.

        Raises:
            CodecError: a value cannot be stored. Only :meth:`go_back` helps.
        """
        due, rows = await rows_of(self.records, results, is_stored=self.is_durable)
        if self.is_durable:
            commit = replace(commit, results=rows, emitted=emitted)
        return commit, due

    def note_stored(self) -> None:
        """Note that the last checkpoint is stored."""
        self.stored_at = self._clock.monotonic()
        self._close_wish = None
        self.identities.committed()
        self.aggregation.checked()

    def note_acked(self, number: int) -> None:
        """Note that the messages of the checkpoint *number* are acked."""
        self.identities.acked(number, self.time.connected_s)

    # --- the start

    async def load(self) -> list[DueResult]:
        """Take up what is stored. Returns the results that were not handed out."""
        memory, loaded = await self.loader.memory()
        results: list[DueResult] = []
        connected_s = 0.0
        watermark: int | None = None
        awaited: dict[str, Any] = {}
        if memory is not None:
            self.was_clean = memory["is_clean"]
            self._close_wish = loaded.close_wish
            self.time.not_before(memory["now"])
            self.aggregation = self._new()
            self.aggregation.restore(memory, loaded.number)
            watermark = self.aggregation.watermark
            awaited = memory.get("awaited", {})  # older files have none
            await self.loader.windows(self.aggregation, self._close_wish, self.time.now)
            connected_s = self.identities.restore(memory["identities"], loaded.number)
            await self.loader.identities(self.identities)
            results = await self.loader.results()
        self.time.start(connected_s, watermark, awaited)
        self.stored_at = self._clock.monotonic()
        return results

    def check_initial(self) -> None:
        """Check that the accumulator without messages can be stored.

        Raises:
            OptionsError: it cannot, or ``initial`` raises.
        """
        self._types.check_initial()

    # --- going back

    @property
    def can_go_back(self) -> bool:
        """True if :meth:`go_back` can help: the windows are stored, and it was not called since the last checkpoint."""
        return self.is_durable and not self.aggregation.checks_each

    async def go_back(self) -> Literal[True]:
        """Take the windows back to what is stored, and check each value from now on. No checkpoint may run."""
        memory, loaded = await self.loader.memory()
        self.aggregation = self._new()
        self.aggregation.results_by_trigger = self._results_before.copy()
        self.aggregation.check_each()
        if memory is not None:
            self.aggregation.restore(memory, loaded.number)
            await self.loader.windows(self.aggregation, self._close_wish, self.time.now)
        return True

    # --- what users see

    def shown(self, time: int | None) -> EventTime | None:
        """Returns a bound of a window in the kind that users know."""
        return self.aggregation.shown(time)

    def _tell(self) -> None:
        self.changed()
