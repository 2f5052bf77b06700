"""Carries out what the circuit breaker decides: stop fetching, give back unstarted messages, probe, go on."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py._core.breaker import CircuitBreaker
from broadway_py.clock import Clock
from broadway_py.foreign import foreign_errors
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.runtime.layout import Stages
from broadway_py.pipeline.settlement.failure_router import FailureRouter
from broadway_py.pipeline.settlement.settler import Settler
from broadway_py.pipeline.stages.source import Source
from broadway_py.stage import Wake

__all__ = ["BreakerGuard"]

log = logger("broadway_py.pipeline")


class BreakerGuard:
    """Watches one pipeline's breaker.

    Args:
        pipeline: the pipeline's name, for the log.
        router: knows why the breaker opened.
        breaker: the circuit breaker, which decides.
        stages: all stages. Each probe comes from the next source in turn, and from messages submitted meanwhile.
        gate: read by the sources before they fetch.
        settler: gives messages back.
        clock: the clock for the waits.
    """

    def __init__(
        self,
        pipeline: str,
        router: FailureRouter,
        breaker: CircuitBreaker,
        stages: Stages,
        *,
        gate: Gate,
        settler: Settler,
        clock: Clock,
    ) -> None:
        self._log = log.bind(pipeline=pipeline)
        self._router = router
        self._breaker = breaker
        self._stages = stages
        self._sources = [*stages.sources, stages.submissions]
        self._fetching = list(stages.sources)
        self._submissions = stages.submissions
        self._has_stopped = self._is_probing = False
        # Messages that were taken out when the breaker opened, to be given back.
        self._unstarted: list[Message[Any]] = []
        self._gate = gate
        self._settler = settler
        self._clock = clock
        self._wake = Wake()

    def moved(self) -> None:
        """Note that the breaker has changed its state. If it is not closed, nothing is fetched from now on."""
        if self._breaker.state != "closed" and not self._gate.broken:
            self._gate.broken = True
            by = self._router.opened_by
            self._gate.broken_by = "" if by is None else str(by)
            self._gate.broken_at = "" if by is None else by.said.get("at", "")
            # Not later in the guard's own task: until then a processor might start all its messages.
            self._unstarted = self._stages.take_unstarted()
            for source in self._sources:
                source.hold_back([processor.inlet for processor in self._stages.handling()])
        self._wake.set()

    async def run(self) -> None:
        """Carry out the breaker's decisions until cancelled."""
        breaker = self._breaker
        try:
            while True:
                if breaker.state == "closed":
                    if self._has_stopped:
                        await self._go_on()
                    await self._wake.wait()
                    continue
                if not self._has_stopped:
                    await self._stop_fetching()
                if breaker.state == "open" and self._is_probing:
                    self._is_probing = False
                    await self._tell_sources()
                if breaker.may_probe(self._clock.monotonic()):
                    await self._probe()
                await self._wake.wait_until(breaker.probe_at, self._clock)
        finally:
            self._wake.close()

    async def _stop_fetching(self) -> None:
        by = self._router.opened_by
        self._log.error(
            "the breaker opened: too many messages fail; fetching stops until a probe succeeds",
            by=self._gate.broken_by,
            **({} if by is None else by.said),
        )
        self._has_stopped = True
        unstarted, self._unstarted = self._unstarted, []
        try:
            # Before giving back, or a source would deliver the messages again and count the delivery.
            await self._tell_sources()
        finally:
            await self._settler.give_back_aside(unstarted)

    async def _probe(self) -> None:
        self._is_probing = True
        chosen = [self._submissions]
        able = next((source for source in self._fetching if source.live.connected and not source.ended), None)
        if able is not None:
            chosen.append(able)
            self._fetching.remove(able)
            self._fetching.append(able)
        for source in chosen:
            source.probe()
            # The source may have waited inside its producer since before the breaker opened.
            await self._tell(source, paused=self._gate.paused)

    async def _go_on(self) -> None:
        self._log.warning("the breaker closed: a probe succeeded; fetching goes on")
        self._gate.broken = self._has_stopped = self._is_probing = False
        self._gate.broken_by = self._gate.broken_at = ""
        await self._tell_sources()

    async def _tell_sources(self) -> None:
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._tell(source, paused=self._gate.closed))

    async def _tell(self, source: Source, *, paused: bool) -> None:
        try:
            await source.live.set_paused(paused=paused)
        except foreign_errors() as error:
            # An error in the producer's code must not end the guard: nothing would be fetched again.
            self._log.error(
                "a producer could not be paused or resumed", producer=source.layer, exception=type(error).__name__
            )
