"""Ours: lists of words through a dispatcher for four partitions, whose consumers always have demand."""

from __future__ import annotations

from itertools import chain

from benchmarks.measure import Meter, arguments
from benchmarks.words import LIST, PARTITIONS, lists_of_words
from broadway_py.stage import PartitionDispatcher


def measure(words: int, *, gate: bool) -> None:
    """Dispatch the lists once and print the measurement."""
    lists = lists_of_words(words)
    first = next(lists)  # makes the texts
    dispatcher = PartitionDispatcher[int, str](PARTITIONS)
    for partition in range(PARTITIONS):
        dispatcher.subscribe(partition, partition)
    count = 0
    meter = Meter(gate=gate)
    for events in chain([first], lists):
        for partition in range(PARTITIONS):
            dispatcher.ask(partition, len(events))
        deliveries, _, _ = dispatcher.dispatch(events)
        count += sum(len(part) for _, part in deliveries)
    assert count == words
    meter.report(f"partition, lists of {LIST}", words, "broadway-py")


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
