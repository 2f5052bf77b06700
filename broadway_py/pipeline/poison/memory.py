"""Whether a process that was killed had asked for too much memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["GROWN_KIB", "MemoryMark", "memory_mark", "ran_out", "to_kib"]

#: A process that was killed has been killed for its memory when its peak had risen by this much.
GROWN_KIB: Final = 64 * 1024

# What ru_maxrss counts in.
_IN_BYTES: Final = sys.platform == "darwin"


class MemoryMark(NamedTuple):
    """How things stand before a callback runs."""

    #: The most memory that the process has had, in KiB.
    peak_kib: int
    #: How many processes the kernel has killed for want of memory; 0 where it does not say.
    kernel_kills: int


def memory_mark(peak_kib: int | None = None) -> MemoryMark:
    """Now, for this process; or for one that has ended, with its *peak_kib*."""
    if peak_kib is None:
        peak_kib = to_kib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return MemoryMark(peak_kib, _kernel_kills())


def ran_out(before: MemoryMark, after: MemoryMark) -> bool:
    """True when the process has grown, or the kernel has killed something for want of memory meanwhile."""
    return after.peak_kib - before.peak_kib >= GROWN_KIB or after.kernel_kills > before.kernel_kills


def to_kib(maxrss: int) -> int:
    """``ru_maxrss`` in KiB, on every system."""
    return maxrss // 1024 if _IN_BYTES else maxrss


def _kernel_kills() -> int:
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
