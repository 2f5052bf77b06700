"""The sink contract, on a list in memory."""

from __future__ import annotations

import pytest

from broadway_py import MemoryPublisher
from broadway_py.publisher import Sink
from tests.contract.publisher_contract import PublisherContract
from tests.contract.sink_contract import Arrived, SinkContract, SinkHarness


class MemorySinkHarness(SinkHarness):
    """A list, which goes away when it is told so."""

    secret = "canary"  # a list has none

    def __init__(self) -> None:
        self._sink = MemoryPublisher(2_000)

    def sink(self) -> Sink:
        return self._sink

    async def count(self) -> int:
        return len(self._sink.messages)

    async def take(self) -> list[Arrived]:
        taken = [(message.data, message.message_id) for message in self._sink.messages]
        self._sink.messages.clear()
        return taken

    async def kill(self) -> None:
        """There is no connection."""

    async def go_away(self) -> None:
        self._sink.go_away()

    async def come_back(self) -> None:
        self._sink.come_back()


@pytest.fixture
def harness() -> SinkHarness:
    return MemorySinkHarness()


class TestMemorySink(SinkContract):
    """Every sentence of the contract."""


class TestMemoryPublisher(PublisherContract):
    """Every sentence of the contract, for handlers."""
