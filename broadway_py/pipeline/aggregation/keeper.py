"""The windows of one aggregator while it runs: in memory, and in the store."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Literal

from broadway_py._core.aggregation.aggregation import Aggregation
from broadway_py._core.aggregation.connected_time import ConnectedTime
from broadway_py._core.aggregation.event_clock import EventClock
from broadway_py._core.aggregation.identities import Identities
from broadway_py._core.aggregation.outcome import Added, Result
from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.aggregation.progress import Progress
from broadway_py._core.aggregation.tracked_ledger import arrive
from broadway_py._core.aggregation.values import Functions
from broadway_py._core.window.times import EventTime
from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.closing import asked_to_close
from broadway_py.pipeline.aggregation.committer import Committer
from broadway_py.pipeline.aggregation.records import Records
from broadway_py.pipeline.aggregation.types import Types
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.state.codec import Codec
from broadway_py.state.store import Commit, StateStore
from broadway_py.storage.errors import StorageError

__all__ = ["Keeper"]

log = logger("broadway_py.pipeline")

#: How many results are written before others can run.
_AT_ONCE: Final = 200

#: The size of the state is asked for at most so often, in seconds.
_SIZE_EACH_S: Final = 10.0

#: More than the rounding of seconds since 1970.
_ROUNDING_S: Final = 1e-6


def _nothing() -> None:
    """Does nothing."""


class Keeper:
    """Keeps the windows of one aggregator. :meth:`load` comes first.

    The clock of the windows is the wall clock at the start, and goes on with the monotonic clock. It begins no earlier
    than where it was when the last checkpoint was stored. So windows by the clock keep their bounds over a restart.

    Args:
        pipeline: the pipeline's name, for the log.
        definition: the aggregator.
        store: where the windows are stored. It is opened before :meth:`load`.
        clock: the pipeline's clock.
        progresses: what the producers have delivered.
        identities: which messages were there before.
        is_durable: False: the store ends with the process, so windows need not be written.
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
    ) -> None:
        self.identities = identities
        #: Called when something has changed that the stage must see.
        self.changed: Callable[[], object] = _nothing
        self.committer = Committer(store, clock, self._tell, pipeline=pipeline, aggregator=definition.name)
        #: Moves the watermark; None if the windows have no event time.
        self.event_clock: EventClock | None = None
        #: How many of the stored windows were loaded so far, and how many there are.
        self.loaded = self.to_load = 0
        self._log = log.bind(pipeline=pipeline, aggregator=definition.name)
        self._definition = definition
        self._store = store
        self._clock = clock
        self._progresses = progresses
        self._is_durable = is_durable
        codec: Codec[Any, Any] = Codec(definition.key_type, definition.acc_type)
        self._types = Types(definition.acc_type, codec, definition.aggregator.initial)
        #: Writes and reads what is stored.
        self.records = Records(definition.name, codec, definition.aggregator.upgrade, definition.version)
        # How far the clock of the windows is ahead of the monotonic clock, in seconds.
        self._ahead_s = clock.wall() - clock.monotonic()
        self._connected = ConnectedTime()
        self.aggregation = self._new()
        #: True if all that was delivered before this start is stored or settled.
        self.was_clean = False
        #: How many bytes the state of all aggregators of the pipeline takes, as far as known.
        self.state_bytes = 0
        self._measured_at = -math.inf
        self._is_blocked = False
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
        return Aggregation(definition.window, functions, self.now, is_stored=self._is_durable)

    # --- time

    @property
    def now(self) -> float:
        """The clock of the windows, in seconds."""
        return self._clock.monotonic() + self._ahead_s

    @property
    def connected_s(self) -> float:
        """For how many seconds all sources that have not ended were connected together, since the first start."""
        now = self._clock.monotonic()
        return self._connected.advance({one: one.active(now) for one in self._progresses if not one.has_ended})

    def pass_time(self) -> None:
        """Do what is due, and take the watermark to where it is now."""
        aggregation = self.aggregation
        if self.event_clock is not None:
            watermark = self.event_clock.watermark(self._clock.monotonic(), self._clock.wall())
            if watermark is not None and watermark != aggregation.watermark:
                aggregation.advance(watermark, self.now)
                return
        due = aggregation.next_timer()
        if due is not None and due <= self.now:
            aggregation.tick(self.now)

    def next_change(self) -> float | None:
        """Returns when :meth:`pass_time` has something to do next, by the monotonic clock; None: not by time alone."""
        due = self.aggregation.next_timer()
        # The two clocks are rounded differently, so it is a little later: not too early in any case.
        moments = [] if due is None else [due - self._ahead_s + _ROUNDING_S]
        if self.event_clock is not None:
            now, wall = self._clock.monotonic(), self._clock.wall()
            change = self.event_clock.next_change(now, wall, self.aggregation.next_due())
            if change is not None:
                moments.append(change)
        return min(moments, default=None)

    def note_blocked(self, *, is_blocked: bool) -> None:
        """Note whether the store or ``emit`` lets nothing be added now. No message is late because it has waited."""
        if is_blocked == self._is_blocked:
            return
        self._is_blocked = is_blocked
        for progress in self._progresses:
            progress.note_blocked(self._clock.monotonic(), is_blocked=is_blocked)

    def held_seconds(self, now: float) -> dict[str, float]:
        """Returns what holds the watermark, each with the seconds for which it has done so; 0: it does not."""
        if self.event_clock is None:
            return {}
        return {str(holder): seconds for holder, seconds in self.event_clock.held(now).items()}

    @property
    def can_go_back(self) -> bool:
        """True if :meth:`go_back` can help: the windows are stored, and it was not called since the last checkpoint."""
        return self._is_durable and not self.aggregation.checks_each

    def end(self) -> None:
        """Close all windows, because the sources have ended."""
        self.aggregation.end(self.now)

    # --- messages

    async def find(self, wanted: Collection[bytes]) -> set[bytes]:
        """Returns those identities that are stored."""
        return await self._store.find(self._definition.name, wanted)

    def add(self, messages: Sequence[Message[Any]]) -> Added:
        """Add *messages* to their windows."""
        return self.aggregation.add(messages, self.now, self._clock.wall())

    def note_times(self, out: Added) -> None:
        """Tell the event clock which times were added. It must hear this before the messages count as arrived."""
        event_clock, times = self.event_clock, out.times
        if event_clock is None or times is None or out.high is None:
            return
        first = out.added[0]._ledger_entry
        if first is out.added[-1]._ledger_entry and all(one._ledger_entry is first for one in out.added):
            event_clock.note(first, out.high)
            return
        highest: dict[Any, int] = {}
        for message, time in zip(out.added, times, strict=True):
            entry = message._ledger_entry
            if time > highest.get(entry, -math.inf):
                highest[entry] = time
        for entry, time in highest.items():
            event_clock.note(entry, time)

    def arrive(self, messages: Sequence[Message[Any]]) -> None:
        """Note that no watermark waits for *messages* any more."""
        arrive(messages, self._clock.monotonic())

    # --- checkpoints

    def checkpoint(self, *, is_last: bool) -> tuple[Commit, list[Result]]:
        """Returns what must be stored now without its results, and the results.

        With *is_last* nothing more comes in: what the sources have delivered is stored or settled.

        Raises:
            CodecError: a value cannot be stored. Only :meth:`go_back` helps.
        """
        made = self.aggregation.checkpoint(self.now)
        parts = [(part.bucket, self.records.part(part), len(part.entries)) for part in made.parts]
        identities = self.identities.begin(made.number)
        forget_before = self.identities.forget(self.connected_s)
        memory = {
            **made.memory,
            "now": self.now,
            "is_clean": is_last,
            "identities": self.identities.memory(self.connected_s),
        }
        commit = Commit(
            self._definition.name,
            made.number,
            json.dumps(memory, separators=(",", ":")).encode(),
            parts,
            made.dropped,
            identities,
            forget_before,
        )
        return commit, made.results

    async def with_results(
        self, commit: Commit, results: Sequence[Result], emitted: Sequence[int]
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
        due: list[DueResult] = []
        version = self._definition.version
        for one in results:
            due.append(DueResult(one.sequence, *self.records.result(one), version))
            if len(due) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if self._is_durable:
            stored = [(one.sequence, one.data) for one in due]
            commit = replace(commit, results=stored, emitted=emitted)
        return commit, due

    def note_stored(self) -> None:
        """Note that the last checkpoint is stored."""
        self.stored_at = self._clock.monotonic()
        self.identities.committed()
        self.aggregation.checked()

    async def measure(self) -> None:
        """Ask how many bytes the state takes, if that is not known or some time ago."""
        now = self._clock.monotonic()
        if self._is_durable and now >= self._measured_at + _SIZE_EACH_S:
            self._measured_at = now
            with suppress(StorageError):
                self.state_bytes = await self._store.size_bytes()

    def note_acked(self, number: int) -> None:
        """Note that the messages of the checkpoint *number* are acked."""
        self.identities.acked(number, self.connected_s)

    # --- the start

    async def load(self) -> list[DueResult]:
        """Take up what is stored. Returns the results that were not handed out."""
        name, store = self._definition.name, self._store
        loaded = await store.load(name)
        results: list[DueResult] = []
        watermark: int | None = None
        if loaded.memory is not None:
            memory = json.loads(loaded.memory)
            self.to_load = loaded.entries
            self.was_clean = memory["is_clean"]
            self._ahead_s = max(self._ahead_s, memory["now"] - self._clock.monotonic())
            self.aggregation = self._new()
            self.aggregation.restore(memory, loaded.number)
            watermark = self.aggregation.watermark
            await self._load_windows()
            self._close_as_asked(memory)
            self._connected = ConnectedTime(self.identities.restore(memory["identities"], loaded.number))
            if self.identities.in_memory:
                async for stored in store.identities(name):
                    for each in stored:
                        self.identities.load(each.number, each.identities)
                    await asyncio.sleep(0)
            async for due in store.results(name):
                results += [
                    DueResult(one.sequence, self.records.id_of(one.result), one.result, one.version) for one in due
                ]
        _ = self.connected_s  # it counts from now on
        window = self._definition.window
        if window.by is not None:
            settings: Any = window
            self.event_clock = EventClock(
                self._progresses,
                self._clock.monotonic(),
                delay=settings.delay,
                hold_timeout=settings.hold_timeout,
                idle_timeout=settings.idle_timeout,
                watermark=watermark,
                changed=self._tell,
            )
        self.stored_at = self._clock.monotonic()
        return results

    async def go_back(self) -> Literal[True]:
        """Take the windows back to what is stored, and check each value from now on. No checkpoint may run."""
        loaded = await self._store.load(self._definition.name)
        results = self.aggregation.results_by_trigger
        self.aggregation = self._new()
        self.aggregation.results_by_trigger = results
        self.aggregation.check_each()
        if loaded.memory is not None:
            memory = json.loads(loaded.memory)
            self.aggregation.restore(memory, loaded.number)
            await self._load_windows()
            self._close_as_asked(memory)
        return True

    def check_initial(self) -> None:
        """Check that the accumulator without messages can be stored.

        Raises:
            OptionsError: it cannot, or ``initial`` raises.
        """
        self._types.check_initial()

    async def _load_windows(self) -> None:
        async for rows in self._store.buckets(self._definition.name):
            for row in rows:
                part = self.records.read_part(row.bucket, row.blob, row.version)
                self.aggregation.reopen(part)
                self.loaded += len(part.entries)
            await asyncio.sleep(0)
        for _ in self.aggregation.restored():
            await asyncio.sleep(0)

    def _close_as_asked(self, memory: Mapping[str, Any]) -> None:
        is_asked, before = asked_to_close(memory)
        if is_asked:
            self.aggregation.close(before, self.now)
            self._log.info("windows were closed because an operator asked for it", results=self.aggregation.due)

    def shown(self, time: int | None) -> EventTime | None:
        """Returns a bound of a window in the kind that users know."""
        return self.aggregation.shown(time)

    def _tell(self) -> None:
        self.changed()
