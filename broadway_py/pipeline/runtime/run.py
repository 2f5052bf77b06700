"""A running pipeline: the tasks of its stages, and the drain that ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import structlog  # noqa: F401  # here, because the first line of the log would load it in the event loop

from broadway_py._core.recent_load import RecentLoad
from broadway_py._core.restarts import Restarts
from broadway_py.clock import Clock
from broadway_py.error_text import name_of
from broadway_py.errors import BroadwayError, PipelineCrashed
from broadway_py.log import logger
from broadway_py.pipeline.intake.gate import Gate
from broadway_py.pipeline.publishing.publishers import Publishers
from broadway_py.pipeline.runtime.breaker import BreakerGuard
from broadway_py.pipeline.runtime.drain import Drain
from broadway_py.pipeline.runtime.layout import Stages
from broadway_py.pipeline.runtime.source_counts import SourceCounts
from broadway_py.pipeline.runtime.stage_tasks import StageTasks
from broadway_py.pipeline.runtime.window_state import WindowState
from broadway_py.pipeline.stages.services import Services
from broadway_py.stage import first_completed

__all__ = ["PipelineRun"]

log = logger("broadway_py.pipeline")


class PipelineRun:
    """Runs *stages* until they end by themselves, are stopped, or crash too often.

    Args:
        services: the services of the pipeline.
        stages: the stages, built and connected, not running.
        restarts: says how often a crashed stage may be started again.
        shutdown_timeout_s: seconds for a stop that gives no time of its own.
        guard: carries out what the breaker decides; None without a breaker.
        gate: the gate of the sources.
        topology: the topology of the pipeline, as plain data.
        publishers: what callbacks publish with.
        fail_fast: whether the first try of each publisher to connect must succeed.
        window_state: the state of the aggregators and of ``deduplicate_by``; None without them.
        source_counts: asks the sources how many messages they hold; None: nobody wants to know.
    """

    def __init__(
        self,
        services: Services,
        stages: Stages,
        restarts: Restarts,
        shutdown_timeout_s: float,
        guard: BreakerGuard | None,
        *,
        gate: Gate,
        topology: Mapping[str, Any],
        publishers: Publishers,
        fail_fast: bool,
        window_state: WindowState | None = None,
        source_counts: SourceCounts | None = None,
    ) -> None:
        self.services = services
        self.stages = stages
        self.restarts = restarts
        self.gate = gate
        self.topology = topology
        self.publishers = publishers
        #: How busy the processors were lately.
        self.load = RecentLoad(services.clock.monotonic())
        self._fail_fast = fail_fast
        self.window_state = window_state
        self.source_counts = source_counts
        #: True once the stages run. Until then the state is opened, which may take long.
        self.have_stages_begun = False
        self._guard = guard
        self._log = log.bind(pipeline=services.name)
        self._stop_wanted = asyncio.Event()
        give_up = asyncio.Event()
        self.tasks = StageTasks(services, restarts, stop_wanted=self._stop_wanted, give_up=give_up)
        self.drain = Drain(
            services,
            stages,
            self.tasks,
            shutdown_timeout_s,
            publishers=publishers,
            stop_wanted=self._stop_wanted,
            give_up=give_up,
        )

    @property
    def clock(self) -> Clock:
        """Returns the pipeline's clock."""
        return self.services.clock

    @property
    def crash(self) -> PipelineCrashed | None:
        """Returns why the pipeline crashed, or None."""
        return self.tasks.crash

    @property
    def is_draining(self) -> bool:
        """Returns True once nothing more is taken in, also because all sources have ended by themselves."""
        return self.drain.has_begun

    def announce(self) -> None:
        """Tell telemetry that the stages are built."""
        self.services.tell("broadway.topology.init", topology=self.topology)

    async def run(self) -> None:
        """Run the stages, then drain. Returns when every stage has ended and every message has an outcome."""
        guarding: asyncio.Future[None] | None = None
        counting: asyncio.Future[None] | None = None
        has_stopped = False
        try:
            if await self._open_state() and await self._open_publishers():
                for stage in self.stages.all():
                    self.tasks.start(stage)
                self.have_stages_begun = True
                guarding = None if self._guard is None else asyncio.ensure_future(self._guard.run())
                counting = None if self.source_counts is None else asyncio.ensure_future(self.source_counts.run())
                await self._until_stop()
                has_stopped = True
        finally:
            if counting is not None:
                # A drain does not wait for the answer of a source.
                counting.cancel()
            try:
                await self.drain.run(lets_finish=has_stopped, guarding=guarding)
            finally:
                if self.window_state is not None:
                    # After the last ack: a pipeline that stands by takes over as soon as the state is free.
                    await self.window_state.close()

    async def _open_state(self) -> bool:
        """Open the state. Returns False if a stop was wanted first, or if it cannot be opened."""
        if self.window_state is None:
            return True
        return await self._opened(self.window_state.open(), "the state could not be opened")

    async def _open_publishers(self) -> bool:
        """Begin to connect the publishers. Returns False if a stop was wanted first, or if they must and cannot."""
        if not self.publishers:
            return True
        opening = self.publishers.open(fail_fast=self._fail_fast)
        return await self._opened(opening, "a publisher could not be opened")

    async def _opened(self, work: Coroutine[Any, Any, None], otherwise: str) -> bool:
        """Do *work*, which the stages need. Returns False if a stop was wanted first, or after a crash, logged so."""
        opening = asyncio.ensure_future(work)
        is_stopped = False
        try:
            await first_completed(opening, self._stop_wanted.wait())
        finally:
            if not opening.done():
                is_stopped = True
                opening.cancel()
                await asyncio.wait({opening})
        if opening.cancelled() and is_stopped:
            return False
        # Setup of an aggregator may raise a cancellation that nobody has asked for, as client libraries do.
        error = asyncio.CancelledError() if opening.cancelled() else opening.exception()
        if error is None:
            return not self._stop_wanted.is_set()
        text = str(error) if isinstance(error, BroadwayError) else name_of(error)
        self.tasks.crash = PipelineCrashed(f"pipeline {self.services.name!r}: {text}")
        self.tasks.crash.__cause__ = error
        self._log.error(otherwise, reason=text)
        return False

    async def _until_stop(self) -> None:
        """Wait until a stop is wanted, every stage has ended by itself, or the pipeline has crashed."""
        tasks = self.tasks
        while tasks.pending():
            await tasks.changed.wait()
            tasks.look_for_crash()
            if self._stop_wanted.is_set() or tasks.crash is not None:
                return
            if self.stages.sources and all(source.ended for source in self.stages.sources):
                self.drain.note_sources_ended()
