"""What is wrong with the place of window state is told before a start, in the words of the start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broadway_py.producers import QueueProducer
from broadway_py.state.lock import StateLock
from broadway_py.state.partitions import file_of, prepare
from broadway_py.state.place import refuse_place
from broadway_py.storage.errors import StorageError, refuse_hopeless
from tests.pipeline.aggregation.support import Shop, Sums

NOBODY = 65_534
#: A name with more bytes than any file system takes.
LONG = "x" * 300


@contextmanager
def unwritable(folder: Path, *, closed: Path | None = None) -> Iterator[None]:
    """Lets this process have no permission to write in *folder*, the current one, and to look into *closed*."""
    folder.chmod(0o555)
    if closed is not None:
        closed.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o755)
        if closed is not None:
            closed.chmod(0o755)


def sentence_of(call: Callable[[], object]) -> str:
    with pytest.raises(StorageError) as refused:
        call()
    return str(refused.value)


def start(path: str, partitions: list[int] | None) -> None:
    """Does what a start does until the first file is locked."""
    if partitions is not None:
        prepare(path, 4)
        path = file_of(path, partitions[0])
    refuse_hopeless("state file", path)
    asyncio.run(StateLock.take("state file", path, str)).drop()


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")


@pytest.mark.parametrize(
    ("path", "partitions", "sentence"),
    [
        (
            "none/shop.db",
            None,
            "state file none/shop.db: its directory none does not exist: create it, or choose another path",
        ),
        (
            "file/shop.db",
            None,
            "state file file/shop.db: its directory file is not a directory: create it, or choose another path",
        ),
        (
            "none/shop",
            [1, 3],
            "state directory none/shop: its directory none does not exist: create it, or choose another path",
        ),
        (
            "file",
            [1, 3],
            (
                "state directory file: this is a file, and a directory with a file for each partition is needed: move "
                "it away, or choose another path"
            ),
        ),
        (
            "file/shop",
            [1, 3],
            (
                "state directory file/shop: it cannot be used (Not a directory): give this user the permission to "
                "write there, or choose another path"
            ),
        ),
        (
            "link",
            [1, 3],
            (
                "state directory link: this is a file, and a directory with a file for each partition is needed: move "
                "it away, or choose another path"
            ),
        ),
        (
            LONG,
            None,
            f"state file {LONG}: there can be no such file (File name too long): choose another path",
        ),
        (
            LONG,
            [1, 3],
            (
                f"state directory {LONG}: it cannot be used (File name too long): give this user the permission to "
                "write there, or choose another path"
            ),
        ),
    ],
)
def test_a_place_that_cannot_be_is_refused_as_by_the_start(
    path: str, partitions: list[int] | None, sentence: str
) -> None:
    Path("link").symlink_to("nowhere")
    assert sentence_of(lambda: refuse_place(path, partitions)) == sentence
    assert sentence_of(lambda: start(path, partitions)) == sentence


@pytest.mark.parametrize(
    ("path", "partitions", "sentence"),
    [
        (
            "shop.db",
            None,
            (
                "state file shop.db: the lock file {here}/shop.db-lock cannot be created or locked (Permission "
                "denied): give this user write permission to it and to the directory, or choose another path"
            ),
        ),
        (
            "shop",
            [1, 3],
            (
                "state directory shop: it cannot be used (Permission denied): give this user the permission to write "
                "there, or choose another path"
            ),
        ),
        (
            ".",
            [1, 3],
            (
                "state file 1.db: the lock file {here}/1.db-lock cannot be created or locked (Permission denied): give "
                "this user write permission to it and to the directory, or choose another path"
            ),
        ),
    ],
)
def test_a_directory_without_permission_is_refused_as_by_the_start(
    tmp_path: Path, path: str, partitions: list[int] | None, sentence: str
) -> None:
    with unwritable(tmp_path):
        told = sentence_of(lambda: refuse_place(path, partitions))
        of_start = sentence_of(lambda: start(path, partitions))
    assert told == sentence.format(here=tmp_path)
    assert of_start == told


@pytest.mark.parametrize(
    ("path", "partitions", "sentence"),
    [
        (
            "closed/shop.db",
            None,
            (
                "state file closed/shop.db: the file cannot be opened or created: give this user write permission to "
                "the file and its directory, or choose another path"
            ),
        ),
        (
            "closed/shop",
            [1, 3],
            (
                "state directory closed/shop: it cannot be used (Permission denied): give this user the permission to "
                "write there, or choose another path"
            ),
        ),
    ],
)
def test_a_directory_that_this_user_may_not_enter_is_refused_as_by_the_start(
    tmp_path: Path, path: str, partitions: list[int] | None, sentence: str
) -> None:
    closed = Path("closed")
    closed.mkdir()
    with unwritable(tmp_path, closed=closed):
        told = sentence_of(lambda: refuse_place(path, partitions))
        of_start = sentence_of(lambda: start(path, partitions))
        # The pipeline can be made all the same.
        Shop(producer=QueueProducer("q.db", "orders"), state=path, aggregators={"sums": Sums()})
    assert told == of_start == sentence


@pytest.mark.parametrize(("path", "partitions"), [("shop.db", None), ("shop", [1, 3]), (".", [1, 3])])
def test_a_place_that_can_be_used_is_left_as_it_is(path: str, partitions: list[int] | None) -> None:
    refuse_place(path, partitions)
    assert [one.name for one in Path().iterdir()] == ["file"]
