"""Network file systems are told from disks, and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from broadway_py.storage import errors
from broadway_py.storage.connection import connect
from broadway_py.storage.errors import StorageError
from broadway_py.storage.places import network_file_system
from tests.storage.conftest import SCHEMA


def mounts(tmp_path: Path, *lines: str) -> Path:
    """A kernel's list: ``"<mount point> <type>"`` each, a disk at the root."""
    listed = tmp_path / "mountinfo"
    text = ["22 1 254:0 / / rw,relatime - ext4 /dev/vda rw"]
    for number, line in enumerate(lines, start=30):
        point, kind = line.rsplit(" ", 1)
        text.append(f"{number} 22 0:{number} / {point} rw,relatime shared:{number} - {kind} source rw,vers=4.2")
    listed.write_text("\n".join(text) + "\n", encoding="utf-8")
    return listed


@pytest.mark.parametrize(
    ("listed", "directory", "kind"),
    [
        ((), "/data", None),
        (("/data nfs4",), "/data", "nfs4"),
        (("/data nfs4",), "/data/queues/orders", "nfs4"),
        (("/data nfs4",), "/database", None),
        (("/data nfs4", "/data/local ext4"), "/data/local", None),
        (("/data ext4", "/data cifs"), "/data", "cifs"),
        (("/data cifs", "/data ext4"), "/data", None),
        (("/my\\040data fuse.sshfs",), "/my data/queues", "fuse.sshfs"),
        (("/data 9p",), "/data", None),
        (("/data tmpfs",), "/data", None),
    ],
)
def test_the_mount_nearest_to_the_file_and_mounted_last_decides(
    tmp_path: Path, listed: tuple[str, ...], directory: str, kind: str | None
) -> None:
    assert network_file_system(directory, mounts(tmp_path, *listed)) == kind


def test_without_the_kernels_list_nothing_is_said(tmp_path: Path) -> None:
    assert network_file_system("/", tmp_path / "missing") is None


def test_this_machines_own_disk_is_none(tmp_path: Path) -> None:
    assert network_file_system(str(tmp_path)) is None


def test_a_file_on_a_network_file_system_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = mounts(tmp_path, f"{tmp_path} nfs4")
    monkeypatch.setattr(errors, "network_file_system", lambda directory: network_file_system(directory, listed))
    path = tmp_path / "q.db"

    with pytest.raises(StorageError) as refused:
        connect(str(path), SCHEMA)

    assert str(refused.value) == (
        f"test file {path}: it would be on a network file system (nfs4), where one process cannot tell what another "
        "does and the file would be damaged: choose a path on a disk of this machine"
    )
    assert not path.exists()
