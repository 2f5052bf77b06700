"""Ours: integers through ``map``, ``filter`` and ``map`` in one process: all results as a list, or none kept."""

from __future__ import annotations

from benchmarks.flow_numbers_work import add_one, check, double, is_even
from benchmarks.measure import Meter, arguments
from broadway_py import Flow


def measure(numbers: int, stages: int, *, keep: bool, gate: bool) -> None:
    """Run the flow once and print the measurement."""
    flow = Flow.from_iterable(range(numbers), stages=stages).map(add_one).filter(is_even).map(double)
    meter = Meter(gate=gate)
    if keep:
        results = flow.to_list()
        meter.report(f"flow_numbers, {stages} stages", numbers, "broadway-py")
        check(results, numbers)
    else:
        told = flow.run()
        meter.report(f"flow_numbers, {stages} stages, none kept", numbers, "broadway-py")
        if (told.elements_in, told.elements_out) != (numbers, numbers // 2):
            raise RuntimeError(f"expected half of {numbers} elements to come out, got {told}")


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--stages", type=int, default=1, help="how many (1)")
    parser.add_argument("--run", action="store_true", help="keep no results")
    asked = parser.parse_args()
    measure(asked.messages, asked.stages, keep=not asked.run, gate=asked.gate)
