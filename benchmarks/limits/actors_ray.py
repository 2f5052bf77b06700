"""Peer: one actor of Ray on this machine, called from this process.

Runs in an environment of its own (see ``benchmarks.peers``). The cluster and the actor are there before the clock
starts.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from benchmarks.actors_work import WORKS, Tally, arguments_of, call_all, check, method_of
from benchmarks.measure import Meter, arguments

# Nothing is sent to anybody. The import reads it.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray  # type: ignore[import-not-found, unused-ignore]  # only in its own environment

#: The first calls open the connection, which is not what is measured.
_FIRST: Final = 20


def measure(work: str, messages: int, *, gate: bool) -> None:
    """Make all calls once and print the measurement."""
    # A cluster of its own, also if another one runs on this machine. A dashboard would take processor time.
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    actor: Any = ray.remote(Tally).remote()
    for _ in range(_FIRST):
        ray.get(actor.add.remote([]))
    meter = Meter(gate=gate)
    call_all(work, getattr(actor, method_of(work)).remote, ray.get, arguments_of(work, messages))
    meter.report(f"actors_ray, {work}", messages, "ray")
    check(work, tuple(ray.get(actor.told.remote())), messages)
    ray.shutdown()


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("work", choices=sorted(WORKS))
    asked = parser.parse_args()
    measure(asked.work, asked.messages, gate=asked.gate)
