"""Finds out whether a process was killed because it used too much memory."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["GROWN_KIB", "MemoryMark", "memory_mark", "ran_out", "to_kib"]

#: If the peak memory of a killed process had risen by this many KiB, it counts as killed for its memory.
GROWN_KIB: Final = 64 * 1024

# True where ru_maxrss counts in bytes, not in KiB.
_IN_BYTES: Final = sys.platform == "darwin"


class MemoryMark(NamedTuple):
    """The memory figures at one moment."""

    #: The peak memory of the process, in KiB.
    peak_kib: int
    #: How many processes the kernel has killed because memory ran out; 0 if it does not report that.
    kernel_kills: int


def memory_mark(peak_kib: int | None = None) -> MemoryMark:
    """Returns the figures now, for this process; or for a process that has ended, with its *peak_kib*."""
    if peak_kib is None:
        peak_kib = to_kib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return MemoryMark(peak_kib, _kernel_kills())


def ran_out(before: MemoryMark, after: MemoryMark) -> bool:
    """Returns True if the process has grown, or the kernel has killed a process meanwhile because memory ran out."""
    return after.peak_kib - before.peak_kib >= GROWN_KIB or after.kernel_kills > before.kernel_kills


def to_kib(maxrss: int) -> int:
    """Returns ``ru_maxrss`` in KiB, on every system."""
    return maxrss // 1024 if _IN_BYTES else maxrss


def _kernel_kills() -> int:
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
