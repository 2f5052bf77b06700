"""Peer: a pool of two processes; each counts the lines of one half of the file with a Counter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, pairwise
from multiprocessing import Pool
from pathlib import Path
from typing import Final

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments

_PROCESSES: Final = 2


def lines(path: Path, begin: int, end: int) -> Iterator[str]:
    """The lines that begin in this range of bytes."""
    with path.open("rb") as file:
        if begin > 0:
            file.seek(begin - 1)
            file.readline()
        at = file.tell()
        for line in file:
            if at >= end:
                return
            at += len(line)
            yield line.decode()


def count(part: tuple[Path, int, int]) -> Counter[str]:
    """How often each word is in these lines."""
    return Counter(chain.from_iterable(map(str.split, lines(*part))))


def run(path: Path) -> Counter[str]:
    """How often each word is in the file."""
    size = path.stat().st_size
    ends = [size * number // _PROCESSES for number in range(_PROCESSES + 1)]
    parts = [(path, begin, end) for begin, end in pairwise(ends)]
    total: Counter[str] = Counter()
    # Two halves and not more parts: with eight it was slower. Forked, as is the default: the quickest start.
    with Pool(_PROCESSES) as pool:
        for counts in pool.imap_unordered(count, parts):
            total.update(counts)
        pool.close()
        pool.join()
    return total


def measure(words: int, *, gate: bool) -> None:
    """Count once and print the measurement."""
    path = words_file(words)
    meter = Meter(gate=gate)
    counts = run(path)
    meter.report("flow_words_pool", words)
    check(path, counts)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
