"""Aggregators: add messages to windows, store them with checkpoints, and settle what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar

from broadway_py._core.aggregation.identifier import Identified
from broadway_py._core.aggregation.identities import Sorted
from broadway_py._core.aggregation.outcome import Added
from broadway_py._core.aggregation.pending import DueResult
from broadway_py._core.backoff import Backoff
from broadway_py.error_text import name_of, place_of
from broadway_py.errors import BroadwayError, PipelineCrashed
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.committer import Committed
from broadway_py.pipeline.aggregation.held import Held
from broadway_py.pipeline.aggregation.keeper import Keeper
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.contexts import CleanRoom
from broadway_py.pipeline.stages.aggregator_events import AggregatorEvents
from broadway_py.pipeline.stages.emitter import Emitter
from broadway_py.pipeline.stages.refusals import Refusals
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Edge, Inlet
from broadway_py.state.codec import CodecError
from broadway_py.state.store import Commit
from broadway_py.storage.errors import StorageError

__all__ = ["AggregatorStage"]

R = TypeVar("R")

log = logger("broadway_py.pipeline")

#: How many seconds an ack may take to end once it is cancelled.
_CANCEL_S: Final = 0.1


class AggregatorStage(PipelineStage):
    """Adds messages to the windows of one aggregator. Its results leave through *emitter*.

    A message is held from the moment when it is added until a checkpoint with its effect is stored. Then it is acked.
    At most one checkpoint is being stored; meanwhile the stage goes on adding.

    Args:
        services: the services of the pipeline.
        definition: the aggregator.
        meter: the aggregator's figures.
        keeper: the windows, and where they are stored; they are loaded before the stage runs.
        emitter: hands out the results.
        checkpoint_interval_s: seconds from the first change to the checkpoint.
    """

    def __init__(
        self,
        services: Services,
        definition: AggregatorDefinition,
        meter: Meter,
        keeper: Keeper,
        emitter: Emitter,
        *,
        checkpoint_interval_s: float,
    ) -> None:
        super().__init__(services, f"aggregator:{definition.name}", 0, meter)
        self.key = definition.name
        self.options = definition.options
        self.inlet: Inlet[Message[Any]] = Inlet(self.wake)
        self.keeper = keeper
        self.emitter = emitter
        emitter.progress = self.wake
        keeper.changed = self.wake.set
        self._definition = definition
        self._events = AggregatorEvents(services, self.key, self.index)
        self._refusals = Refusals(services, definition, self.conclusion, self.call)
        self._room = CleanRoom(services.base)
        self._interval_s = checkpoint_interval_s
        self._held = Held()
        # The checkpoint that is being stored, and its messages.
        self._storing: asyncio.Task[None] | None = None
        self._stored_soon = Held()
        # When something first changed since the last checkpoint, by the monotonic clock.
        self._changed_at: float | None = None
        self._is_flushing = self._has_ended = self._is_marked_clean = self._is_closed = False
        # True while the messages of a stored checkpoint are acked. This may be cancelled, and storing may not.
        self._is_acking = False
        self._log = log.bind(pipeline=services.name, aggregator=self.key)
        #: How many late messages there were, by what made them late.
        self.late = {"event_time": 0, "held": 0}

    @property
    def held_messages(self) -> int:
        """How many messages were added and are not stored yet."""
        return len(self._held) + len(self._stored_soon)

    @property
    def full_of(self) -> str | None:
        """Why nothing is added now, in one sentence; None if nothing is wrong."""
        keeper, options = self.keeper, self.options
        if keeper.committer.trouble is not None:
            return f"aggregator {self.key!r} cannot store its checkpoints: {keeper.committer.trouble}"
        if keeper.aggregation.open >= options.max_open:
            return (
                f"aggregator {self.key!r} has {options.max_open} open windows (max_open), counted for each key; "
                "intake goes on when some of them have closed: raise max_open if that takes long"
            )
        if self._has_most_pending:
            return (
                f"aggregator {self.key!r} has {options.max_pending} results that emit has not taken (max_pending); "
                "intake goes on when it takes them"
            )
        return None

    @property
    def _has_most_pending(self) -> bool:
        return len(self.emitter.pending) + self.keeper.aggregation.due >= self.options.max_pending

    @property
    def _may_add(self) -> bool:
        if self.full_of is None:
            return True
        # Nothing more comes in during a stop. So what is here is added, however many windows and results there are.
        return self.services.is_stopping and self.keeper.committer.trouble is None

    async def run(self) -> None:
        """Add messages until every processor has ended, then hand out what is due. Or stop where the drain cuts off.

        Raises:
            PipelineCrashed: an error in the code of the library, or a value that cannot be stored. What is in memory
                cannot be trusted any more.
        """
        try:
            await self._run()
        except foreign_errors(cancellations=True) as error:
            if isinstance(error, asyncio.CancelledError) and (self.call.cut or _is_being_cancelled()):
                raise
            self._log.error("an aggregator crashed", exception=name_of(error), at=place_of(error))
            what = str(error) if isinstance(error, BroadwayError) else type(error).__name__
            raise PipelineCrashed(
                f"pipeline {self.services.name!r}, {self.layer}: {what}; nothing in memory is used any more, and what "
                "is stored goes on with the next start"
            ) from error
        finally:
            self.wake.close()
            self.keeper.committer.give_up()
            if self._storing is not None and not self._storing.done():
                # Never cancelled: what it stores would have an unknown outcome. See :meth:`close`.
                await asyncio.wait({self._storing})

    async def close(self) -> None:
        """Wait for the checkpoint that is being stored. Its messages keep no outcome: the sources are closed.

        An ack that has not returned is cancelled, because nobody waits for it any more.
        """
        self._is_closed = True
        if self._storing is None or self._storing.done():
            return
        if not self._is_acking:
            await asyncio.wait({self._storing})
            return
        self._storing.cancel()
        await asyncio.wait({self._storing}, timeout=_CANCEL_S)

    async def _run(self) -> None:
        clock, inlet, keeper = self.services.clock, self.inlet, self.keeper
        while not self.call.cut:
            self._look_at_storing()
            keeper.note_blocked(is_blocked=keeper.committer.trouble is not None or self._has_most_pending)
            keeper.pass_time()
            now = clock.monotonic()
            checkpoint_at = self._checkpoint_at(now)
            if checkpoint_at is not None and checkpoint_at <= now:
                await self._checkpoint()
            elif inlet and self.held_messages < self.options.max_demand and self._may_add:
                await self._take_in(self._take())
            elif inlet.finished and not self._has_ended:
                self._end()
            elif inlet.finished and self._is_over():
                break
            else:
                await self._wait(now, checkpoint_at)

    async def _wait(self, now: float, checkpoint_at: float | None) -> None:
        if self.inlet.flush_wanted:
            self.inlet.flush_wanted = False
            self._is_flushing = True
            if self._changed_at is not None and self._storing is None:
                return
        clock = self.services.clock
        moments = [moment for moment in (checkpoint_at, self.keeper.next_change()) if moment is not None]
        is_full = bool(self.inlet)
        await self.wake.wait_until(min(moments, default=None), clock)
        if is_full:
            self.meter.backpressure_seconds += clock.monotonic() - now

    def _end(self) -> None:
        """Close the windows, if the sources have ended by themselves. After a stop they go on with the next start."""
        self._has_ended = self._is_flushing = True
        if not self.services.is_stopping:
            self.keeper.end()

    def _is_over(self) -> bool:
        """Returns True if nothing more is to be done: all is stored and handed out."""
        if self._storing is not None or self._needs_checkpoint():
            return False
        self.emitter.finish()
        # What the emitter hands out leaves the file with one more checkpoint.
        return self.emitter.has_ended and not self._needs_checkpoint()

    # --- messages

    def _take(self) -> list[Message[Any]]:
        """Take what waits, up to what may be held, as one list: each list has its price."""
        room = self.options.max_demand - self.held_messages
        taken: list[Message[Any]] = []
        asks: list[tuple[Edge[Message[Any]], int]] = []
        while self.inlet and len(taken) < room:
            edge, messages, ask = self.inlet.take()
            taken += messages
            if ask:
                asks.append((edge, ask))
        for edge, ask in asks:
            edge.ask(ask)
        return taken

    async def _take_in(self, messages: Sequence[Message[Any]]) -> None:
        """Sort out the repeats, and add the others."""
        keeper = self.keeper
        started = self.busy_since = self.services.clock.monotonic()
        self.held = messages
        identities = keeper.identities
        if not identities.is_needed:
            await self._add(Sorted(list(messages)))
            self._rest_from(started)
            return
        identified = self._room.run(identities.identify, messages)
        if identified.failed:
            await self.conclusion.conclude((), identified.failed)
        wanted = identified.wanted
        found = await self._ask_store(lambda: keeper.find(wanted)) if wanted else set()
        if found is None:
            return  # cut off: the drain gives the messages back, which are still held
        left: Identified | None = identified
        while left is not None:
            one = identities.sort(left, found)
            await self._add(one)
            left = one.later
        self._rest_from(started)

    def _rest_from(self, started: float) -> None:
        self.held = ()
        self.busy_since = None
        self.meter.busy_seconds += self.services.clock.monotonic() - started

    async def _ask_store(self, ask: Callable[[], Awaitable[R]]) -> R | None:
        """Returns what *ask* does; None if the stage was cut off before the store could say it."""
        backoff = Backoff(0.1, 5.0, kind="exp")
        has_failed = False
        while not self.call.cut:
            try:
                answer = await ask()
            except StorageError as error:
                has_failed = True
                self.keeper.committer.note(error)
                self.keeper.note_blocked(is_blocked=True)
                await self._pause(backoff.failed())
            else:
                if has_failed:
                    # Otherwise the trouble, if there is one, is that checkpoints cannot be stored.
                    self.keeper.committer.note_success()
                return answer
        return None

    async def _pause(self, seconds: float) -> None:
        """Wait for so many seconds, or until cut off."""
        clock = self.services.clock
        until = clock.monotonic() + seconds
        while not self.call.cut and clock.monotonic() < until:
            await self.wake.wait_until(until, clock)

    async def _add(self, one: Sorted) -> None:
        keeper = self.keeper
        out: Added = self._room.run(keeper.add, one.new)
        if keeper.identities.is_needed:
            keeper.identities.hold(one, [*out.late, *(message for message, _ in [*out.failed, *out.ahead])])
        self._note_late(out.late)
        if out.added:
            keeper.note_times(out)
        self._held.messages += out.added
        self._held.repeats += one.of_held
        self._stored_soon.repeats += one.of_running
        keeper.arrive([*out.added, *one.of_held, *one.of_running])
        if one.of_committed:
            await self.services.settler.settle(one.of_committed)
        await self._refusals.settle(out)

    def _note_late(self, late: Sequence[Message[Any]]) -> None:
        event_clock = self.keeper.event_clock
        by_cause: dict[str, list[Message[Any]]] = {}
        for message in late:
            held = event_clock is not None and event_clock.was_held_too_long(message._ledger_entry)
            by_cause.setdefault("held" if held else "event_time", []).append(message)
        for why, messages in by_cause.items():
            self.late[why] += len(messages)
            self._events.late(messages, why)

    # --- checkpoints

    def _needs_checkpoint(self) -> bool:
        if self._has_ended and not self._is_marked_clean:
            return True  # the next start can rely on it
        return bool(self._held) or self.keeper.aggregation.is_changed or self.emitter.pending.has_emitted

    def _checkpoint_at(self, now: float) -> float | None:
        """Returns when the next checkpoint begins; None while one is being stored, and if nothing has changed."""
        if not self._needs_checkpoint():
            self._changed_at = None
            return None
        if self._changed_at is None:
            self._changed_at = now
        if self._storing is not None:
            return None
        if self._is_flushing or 2 * len(self._held) >= self.options.max_demand:
            return now
        return self._changed_at + self._interval_s

    async def _checkpoint(self) -> None:
        """Begin a checkpoint. If a value cannot be stored, its messages fail, and the next checkpoint begins soon."""
        try:
            await self._begin_checkpoint()
        except CodecError as error:
            if not self.keeper.can_go_back:
                raise
            await self._add_again(error)

    async def _add_again(self, error: CodecError) -> None:
        """Go back to what is stored, and add what is held again: now it turns out whose value cannot be stored."""
        keeper = self.keeper
        self._log.error(
            "a value cannot be stored; the messages since the last checkpoint are added again, one by one",
            messages=len(self._held.messages),
            reason=str(error),
        )
        # The drain gives them back if this is cut off.
        self.held = messages = [*self._held.messages]
        if await self._ask_store(keeper.go_back) is None:
            return
        self._held.messages = []
        out: Added = self._room.run(keeper.add, messages)
        self._held.messages = out.added
        self._note_late(out.late)
        gone = [*out.late, *(message for message, _ in [*out.failed, *out.ahead])]
        if keeper.identities.is_needed:
            keeper.identities.let_go(gone)
        await self._refusals.settle(out)
        self.held = ()

    async def _begin_checkpoint(self) -> None:
        commit, results = self.keeper.checkpoint(is_last=self._has_ended)
        # From here on the checkpoint will be stored, also if the stage is cut off meanwhile.
        self._stored_soon, self._held = self._held, Held()
        self._changed_at = None
        self._is_flushing = self._is_marked_clean = self._has_ended
        pending = self.emitter.pending
        emitted = pending.pop_emitted()
        try:
            commit, due = await self.keeper.with_results(commit, results, emitted)
        except CodecError:
            pending.keep_emitted(emitted)
            self._is_marked_clean = False
            self._hold_again()
            raise
        work = self._store(commit, due, self._events.fired(commit.number, results, due))
        self._storing = asyncio.get_running_loop().create_task(work, name=f"{self.name}.checkpoint")
        self._storing.add_done_callback(lambda _: self.wake.set())

    async def _store(self, commit: Commit, results: Sequence[DueResult], tell_fired: Callable[[], None] | None) -> None:
        """Store a checkpoint, ack its messages, hand on its results. Nobody cancels this."""
        keeper = self.keeper
        outcome = await self._commit(commit)
        if outcome == "stored":
            if tell_fired is not None:
                tell_fired()
            stored, self._stored_soon = self._stored_soon, Held()
            if self._is_closed:
                return
            self._is_acking = True
            await self.services.settler.settle([*stored.messages, *stored.repeats])
            self._is_acking = False
            keeper.note_acked(commit.number)
            self.emitter.add(results)
            await keeper.measure()
        elif outcome == "not_stored":
            # The drain gives them back.
            self._hold_again()
        # Otherwise they keep no outcome: they may be in the file, so they must not be delivered again as new ones.

    async def _commit(self, commit: Commit) -> Committed:
        """Store a checkpoint. Returns once it is stored, or when the time of a stop is over."""
        clock, committer = self.services.clock, self.keeper.committer
        started = clock.monotonic()
        span = self._events.checkpoint(commit.number, self._stored_soon)
        try:
            outcome = await committer.commit(commit)
        except foreign_errors() as error:
            if span is not None:
                span.exception(error)
            raise
        if outcome == "stored":
            self.keeper.note_stored()
            self.meter.duration.observe(clock.monotonic() - started)
            if span is not None:
                span.stop()
        elif span is not None and committer.error is not None:
            span.exception(committer.error)
        return outcome

    def _hold_again(self) -> None:
        """Hold the messages of the checkpoint that was begun, because nothing of it is stored."""
        self.keeper.identities.not_committed()
        again, self._stored_soon = self._stored_soon, Held()
        self._held = Held([*again.messages, *self._held.messages], [*again.repeats, *self._held.repeats])

    def _look_at_storing(self) -> None:
        if self._storing is not None and self._storing.done():
            task, self._storing = self._storing, None
            task.result()

    def take_all(self) -> list[Message[Any]]:
        """Take out and return the messages that wait in this stage, and those that no checkpoint contains."""
        self.wake.close()
        held, self._held = self._held, Held()
        return [*held.messages, *held.repeats, *self.inlet.remove(lambda _: True)]


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
