"""The processors that this process may use: read from files as the kernel writes them, in a folder of the test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from broadway_py.machine import UsableProcessors, usable_processors

#: More than any machine of a test has, so that the quota under test decides or does not.
MANY = "9900000 100000"


@pytest.fixture(autouse=True)
def _sixty_four(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large host, all of it allowed."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    if hasattr(os, "process_cpu_count"):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 64)


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "number"),
    [
        ({f"{V2}/cpu.max": "150000 100000"}, 1.5),
        ({f"{V2}/cpu.max": "max 100000"}, 64),
        ({f"{V2}/cpu.max": MANY}, 64),
        ({}, 64),
        ({f"{V2}/cpu.max": ""}, 64),
        ({f"{V2}/cpu.max": "0 0"}, 64),
        ({f"{V2}/cpu.max": "what is this"}, 64),
        ({"proc/self/cgroup": "0::/a/b", f"{V2}/a/b/cpu.max": "50000 100000"}, 0.5),
        # The group around it allows less, or the group is not there as in a container without a name space for it.
        ({"proc/self/cgroup": "0::/a/b", f"{V2}/a/b/cpu.max": MANY, f"{V2}/a/cpu.max": "200000 100000"}, 2),
        ({"proc/self/cgroup": "0::/docker/abc", f"{V2}/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/../other", f"{V2}/cpu.max": "300000 100000"}, 3),
        # Version 1, and both at once.
        ({f"{V1}/cpu.cfs_quota_us": "250000", f"{V1}/cpu.cfs_period_us": "100000"}, 2.5),
        ({f"{V1}/cpu.cfs_quota_us": "-1", f"{V1}/cpu.cfs_period_us": "100000"}, 64),
        (
            {
                "proc/self/cgroup": "5:cpuacct,cpu:/pod/x\n0::/pod/x",
                "sys/fs/cgroup/cpu/pod/x/cpu.cfs_quota_us": "20000",
                "sys/fs/cgroup/cpu/pod/x/cpu.cfs_period_us": "10000",
                "sys/fs/cgroup/unified/pod/x/cpu.max": "max 100000",
            },
            2,
        ),
    ],
)
def test_a_quota_of_the_control_group_is_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], number: float
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    found = usable_processors(written(tmp_path, files))
    assert found == UsableProcessors(number, "processors" if number == 64 else "processors of the cgroup")


@pytest.mark.skipif(hasattr(os, "process_cpu_count"), reason="from 3.13 on Python itself looks at the affinity")
def test_the_affinity_counts_where_it_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    root = written(tmp_path, {f"{V2}/cpu.max": "300000 100000"})
    assert usable_processors(root) == UsableProcessors(2, "processors that this process is bound to")


@pytest.mark.parametrize(
    ("number", "times", "told"),
    [
        (1.5, 3, "2 x 1.5 processors of the cgroup = 3"),
        (1.2, 3, "2 x 1.2 processors of the cgroup = 3"),
        (0.1, 1, "2 x 0.1 processors of the cgroup = 1"),
        (2, 4, "2 x 2 processors of the cgroup = 4"),
    ],
)
def test_parts_of_a_processor_are_rounded_up(number: float, times: int, told: str) -> None:
    found = UsableProcessors(number, "processors of the cgroup")
    assert (found.times(2), found.told(2)) == (times, told)


def test_this_process_has_no_more_than_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 < usable_processors().number <= (os.cpu_count() or 1)


def test_a_large_host_with_a_small_quota_gives_few_processors(tmp_path: Path) -> None:
    assert usable_processors(written(tmp_path, {f"{V2}/cpu.max": "10000 100000"})).times(2) == 1
