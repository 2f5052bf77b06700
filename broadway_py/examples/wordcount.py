"""Counts words four ways, shows what ``partition`` is for, and what windows emit.

Run ``python -m broadway_py.examples.wordcount``, or with ``--help``.
"""

from __future__ import annotations

import argparse
import asyncio
import operator
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, get_args

from broadway_py import Flow, Window
from broadway_py.flow import Firing, FlowReport
from broadway_py.flow.description.settings import Runner

__all__ = [
    "POEM",
    "Measured",
    "count",
    "endings",
    "in_background",
    "in_memory",
    "lazily",
    "main",
    "measured",
    "partitioned",
    "split_side_by_side",
    "sums_of_ten",
    "text",
    "unpartitioned",
    "with_flow",
]

POEM: Final = ("roses are red", "violets are blue")

_WORDS_PER_LINE: Final = 10
_DIFFERENT_WORDS: Final = 5_000

#: The occurrences of each word.
Counts = dict[str, int]


def count(counts: Counts, word: str) -> Counts:
    """Counts one more word. Returns the same dictionary."""
    counts[word] = counts.get(word, 0) + 1
    return counts


# --- four ways ---


def in_memory(path: Path) -> Counts:
    """Makes a list of all lines, then a list of all words, then counts them. The whole text is in memory twice."""
    lines = path.read_text("utf-8").splitlines()
    words = [word for line in lines for word in line.split()]
    counts: Counts = {}
    for word in words:
        count(counts, word)
    return counts


def lazily(path: Path) -> Counts:
    """Reads one line after the other, and keeps only the counts. This is a plain loop on one processor."""
    counts: Counts = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            for word in line.split():
                count(counts, word)
    return counts


def split_side_by_side(path: Path) -> Counts:
    """Splits lines in several threads. The words come back to one loop, which counts them.

    Each line is a task of its own, which costs more than splitting it. The pool takes all tasks at once, so that the
    whole text is in memory again. And most of the work, the counting, is still done one by one.
    """
    counts: Counts = {}
    with path.open(encoding="utf-8") as lines, ThreadPoolExecutor() as pool:
        for words in pool.map(str.split, lines):
            for word in words:
                count(counts, word)
    return counts


def with_flow(path: Path, runner: Runner = "tasks") -> Counts:
    """Splits and counts in several stages, which read the file as fast as they work."""
    return dict(Flow.from_files(path).flat_map(str.split).count_by().using(runner))


class Measured(NamedTuple):
    """What a way of counting has given, and what it took."""

    counts: Counts
    seconds: float
    #: The most bytes that Python's objects have needed, in this process.
    most_bytes: int


def measured(way: Callable[[Path], Counts], path: Path) -> Measured:
    """Counts twice: once for the time, and once for the memory, because to follow the memory takes time."""
    started = time.perf_counter()
    counts = way(path)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    try:
        way(path)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return Measured(counts, seconds, most_bytes)


def text(lines: int, seed: int = 1) -> Iterator[str]:
    """Yields lines of made-up words, the same ones for the same *seed*. As in real texts, a few words are frequent."""
    chance = random.Random(seed)
    words = [f"word{number}" for number in range(_DIFFERENT_WORDS)]
    weights = [1 / (rank + 1) for rank in range(_DIFFERENT_WORDS)]
    for _ in range(lines):
        yield " ".join(chance.choices(words, weights, k=_WORDS_PER_LINE))


# --- what partition is for ---


def unpartitioned(lines: Iterable[str] = POEM) -> Flow[tuple[str, int]]:
    """Returns a flow of two stages, each of which counts the words of its own lines. It gives "are" twice.

    With ``max_demand=1`` a stage gets one line at a time. Otherwise one of them would get both.
    """
    return Flow.from_iterable(lines, stages=2, max_demand=1).flat_map(str.split).reduce(dict, count)


def partitioned(lines: Iterable[str] = POEM) -> Flow[tuple[str, int]]:
    """Returns a flow in which equal words go to the same stage. It gives "are" once."""
    words = Flow.from_iterable(lines, stages=2, max_demand=1).flat_map(str.split)
    return words.partition(stages=2).reduce(dict, count)


# --- what windows emit ---


def sums_of_ten() -> Flow[int]:
    """Returns the sums of each ten numbers of 1 to 100. The last window is still open at the end, and empty."""
    tens = Flow.from_iterable(range(1, 101)).partition(stages=1, window=Window.count(10))
    return tens.reduce(lambda: 0, operator.add).emit("state")


def endings() -> dict[str, Flow[object]]:
    """Returns flows that differ only in what a window emits at its end, by what is written there."""

    def told(counts: Counts, stage: int, firing: Firing) -> tuple[list[str], Counts]:
        return [f"stage {stage}, {firing.trigger}: {len(counts)} words"], {}

    counted = Flow.from_iterable(POEM, stages=1).flat_map(str.split).reduce(dict, count)
    return {
        'emit("events")': counted.emit("events"),
        'emit("state")': counted.emit("state"),
        'emit("nothing")': counted.emit("nothing"),
        "on_trigger(told)": counted.on_trigger(told),
    }


async def in_background() -> FlowReport:
    """Starts a flow, does something else, and waits for its end. Such a flow keeps no results: it does something."""
    running = await Flow.from_iterable(POEM, stages=1).flat_map(str.split).map(str.upper).start()
    await asyncio.sleep(0)  # something else
    return await running.wait()


# --- the program ---

_HELP: Final = """\
Counts the words of a text in four ways, and says of each how long it took and how much memory it needed:

  list       all words in one list, then a loop
  generator  line by line: little memory, one processor
  split      only the split is done side by side, in threads; one loop counts
  flow       split and count are done side by side, in the stages of a Flow

Then it shows a flow with and without partition(), and what windows emit.
"""

_MORE: Final = """\
things to try:
  a file of your own         python -m broadway_py.examples.wordcount book.txt
  ten times as many lines    --lines 300000: the memory of "list" and "split" grows, that of the others does not
  the same flow in threads   --runner threads

A plain loop is hard to beat where the work is as cheap as here, and one Python process uses one processor at a time.
Flow is worth it where work waits (for a disk, a service), and for windows, joins, and streams that do not end.
docs/flow.md shows all of Flow.
"""


def main(arguments: list[str] | None = None) -> None:
    """Runs the program. *arguments*: those of the command line; None: those that it was called with."""
    parser = argparse.ArgumentParser(
        prog="python -m broadway_py.examples.wordcount",
        description=_HELP,
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", nargs="?", type=Path, help="a text in UTF-8; without it a text is made up")
    parser.add_argument("--lines", type=int, default=30_000, help="of the text that is made up (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the text that is made up (default: %(default)s)")
    parser.add_argument(
        "--runner", choices=get_args(Runner), default="tasks", help="of the flow (default: %(default)s)"
    )
    given = parser.parse_args(arguments)
    if given.file is not None and not given.file.is_file():
        parser.error(f"there is no file {given.file}")

    with tempfile.TemporaryDirectory() as folder:
        path = given.file
        if path is None:
            path = Path(folder, "text.txt")
            path.write_text("\n".join(text(given.lines, given.seed)), "utf-8")
        try:
            _compare(path, given.runner)
        except UnicodeDecodeError:
            parser.error(f"the file {path} is not text in UTF-8")
    _show_partition()
    _show_windows()


def _compare(path: Path, runner: Runner) -> None:
    ways: dict[str, Callable[[Path], Counts]] = {
        "list: all words in memory": in_memory,
        "generator: line by line": lazily,
        "split: only this side by side": split_side_by_side,
        "flow: all of it in stages": lambda file: with_flow(file, runner),
    }
    print(f"Counting the words of {path.name}, {path.stat().st_size:,} bytes\n")
    print(f"{'':<30}{'seconds':>8}{'MiB':>8}")
    counts: Counts = {}
    for told, way in ways.items():
        counts, seconds, most_bytes = measured(way, path)
        print(f"{told:<30}{seconds:>8.2f}{most_bytes / 2**20:>8.1f}")
    most = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:3]
    print(f"\n{sum(counts.values()):,} words, {len(counts):,} different ones; most often: {_as_text(most)}")


def _show_partition() -> None:
    print("\n\nTwo stages without partition: each counts what it gets, so 'are' comes out twice\n")
    print(unpartitioned().explain())
    print(f"\n{_as_text(sorted(unpartitioned()))}")
    print("\n\nWith partition: equal words go to the same stage\n")
    print(partitioned().explain())
    print(f"\n{_as_text(sorted(partitioned()))}")


def _show_windows() -> None:
    print("\n\nThe sums of each ten numbers of 1 to 100, in windows of ten elements\n")
    print(sums_of_ten().to_list())
    print("\n\nWhat a window emits at its end\n")
    for name, flow in endings().items():
        print(f"{name:<17} {flow.to_list()}")
    with ThreadPoolExecutor(max_workers=1) as thread:  # in a notebook, a loop runs in this one
        report = thread.submit(asyncio.run, in_background()).result()
    print(f"\n\nstart() and wait(): {report.elements_in} lines went in, {report.elements_out} words came out")


def _as_text(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{word} {number}" for word, number in counts)


if __name__ == "__main__":
    main()
