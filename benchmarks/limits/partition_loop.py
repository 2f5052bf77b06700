"""Limit: a bare loop that puts each word of a list on one of four lists, by its hash."""

from __future__ import annotations

from itertools import chain

from benchmarks.measure import Meter, arguments
from benchmarks.words import LIST, PARTITIONS, lists_of_words


def measure(words: int, *, gate: bool) -> None:
    """Run the loop once and print the measurement."""
    lists = lists_of_words(words)
    first = next(lists)  # makes the texts
    count = 0
    meter = Meter(gate=gate)
    for events in chain([first], lists):
        parts: list[list[str]] = [[] for _ in range(PARTITIONS)]
        for event in events:
            parts[hash(event) % PARTITIONS].append(event)
        count += sum(map(len, parts))
    assert count == words
    meter.report(f"partition_loop, lists of {LIST}", words)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
