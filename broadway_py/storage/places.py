"""Where a file lies: on a disk of this machine, or across a network, where locks and shared memory fail."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["network_file_system"]

_MOUNTS: Final = Path("/proc/self/mountinfo")

#: Types of file systems that other machines may use at the same time, as Linux calls them.
_NETWORK: Final = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "ceph", "lustre", "gpfs", "beegfs", "panfs"),
        *("gfs2", "ocfs2", "orangefs", "glusterfs", "davfs", "vboxsf", "prl_fs"),
        *("fuse.sshfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"),
        *("fuse.davfs", "fuse.mount-s3", "fuse.juicefs", "fuse.moosefs", "fuse.seaweedfs"),
    }
)


def network_file_system(directory: str, mounts: Path = _MOUNTS) -> str | None:
    """The type of the network file system that *directory* is on; None when it is on none.

    None also where that cannot be found out, which is on every system but Linux.

    Args:
        directory: an existing one.
        mounts: the kernel's list of what is mounted where.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = Path(directory).resolve()
    kind = ""
    longest = -1
    for line in lines:
        # "36 35 98:0 /root /mount/point options … - type source more"; what is mounted later hides what is below.
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        if (point == place or point in place.parents) and len(point.parts) >= longest:
            longest = len(point.parts)
            kind = after.split(" ", 1)[0]
    return kind if kind in _NETWORK else None


def _unescaped(text: str) -> str:
    # Blank, tab, line feed and backslash stand there as three octal digits.
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
