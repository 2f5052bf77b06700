"""Limit: a bare loop that adds each event to a dict of its window, by key. No window ever closes."""

from __future__ import annotations

from benchmarks.measure import Meter, arguments
from benchmarks.window_events import SIZE_S, Event, check, events


def loop(given: list[Event]) -> dict[int, dict[int, int]]:
    """The sums of each window."""
    windows: dict[int, dict[int, int]] = {}
    for time, key, value in given:
        number = int(time // SIZE_S)
        sums = windows.get(number)
        if sums is None:
            sums = windows[number] = {}
        sums[key] = sums.get(key, 0) + value
    return windows


def measure(messages: int, *, gate: bool) -> None:
    """Run the loop once and print the measurement."""
    given = events(messages)
    meter = Meter(gate=gate)
    windows = loop(given)
    meter.report("windows_dict", messages)
    check(sum(sum(sums.values()) for sums in windows.values()), messages)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
