"""What the stages of all layers share: a stage works on lists, and sends what comes out."""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from broadway_py.clock import Clock
from broadway_py.flow.failure import flow_failed
from broadway_py.flow.frames import Frame, Origin
from broadway_py.flow.operator_errors import OperatorError, pass_cancellation_on
from broadway_py.flow.plan import PlannedLayer
from broadway_py.flow.stages.exchange import Exchange
from broadway_py.flow.stages.intake import FlowOutlet
from broadway_py.flow.work.work import Reply, Work
from broadway_py.stage import Wake

__all__ = ["FlowStage", "Hop"]


class Hop(Protocol):
    """Calls the functions of a stage in a thread."""

    async def run(self, job: Callable[[], Any]) -> Any:
        """Returns what *job* returns, or raises what it raises."""

    async def close(self) -> None:
        """Ends the thread."""


class FlowStage(abc.ABC):
    """One stage of a layer. Subclasses take lists while somebody wants some.

    Args:
        planned: the layer.
        index: of the stage in its layer.
        work: what the stage does.
        exchange: cuts what comes out into lists for the next layer.
        clock: for busy times, and for the timers of windows.
        hop: calls the functions of the user; None: they are called in the event loop.
    """

    def __init__(
        self, planned: PlannedLayer, index: int, work: Work, exchange: Exchange, *, clock: Clock, hop: Hop | None = None
    ) -> None:
        self.planned = planned
        self.index = index
        self.work = work
        #: Seconds in which it has worked.
        self.busy_seconds = 0.0
        self._exchange = exchange
        self._clock = clock
        self._hop = hop
        self._wake = Wake()
        #: Its lists leave here.
        self.outlet = FlowOutlet(exchange.dispatcher(), self._wake)
        self._next_number = 0
        # False: nothing must be awaited, so lists are worked on without detours.
        self._awaits = hop is not None or work.is_async

    @property
    def operator(self) -> str:
        """What has failed, in errors of no function."""
        return self.planned.layer.label

    @property
    def name(self) -> str:
        """What the task is called."""
        return f"flow.{self.planned.number}.{self.index}"

    @property
    def waiting(self) -> int:
        """How many lists wait for it here."""
        return 0

    async def run(self) -> None:
        """Works until the input has ended, or nobody wants anything any more.

        Raises:
            FlowFailed: a function of the user has failed.
        """
        try:
            await self._do(partial(self.work.start, self._clock.monotonic()))
            await self._take_lists()
        except OperatorError as error:
            raise flow_failed(error.failed, self.index) from error.failed.error
        finally:
            self._wake.close()
            self._leave()
            if self._hop is not None:
                await self._hop.close()

    @abc.abstractmethod
    async def _take_lists(self) -> None:
        """Works on lists until there are no more of them, or nobody wants anything any more."""

    def _leave(self) -> None:  # noqa: B027  # a stage that takes its lists from memory has nobody to tell
        """Tells who sends lists that nothing more is wanted."""

    async def _end(self) -> None:
        await self._do(partial(self.work.end, self._clock.monotonic()))
        first = self.planned.first_origin
        if first is not None and self.planned.way.is_ordered:
            last = Frame([], origin=Origin(first + self.index, self._next_number), is_last=True)
            self.outlet.dispatch(self._exchange.split(last))
        while self.outlet.backlog and not self.outlet.is_left:
            await self._wake.wait()
        self.outlet.finish()

    async def _do(self, job: Callable[[], Reply], frame: Frame | None = None) -> None:
        """Does a part of the work, and sends what comes out."""
        started = self._clock.monotonic()
        hop, split = self._hop, self._exchange.has_work
        if self.work.is_async:
            # A coroutine that is made in a thread is lost if the flow ends before it comes back.
            frames = await job()  # type: ignore[misc]  # it is a coroutine
            pass_cancellation_on()
            done = partial(self._split, frames, frame)
            parts = done() if hop is None or not split else await hop.run(done)
        else:
            done = partial(self._done, job, frame)
            parts = done() if hop is None else await hop.run(done)
        self._send(parts, started)

    def _send(self, parts: list[Frame], started: float) -> None:
        """Sends what has come out of a part of the work that was begun at *started*."""
        self.busy_seconds += self._clock.monotonic() - started
        if parts:
            self.outlet.dispatch(parts)

    def _done(self, job: Callable[[], Any], frame: Frame | None) -> list[Frame]:
        return self._split(job(), frame)

    def _split(self, frames: list[Frame], came: Frame | None) -> list[Frame]:
        parts: list[Frame] = []
        for frame in frames:
            if self.planned.first_origin is not None:
                self._next_number += 1
            elif came is not None:
                frame.is_last = came.is_last
            parts += self._exchange.split(frame)
        return parts
