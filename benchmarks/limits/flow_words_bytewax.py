"""Peer: a dataflow of Bytewax that counts each batch of lines, and adds the counts of batches up by word.

That is the fastest that was found. With ``count_final``, as its guide shows it, each word is an item of the dataflow:
more than twice the processor time. Runs in an environment of its own (see ``benchmarks.peers``).
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import bytewax.operators as op  # type: ignore[import-not-found]  # only in its own environment
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]  # as above
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition  # type: ignore[import-not-found]  # as above
from bytewax.outputs import DynamicSink, StatelessSinkPartition  # type: ignore[import-not-found]  # as above
from bytewax.testing import run_main  # type: ignore[import-not-found]  # as above

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments
from benchmarks.queue_file import directory

_MODULE: Final = "benchmarks.limits.flow_words_bytewax"
#: Of lines, in a batch. With a tenth of it, more counts of batches travel: half as much processor time again.
_BATCH_BYTES: Final = 10_000_000


class Part(StatefulSourcePartition):  # type: ignore[misc]  # its types are only in its own environment
    """The lines that begin in a range of bytes."""

    def __init__(self, path: Path, begin: int, end: int) -> None:
        self._file = path.open("rb")
        self._end = end
        if begin > 0:
            self._file.seek(begin - 1)
            self._file.readline()

    def next_batch(self) -> list[str]:
        """The next lines."""
        left = self._end - self._file.tell()
        if left <= 0:
            raise StopIteration
        # It reads on until it has more than it was told; 0 would be everything. No line is empty here.
        enough = max(1, min(left, _BATCH_BYTES) - 1)
        return [line.decode() for line in self._file.readlines(enough)]

    def snapshot(self) -> None:
        """Nothing. There is no recovery."""


class Parts(FixedPartitionedSource):  # type: ignore[misc]  # as above
    """As many ranges of the file as there are processes."""

    def __init__(self, path: Path, parts: int) -> None:
        self._path, self._parts = path, parts

    def list_parts(self) -> list[str]:
        """The ranges."""
        size = self._path.stat().st_size
        ends = [size * number // self._parts for number in range(self._parts + 1)]
        return [f"{begin}-{end}" for begin, end in pairwise(ends)]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Part:
        """The lines of a range."""
        begin, end = map(int, for_part.split("-"))
        return Part(self._path, begin, end)


class CountsFile(StatelessSinkPartition):  # type: ignore[misc]  # as above
    """Words and counts, one in a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write_batch(self, items: list[tuple[str, int]]) -> None:
        """Write them."""
        self._file.writelines(f"{word} {count}\n" for word, count in items)

    def close(self) -> None:
        """All have been written."""
        self._file.close()


class CountsFiles(DynamicSink):  # type: ignore[misc]  # as above
    """A file for each worker."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def build(self, step_id: str, worker_index: int, worker_count: int) -> CountsFile:
        """The file of a worker."""
        return CountsFile(self._place / f"{worker_index}.counts")


def count(lines: Iterable[str]) -> Iterable[tuple[str, int]]:
    """A user's function."""
    return Counter([word for line in lines for word in line.split()]).items()


def flow_of(path: str, place: str, parts: int) -> Any:
    """The dataflow, also for the command that runs it in several processes."""
    flow = Dataflow("words")
    lines = op.input("lines", flow, Parts(Path(path), parts))
    counts = op.reduce_final("add", op.flat_map_batch("count", lines, count), int.__add__)
    op.output("counts", counts, CountsFiles(Path(place)))
    return flow


def run_processes(path: Path, place: Path, processes: int) -> None:
    """Run the dataflow in so many processes, by its own command, until all have ended."""
    factory = f"{_MODULE}:flow_of({str(path)!r}, {str(place)!r}, {processes})"
    addresses = ";".join(f"localhost:{port}" for port in _free_ports(processes))
    commands = [
        [sys.executable, "-m", "bytewax.run", factory, "-i", str(number), "-a", addresses]
        for number in range(processes)
    ]
    # They say on standard output that they wait for each other, and that is where the measurement goes.
    running = [subprocess.Popen(command, stdout=sys.stderr) for command in commands]
    for command, process in zip(commands, running, strict=True):
        if process.wait() != 0:
            raise RuntimeError(f"{command} ended with exit code {process.returncode}")


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def counted(place: Path) -> Iterator[tuple[str, int]]:
    """What the sinks have written."""
    for file in place.iterdir():
        for line in file.read_text(encoding="utf-8").splitlines():
            word, number = line.split()
            yield word, int(number)


def measure(words: int, processes: int, *, gate: bool) -> None:
    """Run the dataflow once and print the measurement."""
    path = words_file(words)
    with directory() as place:
        meter = Meter(gate=gate)
        if processes == 1:
            run_main(flow_of(str(path), str(place), 1))
        else:
            run_processes(path, place, processes)
        meter.report(f"flow_words_bytewax, {processes} processes", words, "bytewax")
        check(path, counted(place))


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--processes", type=int, default=2, help="how many (2)")
    asked = parser.parse_args()
    measure(asked.messages, asked.processes, gate=asked.gate)
