"""Aggregators: decide when messages are added to windows, when time passes, and when a checkpoint begins."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py.error_text import name_of, place_of
from broadway_py.errors import BroadwayError, PipelineCrashed
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.aggregation.keeper import Keeper
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.stages.adder import Adder
from broadway_py.pipeline.stages.aggregator_events import AggregatorEvents
from broadway_py.pipeline.stages.checkpoints import Checkpoints
from broadway_py.pipeline.stages.emitter import Emitter
from broadway_py.pipeline.stages.late_stage import LateStage
from broadway_py.pipeline.stages.refusals import Refusals
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Edge, Inlet
from broadway_py.state.codec import CodecError

__all__ = ["AggregatorStage"]

log = logger("broadway_py.pipeline")


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
        partition: the partition of the sources whose messages come here; None: the sources have none.
        late_turn: what the stages of all partitions share, so that one of them calls ``late`` at a time; None: there is
            only one.
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
        partition: int | None = None,
        late_turn: asyncio.Lock | None = None,
    ) -> None:
        super().__init__(services, f"aggregator:{definition.name}", partition or 0, meter)
        self.key = definition.name
        self.partition = partition
        self.options = definition.options
        self.inlet: Inlet[Message[Any]] = Inlet(self.wake)
        self.keeper = keeper
        self.emitter = emitter
        emitter.progress = self.wake
        keeper.changed = self.wake.set
        events = AggregatorEvents(services, self.key, self.index)
        self.checkpoints = Checkpoints(
            services,
            keeper,
            emitter,
            events,
            wake=self.wake,
            task_name=f"{self.name}.checkpoint",
            interval_s=checkpoint_interval_s,
            most_held=self.options.max_demand,
        )
        #: Hands out late messages; None: they fail.
        self.late: LateStage | None = None
        if definition.has("late"):
            self.late = LateStage(services, definition, meter, self.wake, index=self.index, turn=late_turn)
        refusals = Refusals(definition, self.conclusion, self.late)
        self.adder = Adder(
            services,
            keeper,
            self.checkpoints,
            events,
            refusals,
            conclusion=self.conclusion,
            call=self.call,
            wake=self.wake,
        )
        self._log = log.bind(pipeline=services.name, aggregator=self.key)
        # What sentences call it.
        self._called = f"aggregator {self.key!r}"
        if partition is not None:
            self._log = self._log.bind(partition=partition)
            self._called += f", partition {partition},"

    @property
    def full_of(self) -> str | None:
        """Why nothing is added now, in one sentence; None if nothing is wrong."""
        keeper, options = self.keeper, self.options
        if keeper.committer.trouble is not None:
            return f"{self._called} cannot store its checkpoints: {keeper.committer.trouble}"
        if self._has_most_open:
            return (
                f"{self._called} has {options.max_open} open windows (max_open), counted for each key; "
                "intake goes on when some of them have closed: raise max_open if that takes long"
            )
        if self._has_most_pending:
            return (
                f"{self._called} has {options.max_pending} results that emit has not taken (max_pending); "
                "intake goes on when it takes them"
            )
        return None

    @property
    def _has_most_open(self) -> bool:
        return self.keeper.aggregation.open >= self.options.max_open

    @property
    def _has_most_pending(self) -> bool:
        return len(self.emitter.pending) + self.keeper.aggregation.due >= self.options.max_pending

    @property
    def _room(self) -> int:
        """How many more messages may be taken in: what is late and not settled counts as held."""
        late = 0 if self.late is None else self.late.messages
        return self.options.max_demand - self.checkpoints.messages - late

    @property
    def _is_blocked(self) -> bool:
        """True while nothing is added because the store, ``emit`` or ``late`` takes its time."""
        if self.keeper.committer.trouble is not None or self._has_most_pending:
            return True
        return self.late is not None and self.late.messages > 0 and self._room <= 0

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
            await self.checkpoints.end()

    async def close(self) -> None:
        """Wait for the checkpoint that is being stored. Its messages keep no outcome: the sources are closed."""
        await self.checkpoints.close()

    async def _run(self) -> None:
        clock, inlet, keeper, checkpoints = self.services.clock, self.inlet, self.keeper, self.checkpoints
        while not self.call.cut:
            checkpoints.look()
            must_add_at = self._must_add_at()
            if must_add_at is not None and must_add_at <= clock.monotonic():
                await self._take_in()
                continue
            keeper.time.note_blocked(is_blocked=self._is_blocked)
            keeper.time.pass_time(keeper.aggregation)
            now = clock.monotonic()
            checkpoint_at = checkpoints.next_at(now)
            if checkpoint_at is not None and checkpoint_at <= now:
                await self._checkpoint()
            elif inlet and self._room > 0 and self._may_add:
                await self._take_in()
            elif keeper.time.goes_on(keeper.aggregation):
                await asyncio.sleep(0)
            elif inlet.finished and not (checkpoints.has_ended or keeper.aggregation.has_due):
                self._end()
            elif inlet.finished and self._is_over():
                break
            else:
                await self._wait(now, checkpoint_at)

    async def _wait(self, now: float, checkpoint_at: float | None) -> None:
        if self.inlet.flush_wanted:
            self.inlet.flush_wanted = False
            self.checkpoints.flush()
            if checkpoint_at is not None:
                return
        clock = self.services.clock
        next_change = self.keeper.time.next_change(self.keeper.aggregation)
        moments = [moment for moment in (checkpoint_at, next_change, self._must_add_at()) if moment is not None]
        is_full = bool(self.inlet)
        await self.wake.wait_until(min(moments, default=None), clock)
        if is_full:
            self.meter.backpressure_seconds += clock.monotonic() - now

    def _must_add_at(self) -> float | None:
        """Returns when messages must be added although there are too many windows, because time passes over them then.

        None: nothing waits for room for its window, or it waits for something else as well.
        """
        if not self.inlet or not self._has_most_open or self._is_blocked or self._room <= 0:
            return None
        return self.keeper.time.hold_ends_at(self.inlet.waiting())

    def _end(self) -> None:
        """Close the windows, if the sources have ended by themselves. After a stop they go on with the next start."""
        self.checkpoints.has_ended = True
        self.checkpoints.flush()
        if not self.services.is_stopping:
            self.keeper.end()

    def _is_over(self) -> bool:
        """Returns True if nothing more is to be done: all is stored, and handed out as far as a stop can do that."""
        is_stored = not (self.checkpoints.is_running or self.checkpoints.is_due)
        self.emitter.finish(more_come=not is_stored)
        if not is_stored:
            return False
        if self.late is not None:
            self.late.finish()
            if not self.late.has_ended:
                return False
        # What the emitter hands out leaves the file with one more checkpoint.
        return self.emitter.has_ended and not self.checkpoints.is_due

    async def _checkpoint(self) -> None:
        """Begin a checkpoint. If a value cannot be stored, its messages fail, and the next checkpoint begins soon."""
        try:
            await self.checkpoints.begin()
        except CodecError as error:
            if not self.keeper.can_go_back:
                raise
            # The drain gives them back if this is cut off.
            self.held = [*self.checkpoints.held.messages]
            if await self.adder.add_again(error):
                self.held = ()
                if self.checkpoints.has_ended:
                    self._end()  # the windows are open again

    # --- messages

    def _take(self) -> list[Message[Any]]:
        """Take what waits, up to what may be held, as one list: each list has its price."""
        room = self._room
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

    async def _take_in(self) -> None:
        """Add what waits. The drain gives it back if this is cut off."""
        clock = self.services.clock
        started = self.busy_since = clock.monotonic()
        self.held = self._take()
        if not await self.adder.add(self.held):
            return
        self.held = ()
        self.busy_since = None
        self.meter.busy_seconds += clock.monotonic() - started

    def take_all(self) -> list[Message[Any]]:
        """Take out and return the messages that wait in this stage, and those that no checkpoint contains."""
        self.wake.close()
        return [*self.checkpoints.take_held(), *self.inlet.remove(lambda _: True)]


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
