"""A directory with a file for each partition: whose files they are, and what is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from broadway_py.state.partitions import StatePartition, file_of, new_beside_others, prepare
from broadway_py.state.sqlite import SQLiteStore
from broadway_py.storage.errors import StorageError
from tests.state.conftest import FACTS, checkpoint


async def made(directory: Path, number: int, count: int, name: str | None = None) -> str:
    """Makes the file of a partition, as a pipeline does."""
    path = file_of(str(directory), number) if name is None else str(directory / name)
    store = SQLiteStore(path, StatePartition(number, count))
    await store.open(FACTS)
    await store.commit(checkpoint(1))
    await store.close()
    return path


async def refusal(path: str, partition: StatePartition | None) -> str:
    store = SQLiteStore(path, partition)
    with pytest.raises(StorageError) as refused:
        await store.open(FACTS)
    return str(refused.value)


async def test_a_file_goes_on_with_its_partition(tmp_path: Path) -> None:
    path = await made(tmp_path, 2, 4)
    assert path == str(tmp_path / "2.db")
    again = SQLiteStore(path, StatePartition(2, 4))
    await again.open(FACTS)
    assert (await again.load("revenue")).number == 1
    await again.close()


async def test_a_file_of_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    path = await made(tmp_path, 2, 4)
    assert await refusal(path, StatePartition(2, 8)) == (
        f"state file {path}: it belongs to one of 4 partitions, and the sources have 8, so that its keys may lie in "
        "others now: let its windows close with partitions: 4, and then choose another directory"
    )
    # Nothing was changed.
    await made_again(path, StatePartition(2, 4))


async def made_again(path: str, partition: StatePartition) -> None:
    store = SQLiteStore(path, partition)
    await store.open(FACTS)
    await store.close()


async def test_a_file_of_another_partition_is_refused(tmp_path: Path) -> None:
    path = await made(tmp_path, 2, 4, "1.db")
    assert await refusal(path, StatePartition(1, 4)) == (
        f"state file {path}: it belongs to partition 2, and not to 1: give the files of the directory the names back "
        "that they had"
    )


async def test_a_file_of_a_partition_is_refused_without_partitions(tmp_path: Path) -> None:
    path = await made(tmp_path, 2, 4)
    assert await refusal(path, None) == (
        f"state file {path}: it belongs to partition 2 of 4, and the sources have no partitions: set partitions: 4 on "
        "the source, with the directory of the file as state, or choose another path"
    )


async def test_a_file_without_partitions_is_refused_with_them(tmp_path: Path) -> None:
    path = file_of(str(tmp_path), 0)
    store = SQLiteStore(path)
    await store.open(FACTS)
    await store.close()
    assert await refusal(path, StatePartition(0, 4)) == (
        f"state file {path}: it was made without partitions, and is to be that of partition 0 of 4: choose another "
        "directory"
    )


# --- the directory


async def test_the_directory_is_made_and_may_have_files_of_the_same_number(tmp_path: Path) -> None:
    directory = tmp_path / "shop"
    prepare(str(directory), 4)
    await made(directory, 3, 4)
    (directory / "0.db").touch()  # a process that has just begun
    (directory / "notes.txt").touch()
    (directory / "1.db").write_bytes(b"damaged: its owner tells")
    prepare(str(directory), 4)


async def test_files_of_another_number_are_found_beside_a_new_one(tmp_path: Path) -> None:
    path = await made(tmp_path, 1, 4)
    with pytest.raises(StorageError) as refused:
        prepare(str(tmp_path), 8)
    assert str(refused.value) == (
        f"state file {path}: it belongs to one of 4 partitions, and the sources have 8, so that its keys may lie in "
        "others now: let its windows close with partitions: 4, and then choose another directory"
    )


async def test_files_of_another_number_are_found_while_their_owner_runs(tmp_path: Path) -> None:
    store = SQLiteStore(file_of(str(tmp_path), 1), StatePartition(1, 4))
    await store.open(FACTS)
    with pytest.raises(StorageError, match="it belongs to one of 4 partitions, and the sources have 8"):
        prepare(str(tmp_path), 8)
    prepare(str(tmp_path), 4)
    await store.close()


async def test_a_file_beyond_the_partitions_is_refused(tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "4.db"))
    await store.open(FACTS)
    await store.close()
    with pytest.raises(StorageError) as refused:
        prepare(str(tmp_path), 4)
    assert str(refused.value) == (
        f"state directory {tmp_path}: it has the file 4.db, and the sources have only 4 partitions: choose another "
        "directory"
    )


async def test_a_new_file_beside_others_is_told_and_nothing_is_made(tmp_path: Path) -> None:
    directory = str(tmp_path)
    await made(tmp_path, 1, 4)
    await made(tmp_path, 0, 4)
    assert new_beside_others(directory, (0, 1)) is None
    assert new_beside_others(directory, (1, 2)) == (
        f"state directory {directory}: it has 0.db, 1.db, but not 2.db, which will be new: where such a partition was "
        "read before, its open windows lie on another machine or in a file that was moved, and results of both have "
        "the same ids: stop the pipeline and put that file here"
    )
    assert sorted(one.name for one in tmp_path.iterdir() if one.suffix == ".db") == ["0.db", "1.db"]


async def test_at_a_first_start_no_new_file_is_told(tmp_path: Path) -> None:
    """Also if it was interrupted after some of the files were made."""
    directory = str(tmp_path / "shop")
    assert new_beside_others(directory, (0, 1)) is None
    prepare(directory, 4)
    assert new_beside_others(directory, (0, 1)) is None
    store = SQLiteStore(file_of(directory, 0), StatePartition(0, 4))
    await store.open(FACTS)
    await store.close()
    (tmp_path / "shop" / "2.db").touch()
    (tmp_path / "shop" / "3.db").write_bytes(b"damaged: its owner tells")
    assert new_beside_others(directory, (0, 1)) is None


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "shop.db"
    place.touch()
    with pytest.raises(StorageError) as refused:
        prepare(str(place), 4)
    assert str(refused.value) == (
        f"state directory {place}: this is a file, and a directory with a file for each partition is needed: move it "
        "away, or choose another path"
    )


def test_a_directory_in_no_directory_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "var" / "shop"
    with pytest.raises(StorageError) as refused:
        prepare(str(place), 4)
    assert str(refused.value) == (
        f"state directory {place}: its directory {place.parent} does not exist: create it, or choose another path"
    )


def test_a_directory_that_may_not_be_used_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Permissions do not bind root, who may run this.
    monkeypatch.setattr(Path, "iterdir", refuse)
    place = tmp_path / "shop"
    with pytest.raises(StorageError) as refused:
        prepare(str(place), 4)
    assert str(refused.value) == (
        f"state directory {place}: it cannot be used (Permission denied): give this user the permission to write "
        "there, or choose another path"
    )
