"""A stage that takes lists from sources, and from the stages of other layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from broadway_py.clock import Clock
from broadway_py.flow.description.layers import Gather
from broadway_py.flow.frames import Frame
from broadway_py.flow.plan import PlannedLayer
from broadway_py.flow.stages.exchange import Exchange
from broadway_py.flow.stages.intake import Ended, Intake, Producer
from broadway_py.flow.stages.order import Released
from broadway_py.flow.stages.stage import FlowStage, Hop
from broadway_py.flow.work.work import Work
from broadway_py.stage import Edge

__all__ = ["SubscribedStage"]


class SubscribedStage(FlowStage):
    """One stage of a layer, which subscribes to what comes before it. The arguments are those of every stage."""

    def __init__(
        self, planned: PlannedLayer, index: int, work: Work, exchange: Exchange, *, clock: Clock, hop: Hop | None
    ) -> None:
        super().__init__(planned, index, work, exchange, clock=clock, hop=hop)
        self._intake = Intake(self._wake, index, planned.parts, planned.chunk)
        self._open_sources = set(planned.origins)
        # True: of a list without an origin, what comes out is sent as it is, unless it is too long.
        self._is_plain = exchange.is_plain and planned.first_origin is None
        self._most = exchange.most
        window = planned.layer.window
        self._has_timers = planned.layer.is_windowed
        self._needs_wall = window.max_ahead is not None
        # True if the clock of windows must stand still while nothing is taken.
        self._may_be_idle = window.by is not None and window.idle_timeout is not None
        self._is_paused = False

    @property
    def waiting(self) -> int:
        """How many lists wait for it here."""
        return self._intake.waiting

    def subscribe(self, outlet: Producer, lists: int, origins: Sequence[int]) -> None:
        """Subscribes to a producer, which sends lists of the sources *origins*."""
        self._intake.subscribe(outlet, lists, origins)

    def ask_first(self) -> None:
        """Asks all producers for the first lists. All consumers have subscribed by now."""
        self._intake.ask_first()

    async def _take_lists(self) -> None:
        intake, outlet, clock, work = self._intake, self.outlet, self._clock, self.work
        while not outlet.is_left:
            wants = outlet.demand > 0
            if self._may_be_idle and wants == self._is_paused:
                await self._pause_or_resume()
            timer = work.next_timer() if wants and self._has_timers else None
            if timer is not None and timer <= (now := clock.monotonic()):
                await self._do(partial(work.tick, now))
                continue
            taken = intake.next() if wants else None
            if type(taken) is Released:
                if self._awaits or taken.frame.is_last:
                    await self._work_on(taken)
                else:
                    self._work_directly(taken)
            elif type(taken) is Ended:
                await self._note_end(taken)
            elif wants and intake.has_ended:
                await self._end()
                return
            elif timer is None:
                await self._wake.wait()
            else:
                await self._wake.wait_until(timer, clock)

    def _leave(self) -> None:
        self._intake.leave()

    async def _pause_or_resume(self) -> None:
        """Tells the windows whether lists are taken: a source is not idle while nobody takes what it has."""
        self._is_paused = not self._is_paused
        tell = self.work.pause if self._is_paused else self.work.resume
        await self._do(partial(tell, self._clock.monotonic()))

    # --- what comes in

    async def _work_on(self, released: Released[Edge[Frame]]) -> None:
        frame, clock = released.frame, self._clock
        wall = clock.wall() if self._needs_wall else None
        await self._do(partial(self.work.feed, frame, clock.monotonic(), wall), frame)
        if frame.is_last and frame.origin is not None:
            await self._end_source(frame.origin.source)
        self._intake.ask_again(released)

    def _work_directly(self, released: Released[Edge[Frame]]) -> None:
        """Does the same as :meth:`_work_on` if nothing must be awaited, and no source ends."""
        frame, clock = released.frame, self._clock
        started = clock.monotonic()
        frames: Any = self.work.feed(frame, started, clock.wall() if self._needs_wall else None)
        if self._is_plain and frame.origin is None and self._is_short(frames):
            parts = frames
        else:
            parts = self._split(frames, frame)
        self._send(parts, started)
        self._intake.ask_again(released)

    def _is_short(self, frames: Sequence[Frame]) -> bool:
        return not frames or (len(frames) == 1 and len(frames[0].elements) <= self._most)

    async def _note_end(self, ended: Ended) -> None:
        if isinstance(self.planned.layer.route, Gather):
            await self._do(partial(self.work.partition_ended, ended.place, self._clock.monotonic()))
        for source in ended.origins:
            await self._end_source(source)

    async def _end_source(self, source: int) -> None:
        if source in self._open_sources:
            self._open_sources.discard(source)
            await self._do(partial(self.work.source_ended, source, self._clock.monotonic()))
