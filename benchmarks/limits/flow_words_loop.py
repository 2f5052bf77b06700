"""Limit: a plain loop that counts the words of a file's lines in a dict, in one process."""

from __future__ import annotations

from pathlib import Path

from benchmarks.flow_words_file import check, words_file
from benchmarks.measure import Meter, arguments


def loop(path: Path) -> dict[str, int]:
    """How often each word is in the file."""
    counts: dict[str, int] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            for word in line.split():
                counts[word] = counts.get(word, 0) + 1
    return counts


def measure(words: int, *, gate: bool) -> None:
    """Run the loop once and print the measurement."""
    path = words_file(words)
    meter = Meter(gate=gate)
    counts = loop(path)
    meter.report("flow_words_loop", words)
    check(path, counts)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
