"""A stage that takes its lists from memory, when it works on them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from broadway_py.clock import Clock
from broadway_py.flow.description.operators import Reduction
from broadway_py.flow.frames import Frame
from broadway_py.flow.operator_errors import pass_cancellation_on
from broadway_py.flow.plan import PlannedLayer
from broadway_py.flow.stages.exchange import Exchange
from broadway_py.flow.stages.in_memory import InMemory
from broadway_py.flow.stages.stage import FlowStage
from broadway_py.flow.work.work import Work

__all__ = ["MemoryStage"]

#: A stage lets others go on after so many seconds.
_TURN_S: Final = 0.0005
#: The most elements that it takes at a time, also if it is quick: the next element may be slow.
_MOST_AT_ONCE: Final = 2_000


class MemoryStage(FlowStage):
    """One stage of a layer whose only source is in memory. It has no windows, and no thread.

    Args:
        planned: the layer.
        index: of the stage in its layer.
        work: what the stage does.
        exchange: cuts what comes out into lists for the next layer.
        clock: for busy times.
        memory: the lists.
        leaves_at_once: what comes out leaves the flow, and nobody waits for single lists.
    """

    def __init__(
        self,
        planned: PlannedLayer,
        index: int,
        work: Work,
        exchange: Exchange,
        *,
        clock: Clock,
        memory: InMemory,
        leaves_at_once: bool,
    ) -> None:
        super().__init__(planned, index, work, exchange, clock=clock)
        self._memory = memory
        reduction = planned.layer.reduction
        is_silent = reduction is not None and not (isinstance(reduction, Reduction) and reduction.emits)
        # True: nobody can tell lists from each other, so they have as many elements as are worked on in a short time.
        self._joins = work.is_direct and (leaves_at_once or is_silent)
        # How many elements are taken at a time.
        self._size = 1 if self._joins else memory.chunk

    async def _take_lists(self) -> None:
        outlet, memory = self.outlet, self._memory
        while not outlet.is_left:
            if outlet.demand <= 0:
                await self._wake.wait()
                continue
            frame = memory.take(self._size) if self._awaits else None
            if frame is not None:
                started = self._clock.monotonic()
                frames = await self.work.feed(frame, started)  # type: ignore[misc]  # it is a coroutine
                pass_cancellation_on()
                self._send(self._split(frames, frame), started)
            elif self._awaits or self._take_turn():
                await self._end()
                return
            # Others of this event loop must get their turn too.
            await asyncio.sleep(0)

    def _take_turn(self) -> bool:
        """Works on some lists, if nothing must be awaited. Returns True if there are no more of them."""
        monotonic, work, outlet, memory = self._clock.monotonic, self.work, self.outlet, self._memory
        started = now = monotonic()
        left = memory.share()
        out: list[Any] = []
        parts: list[Frame] = []
        try:
            while left > 0 and now - started < _TURN_S and len(parts) < outlet.demand:
                if (frame := memory.take(min(self._size, left))) is None:
                    return True
                left -= len(frame.elements)
                if self._joins:
                    work.feed_directly(frame, out)
                    self._size = _next_size(len(frame.elements), monotonic() - now)
                else:
                    parts += self._done(partial(work.feed, frame, now), frame)
                now = monotonic()
            return False
        finally:
            if out:
                parts += self._split(work.framed(out), None)
            self._send(parts, started)


def _next_size(size: int, seconds: float) -> int:
    """Returns how many elements to take at a time if it took so many seconds to work on *size* of them."""
    if seconds > _TURN_S:
        return max(1, int(size * _TURN_S / seconds))
    return min(size * 2, _MOST_AT_ONCE) if seconds < _TURN_S / 4 else size
