"""The sink contract, on the embedded queue."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broadway_py import QueueSink
from broadway_py.producers.queue import QueueProducer
from broadway_py.publisher import Sink
from broadway_py.queue import Queue
from broadway_py.testing.driving import opened, settle, take
from tests.contract.publisher_contract import PublisherContract
from tests.contract.sink_contract import Arrived, SinkContract, SinkHarness


class QueueSinkHarness(SinkHarness):
    """A queue in a file. Another program that locks the file makes it unavailable.

    Args:
        path: the file.
    """

    secret = "canary"  # a file has none
    unfit = ""  # with an empty id, see PublisherContract

    def __init__(self, path: Path) -> None:
        self.path = path
        self._other = sqlite3.connect(path, isolation_level=None)

    def sink(self) -> Sink:
        return QueueSink(self.path, "out")

    async def count(self) -> int:
        async with Queue(self.path, "out") as queue:
            return await queue.size()

    async def take(self) -> list[Arrived]:
        async with opened(QueueProducer(self.path, "out")) as copy:
            messages = await take(copy, await self.count())
            await settle(messages)
        return [(message.data, message.metadata["message_id"]) for message in messages]

    async def kill(self) -> None:
        """There is no connection; the file is locked for a moment."""
        await self.go_away()
        await self.come_back()

    async def go_away(self) -> None:
        self._other.execute("BEGIN IMMEDIATE")

    async def come_back(self) -> None:
        self._other.execute("ROLLBACK")

    def close(self) -> None:
        self._other.close()


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[SinkHarness]:
    with closing(QueueSinkHarness(tmp_path / "out.db")) as harness:
        yield harness


class TestQueueSink(SinkContract):
    """Every sentence of the contract."""


class TestQueuePublisher(PublisherContract):
    """Every sentence of the contract, for handlers."""
