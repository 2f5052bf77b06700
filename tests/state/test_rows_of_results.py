"""Many results lie in one row of the file. They are taken, dropped and found one by one all the same."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py.state.checksum import checksum
from broadway_py.state.inspection import PendingResult, results, summaries, verify
from broadway_py.state.results import join, parted, remaining, runs, split
from broadway_py.state.schema import STATE_SCHEMA
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import Commit, StoredResult
from broadway_py.state.wishes import ask_to_drop
from broadway_py.storage.errors import StorageError
from tests.state.conftest import FACTS, REVENUE, checkpoint, result, results_of, row_of


async def opened(path: str | Path) -> SQLiteStore:
    store = SQLiteStore(path)
    await store.open(FACTS)
    return store


def rows_in(path: str | Path) -> list[tuple[int, int]]:
    """The number of the first result of each row, and how many it has."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT sequence, count FROM results ORDER BY sequence").fetchall()


async def count_statements(store: SQLiteStore, commit: Commit) -> int:
    """Returns how many statements SQLite runs for a checkpoint."""
    ran: list[str] = []
    await store._open().read(lambda connection: connection.set_trace_callback(ran.append))
    await store.commit(commit)
    await store._open().read(lambda connection: connection.set_trace_callback(None))
    return len(ran)


# --- the bytes of a row ---------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(0, 100), st.sets(st.integers(0, 110)))
def test_what_remains_of_a_row_are_its_other_results(count: int, first: int, gone: set[int]) -> None:
    _, content, _ = row_of(first, count)
    rows = remaining(first, content, count, gone)

    left = [(n + place, one) for n, part, few in rows for place, one in enumerate(split(part, few))]
    assert left == [(n, result(n)) for n in range(first, first + count) if n not in gone]
    # As few rows as there can be.
    assert all(before[0] + before[2] < after[0] for before, after in pairwise(rows))


@given(st.sets(st.integers(0, 40), min_size=1))
def test_runs_have_all_numbers_and_do_not_touch_each_other(numbers: set[int]) -> None:
    found = runs(numbers)

    assert [one for first, end in found for one in range(first, end)] == sorted(numbers)
    assert all(end < first for (_, end), (first, _) in pairwise(found))


@given(st.integers(1, 8), st.integers(0, 100), st.integers(0, 200))
def test_a_row_that_is_too_long_becomes_rows_that_are_not(count: int, first: int, most: int) -> None:
    _, content, _ = row_of(first, count)
    rows = parted(first, content, count, most)

    assert [(n + place, one) for n, part, few in rows for place, one in enumerate(split(part, few))] == [
        (n, result(n)) for n in range(first, first + count)
    ]
    assert all(len(part) <= most or few == 1 for _, part, few in rows)
    # As few rows as there can be: none has room for the first result of the next one.
    assert all(len(part) + 1 + len(result(n)) > most for (_, part, _), (n, _, _) in pairwise(rows))


def test_a_row_that_has_lost_a_line_is_not_split() -> None:
    with pytest.raises(ValueError, match="shorter"):
        split(join([result(1), result(2)]) + b"\n{}", 3)


# --- results that are taken -----------------------------------------------------------------------------------------


async def test_results_between_those_that_were_taken_stay(path: str) -> None:
    store = await opened(path)
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(0, 6), row_of(6, 6), row_of(12, 2)]))
    await store.commit(Commit("revenue", 2, b"{}", emitted=[1, 3, 3]))
    assert await results_of(store) == [StoredResult(n, result(n), 1) for n in (0, 2, *range(4, 14))]
    assert rows_in(path) == [(0, 1), (2, 1), (4, 2), (6, 6), (12, 2)]

    await store.commit(Commit("revenue", 3, b"{}", emitted=[7, 5, 4, 6]))
    assert await results_of(store) == [StoredResult(n, result(n), 1) for n in (0, 2, *range(8, 14))]
    assert rows_in(path) == [(0, 1), (2, 1), (8, 4), (12, 2)]
    assert verify(path) == []
    await store.close()


async def test_a_row_next_to_results_that_are_gone_is_not_written_anew(path: str) -> None:
    store = await opened(path)
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(1, 3), row_of(4, 1), row_of(5, 3)]))
    with closing(sqlite3.connect(path)) as connection:
        ids = connection.execute("SELECT id FROM results WHERE sequence IN (1, 5) ORDER BY id").fetchall()
        for number, emitted in ((2, [4]), (3, [0, 4, 8, 99])):
            await store.commit(Commit("revenue", number, b"{}", emitted=emitted))
            assert connection.execute("SELECT id FROM results ORDER BY id").fetchall() == ids
    await store.close()


async def test_results_that_stay_keep_the_version_of_their_values(path: str) -> None:
    store = await opened(path)
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(1, 3)]))
    await store.close()
    newer = SQLiteStore(path)
    await newer.open({"revenue": replace(REVENUE, version=2, has_upgrade=True)})
    await newer.commit(Commit("revenue", 2, b"{}", results=[row_of(4, 3)], emitted=[2, 5]))

    assert [(one.sequence, one.version) for one in await results_of(newer)] == [(1, 1), (3, 1), (4, 2), (6, 2)]
    assert verify(path) == []
    await newer.close()


async def test_a_checkpoint_takes_as_many_statements_for_ten_thousand_results_as_for_two(path: str) -> None:
    """Each statement costs a wait for the interpreter's lock."""
    few, many = Path(f"{path}-few"), Path(f"{path}-many")
    counts = []
    for place, count in ((few, 1), (many, 200)):
        store = await opened(place)
        rows = [row_of(n, count) for n in range(0, 50 * count, count)]
        await store.commit(Commit("revenue", 1, b"{}", results=rows))
        later = [row_of(50 * count + n, count) for n in range(0, 50 * count, count)]
        # The last row is taken in part if it has more than one result.
        commit = Commit("revenue", 2, b"{}", results=later, emitted=range(50 * count - (count > 1)))
        counts.append(await count_statements(store, commit))
        assert len(await results_of(store)) == 50 * count + (count > 1)
        await store.close()

    # Reading the last row, and writing it anew.
    assert counts[1] == counts[0] + 2
    assert counts[0] <= 6


async def test_each_second_of_very_many_results_is_removed_with_few_statements(path: str) -> None:
    store = await opened(path)
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(n, 200) for n in range(0, 20_000, 200)]))
    statements = await count_statements(store, Commit("revenue", 2, b"{}", emitted=range(0, 20_000, 2)))

    assert [one.sequence for one in await results_of(store)] == list(range(1, 20_000, 2))
    assert statements < 30
    await store.close()


async def test_a_damaged_row_is_not_written_anew(path: str) -> None:
    store = await opened(path)
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(1, 3), row_of(4, 3)]))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE results SET content = CAST(replace(content, 'due', 'dub') AS BLOB) WHERE sequence = 4"
        )
    with pytest.raises(StorageError) as refused:
        await store.commit(Commit("revenue", 2, b"{}", emitted=[2, 3, 4]))

    sentence = "aggregator 'revenue': its results 4 to 6 are damaged"
    assert str(refused.value) == (
        f"state file {path}: {sentence}: stop everything that uses the file and restore it from a backup"
    )
    assert not refused.value.is_unknown
    assert rows_in(path) == [(1, 3), (4, 3)]
    assert verify(path) == [sentence]
    await store.close()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("sequence = 2", "its results 2 to 3 are"),
        ("count = 1", "its result 1 is"),
        ("count = 3", "its results 1 to 3 are"),
        ("version = 2", "its results 1 to 2 are"),
    ],
)
async def test_the_checksum_of_a_row_covers_all_of_it(path: str, change: str, problem: str) -> None:
    store = await opened(path)
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(1, 2)]))
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE results SET {change}")  # noqa: S608  # only texts from here

    assert verify(path) == [f"aggregator 'revenue': {problem} damaged"]
    with pytest.raises(StorageError, match=f"{problem} damaged"):
        list(results(path))


# --- files of version 3 ---------------------------------------------------------------------------------------------


async def test_a_file_of_version_3_keeps_its_results_and_which_of_them_nobody_wants(path: str) -> None:
    former = replace(STATE_SCHEMA, migrations=STATE_SCHEMA.migrations[:3])
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        former.prepare(connection, path)
        for name in ("visits", "revenue"):
            connection.execute(
                "INSERT INTO aggregators (name, version, window, key_type, value_type, number, memory, crc) "
                "VALUES (?, 1, 'fixed windows of 60 s', 'str', 'int', 1, x'7B7D', ?)",
                (name, checksum("memory", (1,), b"{}")),
            )
        for aggregator, sequence, is_unwanted in ((1, 7, 1), (2, 7, 0), (2, 8, 1), (2, 9, 0)):
            crc = checksum("results", (sequence, 1, 1), result(sequence))
            connection.execute(
                "INSERT INTO results (aggregator, sequence, version, crc, content, is_unwanted) "
                "VALUES (?, ?, 1, ?, ?, ?)",
                (aggregator, sequence, crc, result(sequence), is_unwanted),
            )
        connection.execute("COMMIT")
    store = await opened(path)

    assert verify(path) == []
    assert await results_of(store) == [StoredResult(n, result(n), 1) for n in (7, 8, 9)]
    assert await store.unwanted("revenue") == [8]
    assert [(one.aggregator, one.sequence) for one in results(path) if one.is_unwanted] == [
        ("visits", 7),
        ("revenue", 8),
    ]
    await store.commit(replace(checkpoint(2), results=[row_of(10, 3)], emitted=[8, 9, 11]))
    assert [one.sequence for one in await results_of(store)] == [7, 10, 12]
    assert await store.unwanted("revenue") == []
    assert verify(path) == []
    await store.close()


# --- any order of everything ----------------------------------------------------------------------------------------

numbers = st.lists(st.integers(1, 30), max_size=8)
steps = st.one_of(
    st.tuples(st.just("commit"), st.lists(st.integers(1, 7), max_size=3), numbers),
    st.tuples(st.just("commit in order"), st.lists(st.integers(1, 7), max_size=3), st.integers(0, 12)),
    st.tuples(st.just("drop"), st.lists(st.integers(0, 30), max_size=4), st.integers(0, 1)),
    st.tuples(st.just("open again"), st.none(), st.none()),
)


async def play(path: Path, played: Sequence[tuple[str, Any, Any]]) -> None:
    store = await opened(path)
    here: list[int] = []
    unwanted: set[int] = set()
    number, following = 0, 1
    for kind, added, taken in played:
        if kind == "open again":
            await store.close()
            store = await opened(path)
        elif kind == "drop":
            named = [here[place % len(here)] for place in added if here]
            if taken:
                with pytest.raises(StorageError, match=f"has no result {following} any more"):
                    ask_to_drop(str(path), [("revenue", one) for one in (*named, following)])
            else:
                ask_to_drop(str(path), [("revenue", one) for one in named])
                unwanted |= set(named)
        else:
            number += 1
            rows = []
            for count in added:
                rows.append(row_of(following, count))
                here += range(following, following + count)
                following += count
            emitted = here[:taken] if kind == "commit in order" else taken
            await store.commit(Commit("revenue", number, b"{}", results=rows, emitted=emitted))
            here = [one for one in here if one not in emitted]
            unwanted -= set(emitted)
        assert await results_of(store) == [StoredResult(one, result(one), 1) for one in here]
        assert await store.unwanted("revenue") == sorted(unwanted)
        assert list(results(str(path))) == [PendingResult("revenue", n, result(n), n in unwanted) for n in here]
        assert [one.results for one in summaries(str(path))] == [len(here)]
        assert store.size_bytes("revenue") == len(b"{}" if number else b"") + bytes_in(path)
    assert verify(str(path)) == []
    await store.close()


def bytes_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (size,) = connection.execute("SELECT coalesce(sum(length(content)), 0) FROM results").fetchone()
    return int(size)


@settings(max_examples=20)
@given(st.lists(steps, max_size=8))
def test_the_rows_have_what_a_list_has_after_any_steps(played: list[tuple[str, Any, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "shop.db", played))
