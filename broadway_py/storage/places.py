"""Finds out whether a file is on a disk of this machine or on a network, where locks and shared memory fail."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["network_file_system"]

_MOUNTS: Final = Path("/proc/self/mountinfo")

#: Types of file systems, in Linux's names, that other machines may use at the same time.
_NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre", "gpfs", "beegfs", "panfs"),
        *("gfs2", "ocfs2", "orangefs", "glusterfs", "davfs", "vboxsf", "prl_fs"),
        *("fuse.sshfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.davfs", "fuse.mount-s3", "fuse.juicefs", "fuse.moosefs", "fuse.seaweedfs"),
    }
)


def network_file_system(directory: str, mounts: Path = _MOUNTS) -> str | None:
    """Returns the type of the network file system that *directory* is on, or None if it is on none.

    It also returns None where this cannot be found out: on every system except Linux.

    Args:
        directory: an existing directory.
        mounts: the kernel's list of mounts.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = Path(directory).resolve()
    kind = ""
    longest = -1
    for line in lines:
        # "36 35 98:0 /root /mount/point options … - type source more". A later mount hides an earlier one at the same
        # place.
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        if (point == place or point in place.parents) and len(point.parts) >= longest:
            longest = len(point.parts)
            kind = after.split(" ", 1)[0]
    return kind if kind in _NETWORK else None


def _unescaped(text: str) -> str:
    # Blank, tab, line feed and backslash are written as three octal digits.
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
