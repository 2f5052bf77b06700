"""Late stages: hand the late messages of an aggregator to the user's ``late``, one list at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from broadway_py.foreign import foreign_errors
from broadway_py.message import Failed, Message, Plain
from broadway_py.pipeline.callbacks.aggregators import AggregatorDefinition
from broadway_py.pipeline.contexts import drive
from broadway_py.pipeline.settlement.failures import fail, failure_from
from broadway_py.pipeline.stages.services import Meter, Services
from broadway_py.pipeline.stages.stage import PipelineStage
from broadway_py.stage import Wake

__all__ = ["LateStage"]


class LateStage(PipelineStage):
    """Hands out late messages, and settles them. Meanwhile its aggregator goes on adding and storing.

    It belongs to the layer of its aggregator. The aggregator counts its messages among those that it holds, so there
    are never more than ``max_demand``.

    Args:
        services: the services of the pipeline.
        definition: the aggregator. It has a method ``late``.
        meter: the aggregator's figures.
        progress: set when messages were settled, and when the stage has ended.
        index: the index of the aggregator's stage.
        turn: what the stages of all partitions share, so that one of them calls at a time; None: there is only one.
    """

    def __init__(
        self,
        services: Services,
        definition: AggregatorDefinition,
        meter: Meter,
        progress: Wake,
        *,
        index: int,
        turn: asyncio.Lock | None,
    ) -> None:
        super().__init__(services, f"aggregator:{definition.name}", index, meter)
        self._turn: asyncio.Lock | nullcontext[None] = nullcontext() if turn is None else turn
        self._late: Any = definition.aggregator.late
        self._timeout_s = definition.options.emit_timeout
        self._took_too_long = Plain(
            f"aggregators.{definition.name}.emit_timeout: late took longer than {self._timeout_s:g} s: make it faster, "
            "or raise emit_timeout"
        )
        self._progress = progress
        self._waiting: list[Message[Any]] = []
        self._is_last = False
        #: True once no task hands out messages any more.
        self.has_ended = False

    @property
    def name(self) -> str:
        """The name of the aggregator's stage, and ``late``."""
        return f"{super().name}.late"

    @property
    def queued(self) -> int:
        """How many messages wait for the call that runs."""
        return len(self._waiting)

    @property
    def messages(self) -> int:
        """How many messages were not settled yet."""
        return len(self.held) + len(self._waiting)

    def add(self, messages: Sequence[Message[Any]]) -> None:
        """Take over *messages*, which are late."""
        self._waiting += messages
        self.wake.set()

    def finish(self) -> None:
        """End when all messages are handed out: no more of them come."""
        self._is_last = True
        self.wake.set()

    async def run(self) -> None:
        """Hand out messages until :meth:`finish` was called and none is left, or until cut off."""
        clock = self.services.clock
        try:
            while not self.call.cut:
                if self._waiting:
                    started = self.busy_since = clock.monotonic()
                    self.held, self._waiting = self._waiting, []
                    await self._hand_out(self.held)
                    self.held = ()
                    self.busy_since = None
                    self.meter.busy_seconds += clock.monotonic() - started
                    self._progress.set()
                elif self._is_last:
                    break
                else:
                    await self.wake.wait()
            # Not after a crash: then it runs again, and the aggregator must wait for it.
            self.has_ended = True
        finally:
            self._progress.set()

    async def _hand_out(self, messages: Sequence[Message[Any]]) -> None:
        call = self.call
        limit: asyncio.Timeout | None = None
        try:
            with call.in_callback:
                async with self._turn, self.services.clock.timeout(self._timeout_s) as limit:
                    await drive(self._late(list(messages)), call.clean_context().copy())
        except foreign_errors() as error:
            # What late raises in time may be a TimeoutError as well.
            is_too_late = limit is not None and limit.expired()
            fail(messages, Failed("timeout", self._took_too_long, error) if is_too_late else failure_from(error))
            await self.conclusion.conclude((), messages)
        except asyncio.CancelledError as cancelled:
            if call.was_cut():
                await self.conclusion.give_back(messages)
                return
            fail(messages, failure_from(cancelled))
            await self.conclusion.conclude((), messages)
        else:
            await self.services.settler.settle(messages)

    def take_all(self) -> list[Message[Any]]:
        """Take out and return the messages that wait."""
        waiting, self._waiting = self._waiting, []
        return waiting
