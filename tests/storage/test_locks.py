from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from broadway_py.storage.locks import LifeLock, is_alive

HOLD = """
import sys
from broadway_py.storage.locks import LifeLock

lock = LifeLock(sys.argv[1], sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_its_owner_is_alive_until_it_drops_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert not is_alive(path)

    lock = LifeLock(path, path)
    assert is_alive(path)
    lock.drop()
    lock.drop()

    assert not is_alive(path)
    assert list(tmp_path.iterdir()) == []


def test_looking_does_not_make_it_alive(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()

    assert [is_alive(str(path)) for _ in range(3)] == [False] * 3


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = LifeLock(path, path)
    with pytest.raises(OSError, match="temporarily unavailable"):
        LifeLock(path, path)
    lock.drop()


def test_a_killed_process_is_not_alive(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_alive(path)
        process.kill()
        process.wait(30)

    assert not is_alive(path)
    assert Path(path).exists()
