"""Peer: one actor of Dask's distributed scheduler on this machine, called from this process.

Runs in an environment of its own (see ``benchmarks.peers``). The cluster and the actor are there before the clock
starts.
"""

from __future__ import annotations

from typing import Any, Final

from distributed import Client, LocalCluster  # type: ignore[import-not-found]  # only in its own environment

from benchmarks.actors_work import WORKS, Tally, arguments_of, call_all, check, method_of
from benchmarks.measure import Meter, arguments

#: As with Ray.
_FIRST: Final = 20


def measure(work: str, messages: int, *, direct: bool, gate: bool) -> None:
    """Make all calls once and print the measurement."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster, direct_to_workers=direct) as client,
    ):
        actor: Any = client.submit(Tally, actor=True).result()
        for _ in range(_FIRST):
            actor.add([]).result()
        meter = Meter(gate=gate)
        call_all(work, getattr(actor, method_of(work)), lambda begun: begun.result(), arguments_of(work, messages))
        meter.report(f"actors_dask, {work}", messages, "distributed")
        check(work, tuple(actor.told().result()), messages)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("work", choices=sorted(WORKS))
    parser.add_argument(
        "--through-scheduler", action="store_true", help="calls go through the scheduler, as a client does by default"
    )
    asked = parser.parse_args()
    measure(asked.work, asked.messages, direct=not asked.through_scheduler, gate=asked.gate)
