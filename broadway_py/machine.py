"""Finds out how many processors this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["UsableProcessors", "usable_processors"]

#: Where control groups are mounted: version 2 (also when it is used beside version 1), and version 1.
_V2: Final = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1: Final = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup/cpuacct,cpu")


class UsableProcessors(NamedTuple):
    """How many processors this process may use, and what sets this number."""

    number: float
    #: Words for error texts and logs, such as "processors of the cgroup".
    what: str

    def times(self, each: int) -> int:
        """Returns *each* times the number of processors, rounded up; at least 1."""
        # Rounded to 6 places first, so that the error of a float product such as 10 x 1.1 does not add one.
        return max(1, math.ceil(round(each * self.number, 6)))

    def told(self, each: int) -> str:
        """Returns the calculation of :meth:`times` as text."""
        return f"{each} x {self.number:g} {self.what} = {self.times(each)}"


def usable_processors(root: Path = Path("/")) -> UsableProcessors:
    """Returns the processors that this process may use, by its affinity or, if less, by its control group's quota.

    *root* is the root of the file system.
    """
    allowed = _allowed()
    quota = min(_quotas(root), default=math.inf)
    if quota < allowed.number:
        return UsableProcessors(quota, "processors of the cgroup")
    return allowed


def _allowed() -> UsableProcessors:
    host = os.cpu_count() or 1
    if hasattr(os, "process_cpu_count"):  # Python 3.13; heeds PYTHON_CPU_COUNT
        count = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):  # does not exist on every system
        count = len(os.sched_getaffinity(0)) or 1
    else:
        count = host
    return UsableProcessors(count, "processors" if count == host else "processors that this process is bound to")


def _quotas(root: Path) -> Iterator[float]:
    """Yields the quota of each control group of this process. The smallest one counts: parents limit their children."""
    two, one = _groups(root)
    for mount in _V2:
        for folder in _upwards(root / mount, two):
            quota, _, period = _read(folder / "cpu.max").partition(" ")
            yield from _share(quota, period)
    for mount in _V1:
        for folder in _upwards(root / mount, one):
            yield from _share(_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us"))


def _groups(root: Path) -> tuple[str, str]:
    """Returns the names of this process's groups: of version 2, and of the ``cpu`` controller of version 1."""
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
    """Yields the folders of *group* and of its parents, up to *mount*.

    Inside a container the name may lead nowhere; then *mount* itself is the folder of the group.
    """
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:length])


def _share(quota: str, period: str) -> Iterator[float]:
    # "No limit" is written as "max" in version 2 and as -1 in version 1.
    if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
