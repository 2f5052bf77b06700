"""Carries out what the circuit breaker decides: stop fetching, give back what was not started, probe, go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from broadway_py._core.breaker import CircuitBreaker
from broadway_py.clock import Clock
from broadway_py.log import logger
from broadway_py.message import Message
from broadway_py.pipeline.gate import Gate
from broadway_py.pipeline.settler import Settler
from broadway_py.pipeline.source import Source
from broadway_py.stage import Wake

__all__ = ["BreakerGuard"]

log = logger("broadway_py.pipeline")


class BreakerGuard:
    """Watches one pipeline's breaker.

    Args:
        pipeline: its name, for the log.
        breaker: who decides.
        sources: who fetch, the one of submitted messages last; each probe comes from the next of the others, and from
            what is submitted meanwhile.
        take_unstarted: takes out what no callback has seen and can be given back.
        gate: what the sources look at.
        settler: for giving back.
        clock: for the waits.
        wake: set when the breaker has moved.
    """

    def __init__(
        self,
        pipeline: str,
        breaker: CircuitBreaker,
        sources: Sequence[Source],
        *,
        take_unstarted: Callable[[], list[Message[Any]]],
        gate: Gate,
        settler: Settler,
        clock: Clock,
        wake: Wake,
    ) -> None:
        self._log = log.bind(pipeline=pipeline)
        self._breaker = breaker
        self._sources = sources
        self._fetching = list(sources[:-1])
        self._submissions = sources[-1]
        self._is_probing = False
        self._take_unstarted = take_unstarted
        self._gate = gate
        self._settler = settler
        self._clock = clock
        self._wake = wake

    async def run(self) -> None:
        """Until cancelled."""
        breaker, gate = self._breaker, self._gate
        try:
            while True:
                if breaker.state == "closed":
                    if gate.broken:
                        await self._go_on()
                    await self._wake.wait()
                    continue
                if not gate.broken:
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
        self._log.error("the breaker opened: too much fails; fetching stops until a probe succeeds")
        self._gate.broken = True
        await self._tell_sources()
        await self._settler.give_back_aside(self._take_unstarted())

    async def _probe(self) -> None:
        self._is_probing = True
        chosen = [self._submissions]
        able = next((source for source in self._fetching if source.connected and not source.ended), None)
        if able is not None:
            chosen.append(able)
            self._fetching.remove(able)
            self._fetching.append(able)
        for source in chosen:
            source.probe()
            # It may be waiting inside its producer since before the breaker opened.
            await self._tell(source, paused=self._gate.paused)

    async def _go_on(self) -> None:
        self._log.warning("the breaker closed: a probe succeeded; fetching goes on")
        self._gate.broken = self._is_probing = False
        await self._tell_sources()

    async def _tell_sources(self) -> None:
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._tell(source, paused=self._gate.closed))

    async def _tell(self, source: Source, *, paused: bool) -> None:
        try:
            await source.set_paused(paused=paused)
        except Exception as error:  # noqa: BLE001  # the producer's code: without the guard, nothing would ever go on
            self._log.error(
                "a producer could not be paused or resumed", producer=source.layer, exception=type(error).__name__
            )
