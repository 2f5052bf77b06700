from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from broadway_py.producer import Producer
from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Queue
from tests.contract.producer_contract import Harness, ProducerContract


class QueueHarness(Harness):
    """A queue file, filled and counted through the public ``Queue``."""

    def __init__(self, path: Path, queue: Queue) -> None:
        self._path = path
        self._queue = queue

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await self._queue.put_many(bodies)

    def producer(self) -> Producer:
        return QueueProducer(self._path, "contract")

    async def ready_count(self) -> int:
        return (await self._queue.counts()).ready

    async def held_count(self) -> int:
        return (await self._queue.counts()).held

    async def rejected_count(self) -> int:
        return (await self._queue.counts()).dead


class TestQueueProducer(ProducerContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[QueueHarness]:
        async with Queue(tmp_path / "contract.db", "contract") as queue:
            yield QueueHarness(tmp_path / "contract.db", queue)
