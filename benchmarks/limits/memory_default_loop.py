"""Limit: the loop of ``memory_loop`` with chunks of 5, which is what a demand of 10/5 moves at a time."""

from __future__ import annotations

from benchmarks.limits.memory_loop import measure
from benchmarks.measure import arguments, run_async

CHUNK = 5

if __name__ == "__main__":
    asked = arguments(__doc__ or "").parse_args()
    run_async(measure("memory_default_loop", asked.messages, CHUNK, gate=asked.gate))
