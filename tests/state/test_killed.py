"""What is in the file after ``kill -9`` is what was confirmed, and at most one checkpoint more."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from broadway_py.state.sqlite import SQLiteStore
from tests.state.conftest import FACTS, identities_of, identity, result, results_of, rows_of

#: Commits checkpoints, and says the number of each after it was confirmed. Each closes the window of five before it.
COMMIT = """
import asyncio, sys
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.state.store import Commit
from tests.state.conftest import FACTS, identity, row_of

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.open(FACTS)
    number = await store.last_number("revenue")
    print(number, flush=True)
    while True:
        number += 1
        await store.commit(Commit(
            "revenue", number, b"%d" % number,
            appended=[(number, b"row %d" % number * 500, 1)],
            dropped=[(number - 5, number + 1)],
            identities=identity(number) * 50,
            forget_before=number - 9,
            results=[row_of(3 * number, 3)],
            emitted=[3 * number - 9, 3 * number - 8, 3 * number - 10],
        ))
        print(number, flush=True)

asyncio.run(main())
"""
KILLS = 20


@pytest.mark.faults
async def test_what_is_in_the_file_after_a_kill_is_a_prefix_of_whole_checkpoints(path: str) -> None:
    chance = random.Random(17)
    confirmed = 0
    for _ in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", COMMIT, path], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(chance.randrange(1, 40))]
            assert int(said[0]) == confirmed
            process.kill()
            said += process.stdout  # what it had said until then
            confirmed = max(int(line) for line in said if line.endswith("\n"))

        number = await stored_whole(path)
        assert confirmed <= number <= confirmed + 1
        confirmed = number

    assert confirmed > KILLS
    assert Path(f"{path}-lock").exists() is False


async def stored_whole(path: str) -> int:
    """The number of the last checkpoint, after a look at every part of it and of those before."""
    store = SQLiteStore(path)
    await store.open(FACTS)
    number = await store.last_number("revenue")
    loaded = await store.load("revenue")
    assert (loaded.number, loaded.memory) == (number, b"%d" % number if number else None)
    assert [row.number for row in await rows_of(store)] == list(range(max(1, number - 4), number + 1))
    assert [row.blob for row in await rows_of(store)] == [
        b"row %d" % n * 500 for n in range(max(1, number - 4), number + 1)
    ]
    assert [tuple(one) for one in await identities_of(store)] == [
        (n, identity(n) * 50) for n in range(max(1, number - 9), number + 1)
    ]
    # Of the row before these three, the last result has not been taken.
    assert [(one.sequence, one.result) for one in await results_of(store)] == [
        (n, result(n)) for n in range(max(3, 3 * number - 7), 3 * number + 3)
    ]
    await store.close()
    return number
