"""Ours: the words of a file's lines, counted by a flow in worker processes or on Ray, from its start to the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Final, Literal

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments
from benchmarks.ray_nodes import two_nodes
from broadway_py import Flow

Counts = dict[str, int]
Counted = Flow[tuple[str, int]]
Runner = Literal["processes", "ray"]

_WORKERS: Final = 2
#: Words of a text that takes no time.
_FEW: Final = 100
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


def measure_files(path: Path, way: str, words: int, runner: Runner, *, gate: bool, without_start: bool) -> None:
    """Run a flow whose workers read the file, and print the measurement.

    The start is measured with a text of a few words, before the clock runs.
    """
    start_s = _seconds_of(_flow(words_file(_FEW), way, runner)) if without_start else 0.0
    flow = _flow(path, way, runner)
    meter = Meter(gate=gate)
    counted = flow.to_list()
    meter.report(f"flow_words, {way}, {runner}", words, *_PACKAGES, start_s=start_s, start_seconds=start_s)
    check(path, counted)


def _flow(path: Path, way: str, runner: Runner) -> Counted:
    return _WAYS[way](Flow.from_files(path).flat_map(str.split)).using(runner, workers=_WORKERS)


def _seconds_of(flow: Counted) -> float:
    """How long it takes; the first time does not count, because Python keeps byte code and Ray its first worker."""
    flow.run()
    return min(flow.run().seconds for _ in range(3))


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
    parser.add_argument("--ray", action="store_true", help="on Ray, in a cluster of two nodes with one CPU each")
    parser.add_argument("--without-start", action="store_true", help="leave out the time of a flow with a few words")
    asked = parser.parse_args()
    words = words_file(asked.messages)
    if asked.lines:
        measure_lines(words, asked.way, asked.messages, gate=asked.gate)
    else:
        with two_nodes() if asked.ray else nullcontext():
            runner: Runner = "ray" if asked.ray else "processes"
            measure_files(words, asked.way, asked.messages, runner, gate=asked.gate, without_start=asked.without_start)
