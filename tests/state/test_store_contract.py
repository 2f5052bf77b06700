"""What every store promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from broadway_py.state.store import (
    AggregatorFacts,
    Commit,
    Loaded,
    StateStore,
    StoredIdentities,
    StoredResult,
    StoredRow,
)
from broadway_py.storage.errors import StorageError
from tests.state.conftest import (
    FACTS,
    REVENUE,
    checkpoint,
    identities_of,
    identity,
    result,
    results_of,
    row_of,
    rows_of,
)

Made = Callable[[], StateStore]


async def test_a_new_store_is_empty(store: StateStore) -> None:
    assert await store.load("revenue") == Loaded(None, 1, 0, 0, 0)
    assert await rows_of(store) == []
    assert await identities_of(store) == []
    assert await results_of(store) == []
    assert await store.last_number("revenue") == 0
    assert await store.find("revenue", {identity(1)}) == set()


async def test_what_was_committed_is_there_after_the_next_open(made: Made, store: StateStore) -> None:
    await store.commit(checkpoint(1))
    await store.commit(checkpoint(2))
    await store.close()
    again = made()
    await again.open(FACTS)

    assert await again.load("revenue") == Loaded(b'{"watermark":2}', 1, 2, 10, 4)
    assert await rows_of(again) == [
        StoredRow(60, 1, b"row 1", 1),
        StoredRow(120, 1, b"another 1", 1),
        StoredRow(60, 2, b"row 2", 1),
        StoredRow(120, 2, b"another 2", 1),
    ]
    assert await identities_of(again) == [
        StoredIdentities(1, identity(2) + identity(3)),
        StoredIdentities(2, identity(4) + identity(5)),
    ]
    assert await results_of(again) == [StoredResult(1, b"result 1", 1), StoredResult(2, b"result 2", 1)]
    assert await again.last_number("revenue") == 2
    await again.close()


async def test_rows_of_one_bucket_before_a_checkpoint_are_dropped(store: StateStore) -> None:
    for number in (1, 2):
        await store.commit(checkpoint(number))
    await store.commit(Commit("revenue", 3, b"{}", appended=[(60, b"rewritten", 1)], dropped=[(60, 2)]))

    assert [row[:3] for row in await rows_of(store)] == [
        (120, 1, b"another 1"),
        (60, 2, b"row 2"),
        (120, 2, b"another 2"),
        (60, 3, b"rewritten"),
    ]


async def test_a_closed_window_also_loses_the_rows_of_the_same_checkpoint(store: StateStore) -> None:
    await store.commit(checkpoint(1))
    await store.commit(replace(checkpoint(2), dropped=[(60, 3), (120, 3), (180, 3)]))

    assert await rows_of(store) == []
    assert (await store.load("revenue")).entries == 0


async def test_buckets_may_be_before_1970(store: StateStore) -> None:
    await store.commit(Commit("revenue", 1, b"{}", appended=[(-60_000_000, b"old", 1), (0, b"epoch", 1)]))
    assert [row.bucket for row in await rows_of(store)] == [-60_000_000, 0]

    await store.commit(Commit("revenue", 2, b"{}", dropped=[(-60_000_000, 3)]))
    assert [row.bucket for row in await rows_of(store)] == [0]


async def test_emitted_results_leave_and_may_do_so_in_their_own_checkpoint(store: StateStore) -> None:
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(0, 5)]))
    await store.commit(Commit("revenue", 2, b"{}", results=[row_of(5, 2)], emitted=[0, 2, 5, 99]))

    assert await results_of(store) == [StoredResult(n, result(n), 1) for n in (1, 3, 4, 6)]


async def test_identities_of_old_checkpoints_are_forgotten(store: StateStore) -> None:
    for number in (1, 2, 3):
        await store.commit(checkpoint(number))
    await store.commit(Commit("revenue", 4, b"{}", forget_before=3))

    assert [one.number for one in await identities_of(store)] == [3]
    assert await store.find("revenue", {identity(n) for n in range(10)}) == {identity(6), identity(7)}


async def test_identities_are_found_by_all_of_their_bytes(store: StateStore) -> None:
    stored = [b"12345678" + tail for tail in (b"aaaaaaaa", b"bbbbbbbb")] + [b"abcdefgh12345678"]
    await store.commit(Commit("revenue", 1, b"{}", identities=b"".join(stored)))
    # The head of the second is that of a stored one; the third is in the bytes, but not at the start of an identity.
    wanted = {stored[0], b"12345678cccccccc", b"aaaaaaaa12345678", b"12345678abcdefgh"}

    assert await store.find("revenue", wanted) == {stored[0]}
    assert await store.find("revenue", set()) == set()


async def test_a_million_identities_are_searched(store: StateStore) -> None:
    for number in range(1, 41):
        first = number * 25_000
        block = b"".join(identity(n) for n in range(first, first + 25_000))
        await store.commit(Commit("revenue", number, b"{}", identities=block))

    assert await store.find("revenue", {identity(n) for n in (24_999, 25_000, 1_024_999, 1_025_000)}) == {
        identity(25_000),
        identity(1_024_999),
    }
    assert (await store.load("revenue")).identities == 1_000_000


async def test_aggregators_know_nothing_of_each_other(made: Made) -> None:
    store = made()
    await store.open({"revenue": REVENUE, "orders": REVENUE})
    await store.commit(checkpoint(1, "revenue"))
    await store.commit(checkpoint(1, "orders"))
    await store.commit(Commit("orders", 2, b"{}", dropped=[(60, 3), (120, 3)], emitted=[1], forget_before=3))

    assert [row.blob for row in await rows_of(store, "revenue")] == [b"row 1", b"another 1"]
    assert await rows_of(store, "orders") == []
    assert len(await results_of(store, "revenue")) == len(await identities_of(store, "revenue")) == 1
    assert await store.find("orders", {identity(2)}) == set()
    assert await store.last_number("revenue") == 1
    await store.close()


@pytest.mark.parametrize("number", [1, 2, 4])
async def test_a_number_that_does_not_follow_is_refused(store: StateStore, number: int) -> None:
    await store.commit(checkpoint(1))
    await store.commit(checkpoint(2))
    before = await rows_of(store)

    with pytest.raises(StorageError, match=f"checkpoint {number} of aggregator 'revenue' does not follow") as refused:
        await store.commit(checkpoint(number))
    assert not refused.value.is_unknown
    assert await rows_of(store) == before
    assert await store.last_number("revenue") == 2


async def test_aggregators_commit_at_the_same_time(made: Made) -> None:
    names = [f"a{n}" for n in range(8)]
    store = made()
    await store.open(dict.fromkeys(names, REVENUE))

    async def run(name: str) -> None:
        for number in range(1, 6):
            await store.commit(checkpoint(number, name))

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(run(name))

    assert [await store.last_number(name) for name in names] == [5] * 8
    assert [len(await rows_of(store, name)) for name in names] == [10] * 8
    await store.close()


async def test_many_rows_and_results_are_stored_and_come_back_in_order(store: StateStore) -> None:
    appended = [(n, b"x" * 1_000, 1) for n in range(2_000)]
    results = [row_of(n, 200, word=b"y" * 100) for n in range(0, 10_000, 200)]
    await store.commit(Commit("revenue", 1, b"{}", appended=appended, results=results))

    assert [row.bucket for row in await rows_of(store)] == list(range(2_000))
    assert [one.sequence for one in await results_of(store)] == list(range(10_000))
    await store.commit(Commit("revenue", 2, b"{}", emitted=range(10_000), dropped=[(n, 3) for n in range(2_000)]))
    assert await rows_of(store) == []
    assert await results_of(store) == []


async def test_the_size_is_that_of_the_contents_of_each_aggregator(made: Callable[[], StateStore]) -> None:
    both = {"revenue": REVENUE, "visits": REVENUE}
    store = made()
    await store.open(both)
    assert [store.size_bytes(name) for name in both] == [0, 0]
    first = replace(checkpoint(1), appended=[(60, bytes(1_000), 1), (120, bytes(2_000), 1)])
    await store.commit(first)
    await store.commit(replace(checkpoint(2), dropped=[(60, 2), (120, 3)], emitted=[1], forget_before=2))
    left = len(b'{"watermark":2}') + len(b"row 2") + 2 * 16 + len(b"result 2")
    assert [store.size_bytes(name) for name in both] == [left, 0]
    await store.commit(checkpoint(1, "visits"))
    of_visits = store.size_bytes("visits")
    assert of_visits == len(b'{"watermark":1}') + len(b"row 1") + len(b"another 1") + 2 * 16 + len(b"result 1")
    await store.close()

    again = made()
    await again.open(both)
    assert [again.size_bytes(name) for name in both] == [left, of_visits]
    await again.close()


async def test_no_result_is_unwanted_unless_an_operator_says_so(store: StateStore) -> None:
    await store.commit(checkpoint(1))

    assert await store.unwanted("revenue") == []
    assert (await store.load("revenue")).close_wish is None


async def test_a_closed_store_refuses(store: StateStore) -> None:
    await store.close()
    await store.close()

    with pytest.raises(StorageError, match="it is closed: open it before this call"):
        await store.commit(checkpoint(1))
    with pytest.raises(StorageError, match="it is closed: open it before this call"):
        await rows_of(store)


async def test_rows_keep_the_version_that_they_were_stored_with(made: Made, store: StateStore) -> None:
    await store.commit(checkpoint(1))
    await store.close()
    newer = made()
    await newer.open({"revenue": replace(REVENUE, version=2, value_type="float", has_upgrade=True)})

    assert (await newer.load("revenue")).version == 1
    await newer.commit(checkpoint(2))
    assert [row.version for row in await rows_of(newer)] == [1, 1, 2, 2]
    assert [one.version for one in await results_of(newer)] == [1, 2]
    await newer.commit(Commit("revenue", 3, b"{}", dropped=[(60, 2), (120, 2)], emitted=[1]))
    assert (await newer.load("revenue")).version == 2
    await newer.close()


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        (
            replace(REVENUE, version=0),
            (
                "the values of aggregator 'revenue' have version 1, and this program has version 0: use the newer "
                "program, or another file"
            ),
        ),
        (
            replace(REVENUE, version=2),
            (
                "the values of aggregator 'revenue' have version 1, and this program has version 2: write "
                "upgrade(version, value) in the aggregator, or use another file"
            ),
        ),
        (
            replace(REVENUE, key_type="int", version=2, has_upgrade=True),
            (
                "the keys of aggregator 'revenue' were stored as str, and this program has int: give the aggregator "
                "another name, or use another file"
            ),
        ),
        (
            replace(REVENUE, value_type="float"),
            (
                "the values of aggregator 'revenue' were stored as int, and this program has float: raise its version "
                "and write upgrade(version, value), or use another file"
            ),
        ),
        (
            replace(REVENUE, window="fixed windows of 300 s"),
            (
                "aggregator 'revenue' has open fixed windows of 60 s, and this program has fixed windows of 300 s: let "
                "them close with the former settings first, give the aggregator another name, or use another file"
            ),
        ),
    ],
)
async def test_values_that_the_aggregator_cannot_use_are_refused_and_stay(
    made: Made, store: StateStore, facts: AggregatorFacts, problem: str
) -> None:
    await store.commit(checkpoint(1))
    await store.close()
    changed = made()
    with pytest.raises(StorageError) as refused:
        await changed.open({"new": REVENUE, "revenue": facts})
    assert str(refused.value).partition(": ")[2] == problem

    again = made()
    await again.open(FACTS)
    assert (await again.load("revenue")).number == 1
    assert len(await rows_of(again)) == 2
    await again.close()


async def test_without_open_windows_their_size_may_change(made: Made, store: StateStore) -> None:
    await store.commit(Commit("revenue", 1, b"{}", results=[row_of(1, 1)]))
    await store.close()
    changed = made()
    await changed.open({"revenue": replace(REVENUE, window="calendar days")})

    assert (await changed.load("revenue")).number == 1
    await changed.close()


async def test_without_rows_and_results_everything_may_change(made: Made, store: StateStore) -> None:
    await store.commit(Commit("revenue", 1, b"{}"))
    await store.close()
    changed = made()
    await changed.open({"revenue": AggregatorFacts(3, "calendar days", "int", "float")})

    assert (await changed.load("revenue")).version == 3
    await changed.close()


async def test_what_a_removed_aggregator_left_stays(made: Made, store: StateStore) -> None:
    await store.commit(checkpoint(1))
    await store.close()
    without = made()
    await without.open({"orders": REVENUE})
    await without.commit(checkpoint(1, "orders"))
    await without.close()
    again = made()
    await again.open(FACTS)

    assert await again.load("revenue") == Loaded(b'{"watermark":1}', 1, 1, 5, 2)
    await again.close()
