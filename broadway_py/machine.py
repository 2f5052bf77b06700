"""What this process may use of its machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Processors", "usable_processors"]

#: Where control groups are found: version 2 (also beside version 1), version 1.
_V2: Final = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1: Final = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")


class Processors(NamedTuple):
    """How many processors this process may keep busy, and what says so."""

    number: float
    #: Such as "processors of the cgroup".
    what: str

    def times(self, each: int) -> int:
        """*each* for every processor, a part of one rounded up; at least 1."""
        # 10 times 0.1 is no reason for a second one.
        return max(1, math.ceil(round(each * self.number, 6)))

    def told(self, each: int) -> str:
        """How :meth:`times` comes to its number."""
        return f"{each} x {self.number:g} {self.what} = {self.times(each)}"


def usable_processors(root: Path = Path("/")) -> Processors:
    """The processors that this process may use: its affinity, or the quota of its control group if that is less.

    *root* is where the file system begins.
    """
    allowed = _allowed()
    quota = min(_quotas(root), default=math.inf)
    if quota < allowed.number:
        return Processors(quota, "processors of the cgroup")
    return allowed


def _allowed() -> Processors:
    host = os.cpu_count() or 1
    if hasattr(os, "process_cpu_count"):  # Python 3.13; heeds PYTHON_CPU_COUNT
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):  # not everywhere
        count = len(os.sched_getaffinity(0)) or 1
    else:
        count = host
    return Processors(count, "processors" if count == host else "processors that this process is bound to")


def _quotas(root: Path) -> Iterator[float]:
    """What each control group that this process is in allows; a group cannot have more than those around it."""
    two, one = _groups(root)
    for mount in _V2:
        for folder in _upwards(root / mount, two):
            quota, _, period = _read(folder / "cpu.max").partition(" ")
            yield from _share(quota, period)
    for mount in _V1:
        for folder in _upwards(root / mount, one):
            yield from _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _groups(root: Path) -> tuple[str, str]:
    """The names of our groups, for version 2 and for the processors of version 1."""
    two = one = ""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" and not controllers:
            two = name
        elif "cpu" in controllers.split(","):
            one = name
    return two, one


def _upwards(mount: Path, group: str) -> Iterator[Path]:
    """The folders of *group* and of those around it. Inside a container its name may lead nowhere: the mount is it."""
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _share(quota: str, period: str) -> Iterator[float]:
    # No limit is "max" in version 2, -1 in version 1.
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
