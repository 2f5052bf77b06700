"""The file has after any checkpoints what memory has, also when it is closed and opened in between."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broadway_py.state.memory import MemoryStore
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import Commit, StateStore
from tests.state.conftest import REVENUE, identities_of, identity, results_of, row_of, rows_of

NAMES = ("revenue", "orders")
FACTS = dict.fromkeys(NAMES, REVENUE)

buckets = st.integers(-2, 3)
numbers = st.integers(0, 12)
#: What one checkpoint has, without its number; and whether the file is closed and opened after it.
steps = st.tuples(
    st.sampled_from(NAMES),
    st.lists(st.tuples(buckets, st.binary(max_size=8), st.integers(1, 9)), max_size=4),
    st.lists(st.tuples(buckets, numbers), max_size=3),
    st.lists(st.integers(0, 40), max_size=3),
    numbers,
    st.lists(st.integers(1, 4), max_size=3),
    st.lists(st.integers(0, 30), max_size=9),
    st.booleans(),
)


async def contents(store: StateStore) -> list[Any]:
    """All that can be read."""
    found: list[Any] = []
    for name in NAMES:
        wanted = [identity(n) for n in range(0, 40, 3)]
        found += [
            await store.load(name),
            await store.last_number(name),
            sorted(await rows_of(store, name), key=repr),
            await identities_of(store, name),
            await results_of(store, name),
            await store.find(name, wanted),
            store.size_bytes(name),
        ]
    return found


async def play(path: Path, played: Sequence[tuple[Any, ...]]) -> None:
    memory, file = MemoryStore(), SQLiteStore(path)
    await memory.open(FACTS)
    await file.open(FACTS)
    last = dict.fromkeys(NAMES, 0)
    sequence = 0
    for name, appended, dropped, identities, forget_before, results, emitted, is_reopened in played:
        last[name] += 1
        due = []
        for count in results:
            due.append(row_of(sequence, count))
            sequence += count
        commit = Commit(
            name,
            last[name],
            b"%d" % last[name],
            appended,
            dropped,
            b"".join(map(identity, identities)),
            forget_before,
            due,
            emitted,
        )
        await memory.commit(commit)
        await file.commit(commit)
        if is_reopened:
            await file.close()
            await file.open(FACTS)
        assert await contents(file) == await contents(memory)
    await file.close()


@settings(max_examples=30)
@given(st.lists(steps, max_size=8))
def test_both_stores_have_the_same_after_any_checkpoints(played: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "shop.db", played))
