"""A Ray cluster on this machine: a head without processors, and two nodes with one each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["two_nodes"]


@contextmanager
def two_nodes() -> Iterator[None]:
    """Run the block while this program is connected to such a cluster. Nothing is reported to anybody."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # Ray reads it when it is imported
    import ray  # noqa: PLC0415  # only who measures Ray needs it
    from ray.cluster_utils import Cluster  # noqa: PLC0415  # the same

    # It tells that it has overwritten the address of another cluster of this machine.
    logging.getLogger("ray").setLevel(logging.ERROR)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(cluster.address, logging_level=logging.ERROR, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray's own types lack it
