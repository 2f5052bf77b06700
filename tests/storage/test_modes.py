from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadway_py.producers.queue import QueueProducer
from broadway_py.queue import Queue
from broadway_py.testing.driving import opened, settle, take


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in directory.iterdir()}


async def used(path: Path) -> dict[str, int]:
    """The modes of all files of a queue that is written, read, and open."""
    async with Queue(path, "q") as queue:
        await queue.put(b"a")
        async with opened(QueueProducer(path, "q")) as copy:
            held = await take(copy, 1)
            seen = modes(path.parent)
            await settle(held)
    return seen


async def test_what_we_make_is_for_its_owner_alone_whatever_the_umask(tmp_path: Path, umask: None) -> None:
    seen = await used(tmp_path / "q.db")
    assert sorted(seen) == ["q.db", "q.db-consumer-1", "q.db-line", "q.db-shm", "q.db-wal"]
    assert set(seen.values()) == {0o600}


async def test_a_file_that_its_owner_shares_stays_shared_with_all_that_lies_beside_it(
    tmp_path: Path, umask: None
) -> None:
    path = tmp_path / "q.db"
    path.touch()
    path.chmod(0o660)
    seen = await used(path)
    assert set(seen.values()) == {0o660}
