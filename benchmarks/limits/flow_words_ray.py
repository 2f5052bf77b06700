"""Limit: plain tasks of Ray that count the words of ranges of a file, in a cluster of two nodes with one CPU each.

The program takes the ranges one after the other, two tasks at a time, and adds up what they return.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import ray

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments
from benchmarks.ray_nodes import two_nodes

_NODES: Final = 2
#: With ranges of 1, 4 or 40 MB it was slower.
_RANGE: Final = 16 << 20


def count(path: str, start: int, end: int) -> Counter[str]:
    """How often each word is in the lines that begin in a range of bytes."""
    with open(path, "rb") as file:  # noqa: PTH123  # as short as a user would write it
        if start:
            file.seek(start - 1)
            file.readline()
        text = file.read(max(0, end - file.tell())) + file.readline()
    return Counter(text.decode().split())


def run(path: Path) -> Counter[str]:
    """How often each word is in the file."""
    size = path.stat().st_size
    task: Any = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(count)
    counted: Counter[str] = Counter()
    ranges = iter(range(0, size, _RANGE))
    open_ = [
        task.remote(str(path), start, min(size, start + _RANGE))
        for start, _ in zip(ranges, range(_NODES), strict=False)
    ]
    while open_:
        (done, *_), open_ = ray.wait(open_)
        if (start := next(ranges, None)) is not None:
            open_.append(task.remote(str(path), start, min(size, start + _RANGE)))
        counted.update(ray.get(done))
    return counted


def measure(words: int, *, gate: bool) -> None:
    """Count once and print the measurement."""
    path = words_file(words)
    # Ray starts the processes of tasks with the first ones, and keeps them.
    before = time.perf_counter()
    run(words_file(words // 4))
    meter = Meter(gate=gate)
    counts = run(path)
    meter.report("flow_words_ray", words, "ray", first_seconds=time.perf_counter() - before)
    check(path, counts)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    with two_nodes():
        measure(asked.messages, gate=asked.gate)
