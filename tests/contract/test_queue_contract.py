from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from broadway_py.producer_description import AnyProducer
from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Queue
from broadway_py.testing.contract import FailureContract, FailureSource, ProducerContract


class QueueSource(FailureSource):
    """A queue file, filled and counted through the public ``Queue``."""

    forget = "drop"

    def __init__(self, path: Path, queue: Queue) -> None:
        self._path = path
        self._queue = queue

    async def publish(self, bodies: Sequence[bytes]) -> None:
        await self._queue.put_many(bodies)

    def producer(self) -> AnyProducer:
        return self.told(None)

    def told(self, on_failure: Any) -> AnyProducer:
        return QueueProducer(self._path, "contract", on_failure=on_failure)

    def elsewhere(self) -> Callable[[], AnyProducer]:
        return partial(QueueProducer, str(self._path), "contract")

    async def ready_count(self) -> int:
        return (await self._queue.counts()).ready

    async def held_count(self) -> int:
        return (await self._queue.counts()).held

    async def rejected_count(self) -> int:
        return (await self._queue.counts()).dead


class TestQueueProducer(ProducerContract, FailureContract):
    @pytest.fixture
    async def source(self, tmp_path: Path) -> AsyncIterator[QueueSource]:
        async with Queue(tmp_path / "contract.db", "contract") as queue:
            yield QueueSource(tmp_path / "contract.db", queue)
