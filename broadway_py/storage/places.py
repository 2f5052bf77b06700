"""Finds out what a place for a file is like: on a network, where locks and shared memory fail, or not writable."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["network_file_system", "refusal_of_creating"]

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


def refusal_of_creating(path: str) -> OSError | None:
    """Returns the error that this user would get from opening *path* to write, or from creating it if it is missing.

    Nothing is opened or created. None: there would be no error.
    """
    place = Path(path)
    try:
        wanted = os.W_OK
        if not place.exists():
            place = place.parent
            wanted |= os.X_OK
            if not stat.S_ISDIR(place.stat().st_mode):
                return _error(errno.ENOTDIR)
        if os.access(place, wanted, effective_ids=os.access in os.supports_effective_ids):
            return None
        is_read_only = os.statvfs(place).f_flag & os.ST_RDONLY
    except OSError as error:
        return error
    return _error(errno.EROFS if is_read_only else errno.EACCES)


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def _unescaped(text: str) -> str:
    # Blank, tab, line feed and backslash are written as three octal digits.
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
