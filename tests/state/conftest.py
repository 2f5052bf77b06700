"""Stores for the contract suite, and the parts that its tests are made of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broadway_py.state.memory import MemoryStore
from broadway_py.state.results import join
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import AggregatorFacts, Commit, StateStore, StoredIdentities, StoredResult, StoredRow

REVENUE = AggregatorFacts(version=1, window="fixed windows of 60 s", key_type="str", value_type="int")
FACTS = {"revenue": REVENUE}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "shop.db")


@pytest.fixture(params=["memory", "sqlite"])
def made(request: pytest.FixtureRequest, path: str) -> Callable[[], StateStore]:
    """Makes a store for the same contents each time."""
    memory = MemoryStore()
    return (lambda: memory) if request.param == "memory" else (lambda: SQLiteStore(path))


@pytest.fixture
async def store(made: Callable[[], StateStore]) -> AsyncIterator[StateStore]:
    """An open store."""
    opened = made()
    await opened.open(FACTS)
    yield opened
    await opened.close()


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def checkpoint(number: int, aggregator: str = "revenue") -> Commit:
    """A checkpoint whose every part depends on its number."""
    return Commit(
        aggregator,
        number,
        b'{"watermark":%d}' % number,
        appended=[(60, b"row %d" % number, 2), (120, b"another %d" % number, 3)],
        identities=identity(2 * number) + identity(2 * number + 1),
        results=[(number, b"result %d" % number, 1)],
    )


def row_of(first: int, count: int, *, word: bytes = b"due") -> tuple[int, bytes, int]:
    """A row with so many results, from this number on."""
    return first, join(result(number, word=word) for number in range(first, first + count)), count


def result(number: int, *, word: bytes = b"due") -> bytes:
    """The bytes of a result. They do not all have the same length."""
    return b'{"id":"%d"}\n[["%b",%d]]' % (number, word, number)


async def rows_of(store: StateStore, aggregator: str = "revenue") -> list[StoredRow]:
    """By checkpoint and bucket. It asserts that no row of a later checkpoint came before one of an earlier one."""
    rows = [row async for part in store.buckets(aggregator) for row in part]
    assert [row.number for row in rows] == sorted(row.number for row in rows)
    return sorted(rows, key=lambda row: (row.number, row.bucket))


async def identities_of(store: StateStore, aggregator: str = "revenue") -> list[StoredIdentities]:
    return [row async for part in store.identities(aggregator) for row in part]


async def results_of(store: StateStore, aggregator: str = "revenue") -> list[StoredResult]:
    return [row async for part in store.results(aggregator) for row in part]
