"""Who keeps the workers alive."""

from __future__ import annotations

import asyncio
from typing import Any

from broadway_py.daemon.reload.resolved import Resolved
from broadway_py.daemon.settings.settings import Log, Settings
from broadway_py.daemon.workers.fleet import Fleet
from broadway_py.daemon.workers.messages import Assignment
from broadway_py.daemon.workers.worker_handle import WorkerHandle


class Idle(Fleet):
    """Keeps no process: it only notes who would be kept, until the test lets it go."""

    def __init__(self) -> None:
        super().__init__(Resolved(Settings({}, 2, None, Log(), {}), {}))
        self.kept: list[int] = []
        self.released = asyncio.Event()

    @property
    def shutdown_timeout(self) -> float:
        return 1.0

    def _assignment(self, index: int) -> Assignment:
        raise NotImplementedError

    def _keep_numbers(self, handle: WorkerHandle, *, restarts: bool) -> None:
        raise NotImplementedError

    async def _keep(self, index: int) -> None:
        self.kept.append(index)
        await self.released.wait()

    async def spawn(self, *indexes: Any) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            for index in indexes:
                self._spawn(index)
                await asyncio.sleep(0)
            self.released.set()


async def test_a_worker_that_comes_back_while_its_last_start_is_awaited_is_not_kept_twice() -> None:
    fleet = Idle()
    try:
        await fleet.spawn(0, 1, 1)
        assert fleet.kept == [0, 1]
        await fleet.spawn(1)
        assert fleet.kept == [0, 1, 1]
    finally:
        fleet._verdicts.close()
