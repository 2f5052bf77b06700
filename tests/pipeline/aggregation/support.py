"""What the tests of running aggregators share: a store that obeys, and an aggregator that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from broadway_py import Aggregator, Message, Pipeline, Processors, Window, WindowResult
from broadway_py.state.memory import MemoryStore
from broadway_py.state.store import AggregatorFacts, Commit, Loaded, StoredIdentities, StoredResult, StoredRow
from broadway_py.storage.errors import StorageError

START = 1_699_999_980.0  # a minute begins; the fake wall clock shows 20 s more


@dataclass
class Order:
    """What the messages have: a key, and seconds after :data:`START`."""

    key: str
    at: float
    amount: int = 1


def when(message: Message[Order]) -> float:
    """Returns the time of an order."""
    return START + message.data.at


class Sums(Aggregator[str, Order, int]):
    """Adds amounts by key and minute. Remembers what it emits."""

    window = Window.fixed(60, by=when, delay=0, max_ahead=3600)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.emitted: list[list[WindowResult[str, int]]] = []
        #: What the next calls of ``emit`` raise; None: nothing.
        self.faults: list[BaseException | None] = []

    def key(self, message: Message[Order]) -> str:
        return message.data.key

    def initial(self) -> int:
        return 0

    def add(self, acc: int, message: Message[Order]) -> int:
        if message.data.amount < 0:
            raise ValueError("negative")
        return acc + message.data.amount

    async def emit(self, results: list[WindowResult[str, int]]) -> None:
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        self.emitted.append(results)

    @property
    def values(self) -> list[tuple[str, int]]:
        """Key and value of each result, in the order in which they were emitted."""
        return [(one.key, one.value) for results in self.emitted for one in results]


class Shop(Pipeline[Order]):
    """Sends everything to the only aggregator."""

    processors = Processors(concurrency=1, max_demand=10)
    state = "var/never-written.db"

    async def handle_message(self, message: Message[Order]) -> None:
        """Nothing is to be done."""


class ObeyingStore:
    """A :class:`MemoryStore` that waits and fails where the test says so. It outlives its pipelines."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.commits: list[Commit] = []
        self.steps: list[str] = []
        #: A commit waits while this is not set.
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        #: What the next commits raise. With ``is_unknown`` the commit is stored before.
        self.faults: list[StorageError | None] = []
        self.waits_for_lock: asyncio.Event | None = None
        #: The results that an operator does not want, or why the file cannot be asked; and how often it was asked.
        self.unwanted_results: list[int] | StorageError = []
        self.asked_for_unwanted = 0

    async def open(self, aggregators: Mapping[str, AggregatorFacts], *, waiting: Callable[[str], object] = str) -> None:
        if self.waits_for_lock is not None:
            waiting("state file var/shop.db: process 4711 has it; standing by until it is free")
            await self.waits_for_lock.wait()
        await self.inner.open(aggregators)
        self.steps.append("open")

    async def load(self, aggregator: str) -> Loaded:
        return await self.inner.load(aggregator)

    def buckets(self, aggregator: str) -> AsyncIterator[list[StoredRow]]:
        return self.inner.buckets(aggregator)

    def identities(self, aggregator: str) -> AsyncIterator[list[StoredIdentities]]:
        return self.inner.identities(aggregator)

    def results(self, aggregator: str) -> AsyncIterator[list[StoredResult]]:
        return self.inner.results(aggregator)

    async def find(self, aggregator: str, wanted: Collection[bytes]) -> set[bytes]:
        return await self.inner.find(aggregator, wanted)

    async def commit(self, commit: Commit) -> None:
        self.begun.set()
        await self.gate.wait()
        fault = self.faults.pop(0) if self.faults else None
        if fault is None or fault.is_unknown:
            await self.inner.commit(commit)
            self.commits.append(commit)
            self.steps.append(f"stored {commit.number}")
        if fault is not None:
            raise fault

    async def last_number(self, aggregator: str) -> int:
        self.steps.append("asked")
        return await self.inner.last_number(aggregator)

    async def unwanted(self, aggregator: str) -> list[int]:
        self.asked_for_unwanted += 1
        if isinstance(self.unwanted_results, StorageError):
            raise self.unwanted_results
        return self.unwanted_results

    def size_bytes(self, aggregator: str) -> int:
        return self.inner.size_bytes(aggregator)

    async def close(self) -> None:
        self.steps.append("close")
        await self.inner.close()


def use(monkeypatch: pytest.MonkeyPatch, store: ObeyingStore) -> None:
    """Let pipelines have *store*, whatever their path is."""
    monkeypatch.setattr("broadway_py.pipeline.runtime.stores.SQLiteStore", lambda _: store)
