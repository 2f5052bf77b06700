"""Limit: a list comprehension that calls the same functions."""

from __future__ import annotations

from benchmarks.flow_numbers_work import add_one, check, double, is_even
from benchmarks.measure import Meter, arguments


def measure(numbers: int, *, gate: bool) -> None:
    """Run the comprehension once and print the measurement."""
    meter = Meter(gate=gate)
    results = [double(more) for number in range(numbers) if is_even(more := add_one(number))]
    meter.report("flow_numbers_comprehension", numbers)
    check(results, numbers)


if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    measure(asked.messages, gate=asked.gate)
