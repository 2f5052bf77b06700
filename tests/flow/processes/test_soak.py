"""The memory of long flows, seen from outside. Only ``make soak`` selects these: ``make soak ARGS="-k flow"``."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

MIB: Final = 1024 * 1024
#: Seconds between two looks.
PAUSE_S: Final = 0.02
#: Seconds that an endless flow runs, and those at its beginning in which its memory may still grow.
ENDLESS_S: Final = 60.0
WARM_S: Final = 15.0


class Look(NamedTuple):
    """The memory of a process at a moment, in bytes."""

    seconds: float
    resident: int
    highest: int


class Memory:
    """What was seen of a program and of its worker processes."""

    def __init__(self, looks: dict[int, list[Look]], program: int, output: str) -> None:
        self._looks = looks
        self._program = program
        #: What the program has printed.
        self.output = output

    def _of(self, *, workers: bool) -> Iterator[list[Look]]:
        return (looks for pid, looks in self._looks.items() if (pid != self._program) == workers)

    def highest(self, *, workers: bool) -> float:
        """The most memory of the program, or of one of its workers, in MiB."""
        # The last look has the highest of all: the first ones may be of the program before the worker was in its place.
        return max((looks[-1].highest for looks in self._of(workers=workers)), default=0) / MIB

    def grown(self, *, workers: bool) -> tuple[float, float]:
        """The most resident memory, in MiB, in the seconds after the warm ones, and in as many at the end."""
        several = [looks for looks in self._of(workers=workers) if looks[-1].seconds > ENDLESS_S / 2]
        assert len(several) == (2 if workers else 1)
        first = max(each.resident for looks in several for each in looks if WARM_S <= each.seconds < 2 * WARM_S)
        end = max(looks[-1].seconds for looks in several)
        last = max(each.resident for looks in several for each in looks if each.seconds >= end - WARM_S)
        return first / MIB, last / MIB


def watched(program: str) -> Memory:
    """Run *program*, and look at the memory of all its processes until it ends."""
    looks: dict[int, list[Look]] = defaultdict(list)
    start = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as running:
        while running.poll() is None:
            for pid in [running.pid, *workers_of(running.pid)]:
                if (memory := memory_of(pid)) is not None:
                    looks[pid].append(Look(time.monotonic() - start, *memory))
            time.sleep(PAUSE_S)
        assert running.stdout is not None
        output = running.stdout.read()
    assert running.returncode == 0
    return Memory(looks, running.pid, output)


def workers_of(pid: int) -> list[int]:
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, task.read_text().split())
        except OSError:
            continue  # the thread has ended
    return children


def memory_of(pid: int) -> tuple[int, int] | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None  # it has ended
    found = {line.partition(":")[0]: line.split()[1] for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return (int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024) if len(found) == 2 else None


# --- files

COUNTS: Final = """
import sys
from broadway_py import Flow

counts = Flow.from_files({path!r}).flat_map(str.split).count_by().using("processes", workers=2)
print(sum(count for _, count in counts))
"""


def test_flow_workers_need_the_same_memory_for_a_file_of_any_size(tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(5_000)]
    choose = random.Random(1)  # the same text each time
    # 8 MiB, of which each range has all words.
    text = "".join(" ".join(choose.choices(words, k=12)) + "\n" for _ in range(8 * MIB // 101))
    found: dict[int, Memory] = {}
    for times in (1, 4, 16):
        path = tmp_path / f"{times}.txt"
        with path.open("w") as file:
            for _ in range(times):
                file.write(text)
        found[times] = watched(COUNTS.format(path=str(path)))
        path.unlink()
        seen = found[times]
        print(
            f"\nfile of {times * len(text) / MIB:.0f} MiB: workers {seen.highest(workers=True):.1f} MiB, "
            f"program {seen.highest(workers=False):.1f} MiB"
        )

    for times, seen in found.items():
        assert int(seen.output) == times * len(text.split())
        for workers in (True, False):
            assert seen.highest(workers=workers) <= 1.1 * found[1].highest(workers=workers)


# --- endless sources

ENDLESS: Final = """
import time
from itertools import count
from broadway_py import Flow

# The hashes of 100,000 keys are remembered: with other keys each time, memory would grow until then.
words = Flow.from_iterable(count()).map(lambda number: str(number % 1_000))
results = words.partition().map(len).using("processes", workers=2)
end = time.monotonic() + {seconds}
taken = 0
for result in results:
    taken += 1
    if {pause}:
        time.sleep({pause})
    if time.monotonic() >= end:
        break
print(taken)
"""


@pytest.mark.parametrize("pause", [0, 0.001], ids=["fast", "slow"])
def test_an_endless_flow_needs_no_more_memory_with_time(pause: float) -> None:
    seen = watched(ENDLESS.format(seconds=ENDLESS_S, pause=pause))

    grown = {workers: seen.grown(workers=workers) for workers in (True, False)}
    print(f"\nreader with a pause of {pause} s: {int(seen.output):,} results in {ENDLESS_S:g} s; ", end="")
    for workers, (first, last) in grown.items():
        print("workers" if workers else "program", f"{first:.1f}, at the end {last:.1f} MiB")
    for first, last in grown.values():
        assert last <= first + 1


# --- many elements

MANY: Final = """
from broadway_py import Flow

numbers = Flow.from_iterable(range(10_000_000)).map(lambda n: n + 1).filter(lambda n: n % 2).map(lambda n: n * 2)
print(numbers.using({runner!r}, workers=2).run().elements_out)
"""


@pytest.mark.parametrize("runner", ["tasks", "threads", "processes"])
def test_a_flow_that_runs_over_ten_million_elements_keeps_none(runner: str) -> None:
    seen = watched(MANY.format(runner=runner))

    print(f"\n10 M elements, {runner}: program {seen.highest(workers=False):.1f} MiB, ", end="")
    print(f"workers {seen.highest(workers=True):.1f} MiB")
    assert int(seen.output) == 5_000_000
    assert seen.highest(workers=False) < 80
    assert seen.highest(workers=True) < 80
