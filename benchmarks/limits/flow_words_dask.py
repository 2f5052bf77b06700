"""Peer: a bag of Dask, with ``frequencies`` on its scheduler of two processes.

Runs in an environment of its own (see ``benchmarks.peers``), with cytoolz, which Dask takes when it is there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import dask  # type: ignore[import-not-found]  # only in its own environment
from dask import bag

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments

_PROCESSES: Final = 2
#: With 1, 2, 10 or 40 MB it was not faster. The default, one block for each file, uses one process.
_BLOCK: Final = "4MB"
#: Its default starts fresh interpreters, which takes longer.
_START: Final = {"multiprocessing.context": "fork"}


def run(path: Path) -> list[tuple[str, int]]:
    """How often each word is in the file."""
    words = bag.read_text(str(path), blocksize=_BLOCK, encoding="utf-8").map(str.split).flatten()
    with dask.config.set(_START):
        counted: Any = words.frequencies().compute(scheduler="processes", num_workers=_PROCESSES)
    return list(counted)


def measure(words: int, *, gate: bool) -> None:
    """Count once and print the measurement."""
    path = words_file(words)
    meter = Meter(gate=gate)
    counts = run(path)
    meter.report("flow_words_dask", words, "dask", "cytoolz")
    check(path, counts)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
