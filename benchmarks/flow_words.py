"""Ours: the words of a file's lines, counted by a flow in worker processes, from its start to the last result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments
from broadway_py import Flow

Counts = dict[str, int]
Counted = Flow[tuple[str, int]]

_WORKERS: Final = 2
_PACKAGES: Final = ("broadway-py", "cloudpickle")


def count(counts: Counts, word: str) -> Counts:
    """A user's function."""
    counts[word] = counts.get(word, 0) + 1
    return counts


def merge(counts: Counts, more: Counts) -> Counts:
    """A user's function."""
    for word, number in more.items():
        counts[word] = counts.get(word, 0) + number
    return counts


def count_by(words: Flow[str]) -> Counted:
    """Flow's own way to count."""
    return words.count_by()


def combine(words: Flow[str]) -> Counted:
    """A dict in each stage, which are put together."""
    return words.reduce(dict, count, combine=merge)


def partition(words: Flow[str]) -> Counted:
    """Each word goes to the stage that owns it."""
    return words.partition().reduce(dict, count)


_WAYS: Final[dict[str, Callable[[Flow[str]], Counted]]] = {
    "count_by": count_by,
    "combine": combine,
    "partition": partition,
}


def measure_files(path: Path, way: str, words: int, *, gate: bool) -> None:
    """Run a flow whose workers read the file, and print the measurement."""
    flow = _WAYS[way](Flow.from_files(path).flat_map(str.split)).using("processes", workers=_WORKERS)
    meter = Meter(gate=gate)
    counted = flow.to_list()
    meter.report(f"flow_words, {way}", words, *_PACKAGES)
    check(path, counted)


def measure_lines(path: Path, way: str, words: int, *, gate: bool) -> None:
    """Run a flow that gets the lines from this process, and print the measurement."""
    with path.open(encoding="utf-8") as lines:
        flow = _WAYS[way](Flow.from_iterable(lines).flat_map(str.split)).using("processes", workers=_WORKERS)
        meter = Meter(gate=gate)
        counted = flow.to_list()
        meter.report(f"flow_words, {way}, lines", words, *_PACKAGES)
    check(path, counted)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("way", choices=sorted(_WAYS))
    parser.add_argument("--lines", action="store_true", help="this process reads the lines, not the workers")
    asked = parser.parse_args()
    measure = measure_lines if asked.lines else measure_files
    measure(words_file(asked.messages), asked.way, asked.messages, gate=asked.gate)
