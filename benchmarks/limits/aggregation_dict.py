"""Limit: the loop of ``memory_loop`` that adds each event to a dict of its window, by key, and hands out what closes.

Time, key and sum come from functions, as with every aggregator. Nothing is stored, and nobody is told what was lost.
"""

from __future__ import annotations

from itertools import islice

from benchmarks.limits.memory_loop import CHUNK
from benchmarks.measure import Meter, arguments, run_async
from benchmarks.window_events import LATENESS_S, SIZE_S, Event, check, events


class Item:
    """The least a message can be, as in ``memory_loop``."""

    __slots__ = ("data", "metadata", "status")

    def __init__(self, data: Event) -> None:
        self.data = data
        self.metadata: dict[str, object] = {}
        self.status = None


async def handle(item: Item) -> None:
    """The handler: nothing."""


def time_of(item: Item) -> float:
    """A user's function."""
    return item.data[0]


def key_of(item: Item) -> int:
    """A user's function."""
    return item.data[1]


def add(total: int, item: Item) -> int:
    """A user's function."""
    return total + item.data[2]


async def emit(results: dict[int, int]) -> int:
    """A user's function."""
    return sum(results.values())


async def loop(given: list[Event]) -> int:
    """The sum of all that was handed out."""
    windows: dict[int, dict[int, int]] = {}
    source = iter(given)
    newest, total = 0.0, 0
    while items := [Item(event) for event in islice(source, CHUNK)]:
        for item in items:
            await handle(item)
            time = time_of(item)
            if time > newest:  # noqa: PLR1730  # max() costs several times as much
                newest = time
            number = int(time // SIZE_S)
            sums = windows.get(number)
            if sums is None:
                sums = windows[number] = {}
            key = key_of(item)
            sums[key] = add(sums.get(key, 0), item)
        closed = int((newest - LATENESS_S) // SIZE_S)
        for number in [number for number in windows if number < closed]:
            total += await emit(windows.pop(number))
    for sums in windows.values():
        total += await emit(sums)
    return total


async def measure(messages: int, *, gate: bool) -> None:
    """Run the loop once and print the measurement."""
    given = events(messages)
    meter = Meter(gate=gate)
    total = await loop(given)
    meter.report("aggregation_dict", messages)
    check(total, messages)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    run_async(measure(asked.messages, gate=asked.gate))
