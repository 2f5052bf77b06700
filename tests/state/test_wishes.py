"""What operators note in a file: beside the store that has it, two at a time, all or nothing."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broadway_py.state.inspection import reading, results, summaries, verify
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import CloseWish, Commit
from broadway_py.state.wishes import ask_to_close, ask_to_drop, remove_unused
from broadway_py.storage.connection import connect
from broadway_py.storage.errors import StorageError
from tests.state.conftest import FACTS, REVENUE, checkpoint, identities_of, results_of, row_of, rows_of

BOTH = {"revenue": REVENUE, "visits": REVENUE}


def allows(memory: bytes) -> None:
    """Every kind of window can be closed."""


@pytest.fixture
async def store(path: str) -> AsyncIterator[SQLiteStore]:
    """An open store with two aggregators, of which one has two checkpoints."""
    opened = SQLiteStore(path)
    await opened.open(BOTH)
    await opened.commit(checkpoint(1))
    await opened.commit(checkpoint(2))
    yield opened
    await opened.close()


async def test_a_result_is_unwanted_until_a_checkpoint_has_removed_it(store: SQLiteStore, path: str) -> None:
    ask_to_drop(path, [("revenue", 2)])
    ask_to_drop(path, [("revenue", 2)])

    assert await store.unwanted("revenue") == [2]
    assert await store.unwanted("visits") == []
    assert [(one.sequence, one.is_unwanted) for one in results(path)] == [(1, False), (2, True)]
    assert [one.sequence for one in await results_of(store)] == [1, 2]
    await store.commit(replace(checkpoint(3), emitted=[2]))
    assert await store.unwanted("revenue") == []
    assert [one.sequence for one in await results_of(store)] == [1, 3]
    assert verify(path) == []


async def test_results_of_another_aggregator_with_the_same_number_stay(store: SQLiteStore, path: str) -> None:
    await store.commit(checkpoint(1, "visits"))
    ask_to_drop(path, [("visits", 1)])

    assert await store.unwanted("revenue") == []
    assert await store.unwanted("visits") == [1]


async def test_all_results_are_unwanted_or_none(store: SQLiteStore, path: str) -> None:
    with pytest.raises(StorageError) as refused:
        ask_to_drop(path, [("revenue", 1), ("revenue", 9)])

    assert str(refused.value) == (
        f"state file {path}: aggregator 'revenue' has no result 9 any more; nothing was changed: list the results again"
    )
    assert await store.unwanted("revenue") == []


async def test_a_drop_costs_as_much_however_many_results_are_due(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the file locked, and the checkpoints of the pipeline wait."""
    steps: list[int] = []

    def counted(*args: Any) -> sqlite3.Connection:
        connection = connect(*args)
        connection.set_progress_handler(lambda: steps.append(1), 10)
        return connection

    monkeypatch.setattr("broadway_py.state.wishes.connect", counted)
    store = SQLiteStore(path)
    await store.open(FACTS)
    taken = []
    for number, rows in enumerate((2, 500), 1):
        first = 10_000 * number
        await store.commit(Commit("revenue", number, b"{}", results=[row_of(first + n, 1) for n in range(rows)]))
        steps.clear()
        ask_to_drop(path, [("revenue", first + rows - 1)])
        taken.append(len(steps))
    await store.close()

    assert taken[1] <= taken[0] + 1


def test_a_missing_file_is_not_made_to_note_something(path: str) -> None:
    with pytest.raises(StorageError) as refused:
        ask_to_drop(path, [("revenue", 1)])

    assert str(refused.value) == (f"state file {path}: there is no such file: give the path in `state` of the pipeline")
    assert not list(Path(path).parent.iterdir())


async def test_wishes_to_close_add_up_and_each_checkpoint_removes_those_that_it_knows(
    store: SQLiteStore, path: str
) -> None:
    ask_to_close(path, "revenue", 60, allows)
    ask_to_close(path, "revenue", 30, allows)
    assert (await store.load("revenue")).close_wish == CloseWish(2, 60)
    assert (await store.load("visits")).close_wish is None
    ask_to_close(path, "revenue", None, allows)
    assert [one.closes for one in summaries(path)] == [True, False]
    await store.commit(replace(checkpoint(3), closed=2))
    assert (await store.load("revenue")).close_wish == CloseWish(3, None)
    await store.commit(replace(checkpoint(4), closed=3))
    assert (await store.load("revenue")).close_wish is None
    ask_to_close(path, "revenue", 90, allows)
    assert (await store.load("revenue")).close_wish == CloseWish(4, 90)


async def test_a_check_that_raises_notes_nothing(store: SQLiteStore, path: str) -> None:
    seen = []

    def refuse(memory: bytes) -> None:
        seen.append(memory)
        raise ValueError("not these")

    with pytest.raises(ValueError, match="not these"):
        ask_to_close(path, "revenue", None, refuse)
    assert seen == [b'{"watermark":2}']
    assert (await store.load("revenue")).close_wish is None
    await store.commit(checkpoint(3))


async def test_only_windows_of_a_known_aggregator_that_is_whole_are_closed(store: SQLiteStore, path: str) -> None:
    with pytest.raises(StorageError) as unknown:
        ask_to_close(path, "visit", None, allows)
    with pytest.raises(StorageError) as empty:
        ask_to_close(path, "visits", None, allows)
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE aggregators SET memory = x'00' WHERE name = 'revenue'")
    with pytest.raises(StorageError) as broken:
        ask_to_close(path, "revenue", None, allows)

    assert str(unknown.value) == (
        f"state file {path}: it has no aggregator 'visit', but revenue, visits; did you mean 'visits'?"
    )
    assert str(empty.value) == f"state file {path}: aggregator 'visits' has stored nothing; nothing was changed"
    assert str(broken.value) == (
        f"state file {path}: aggregator 'revenue': its counters of checkpoint 2 are damaged: stop everything that uses "
        "the file and restore it from a backup"
    )


async def test_a_wish_survives_the_end_of_the_store(store: SQLiteStore, path: str) -> None:
    ask_to_drop(path, [("revenue", 1)])
    ask_to_close(path, "revenue", 60, allows)
    await store.close()
    again = SQLiteStore(path)
    await again.open(BOTH)

    assert await again.unwanted("revenue") == [1]
    assert (await again.load("revenue")).close_wish == CloseWish(1, 60)
    await again.close()


async def test_operators_and_the_store_take_turns(store: SQLiteStore, path: str) -> None:
    def operate() -> None:
        for _ in range(20):
            ask_to_close(path, "revenue", 60, allows)
            ask_to_drop(path, [("revenue", 1)])

    operators = [threading.Thread(target=operate) for _ in range(2)]
    for one in operators:
        one.start()
    for number in range(3, 23):
        await store.commit(checkpoint(number))
    for one in operators:
        one.join()

    assert (await store.load("revenue")).close_wish == CloseWish(40, 60)
    assert await store.unwanted("revenue") == [1]
    assert await store.last_number("revenue") == 22
    assert verify(path) == []


async def test_an_aggregator_that_the_pipeline_has_not_is_unused_and_can_be_removed(
    store: SQLiteStore, path: str
) -> None:
    ask_to_close(path, "revenue", None, allows)
    ask_to_drop(path, [("revenue", 1)])
    await store.close()
    pipeline = SQLiteStore(path)
    await pipeline.open({"visits": REVENUE})
    await pipeline.commit(checkpoint(1, "visits"))
    assert [(one.name, one.is_used) for one in summaries(path)] == [("revenue", False), ("visits", True)]
    remove_unused(path, "revenue")  # beside the pipeline

    assert [one.name for one in summaries(path)] == ["visits"]
    await pipeline.commit(checkpoint(2, "visits"))
    assert len(await rows_of(pipeline, "visits")) == 4
    await pipeline.close()
    with reading(path) as connection:
        for rows in ("accumulators", "identities", "results", "unwanted_results", "close_wishes"):
            numbers = connection.execute(f"SELECT DISTINCT aggregator FROM {rows}").fetchall()  # noqa: S608  # our tables
            assert numbers in ([(2,)], [])
    again = SQLiteStore(path)
    await again.open(FACTS)
    assert (await again.load("revenue")).memory is None
    assert await identities_of(again) == []
    assert [(one.name, one.is_used) for one in summaries(path)] == [("visits", False), ("revenue", True)]
    await again.close()


async def test_an_aggregator_that_the_pipeline_has_is_not_removed(store: SQLiteStore, path: str) -> None:
    with pytest.raises(StorageError) as refused:
        remove_unused(path, "revenue")

    assert str(refused.value) == (
        f"state file {path}: the pipeline had the aggregator 'revenue' when it started last; nothing was changed: "
        "start the pipeline without it first"
    )
    assert len(await rows_of(store)) == 4
