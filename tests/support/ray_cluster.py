"""A Ray cluster for the tests: a head that has no processor to give, and two nodes that have one each."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest

__all__ = ["living_actors", "living_workers", "ray_cluster"]

#: A variable of all processes of the cluster: others may have one on this machine.
_MARK: Final = "BROADWAY_TEST_RAY"

#: Bytes of shared memory of each node: a little more than the least that Ray takes.
_STORE: Final = 100 * 1024 * 1024


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Starts a cluster and connects this process to it. Programs that this process starts find it, too.

    Yields:
        The :class:`ray.cluster_utils.Cluster`, which can add and remove nodes.
    """
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: there is no wheel of it for this Python on this machine")
    import ray  # noqa: PLC0415  # a second and a half, which only these tests need
    from ray.cluster_utils import Cluster  # noqa: PLC0415  # the same

    # Not pytest's own: the sockets of the nodes have long names, and the system allows 107 bytes.
    folder = tempfile.mkdtemp(prefix="ray-")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(_MARK, folder)
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE, "temp_dir": folder}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, object_store_memory=_STORE)
            patch.setenv("RAY_ADDRESS", cluster.address)
            ray.init(address=cluster.address, configure_logging=False, log_to_driver=False)
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()  # type: ignore[no-untyped-call]  # Ray has types for a part of its functions
            shutil.rmtree(folder, ignore_errors=True)


def living_actors() -> set[str]:
    """Returns the ids of the actors of the cluster that have not ended."""
    from ray._private import state  # noqa: PLC0415  # without a dashboard, nothing public lists actors

    return {name for name, actor in state.actors().items() if actor["State"] != "DEAD"}


def living_workers() -> set[int]:
    """Returns the processes on the nodes of the cluster that have, or had, an actor of a flow."""
    mark = f"{_MARK}={os.environ[_MARK]}".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            # A process that only waits to be collected has neither.
            if (folder / "cmdline").read_bytes().startswith(b"ray::RayWorker") and mark in (
                folder / "environ"
            ).read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found
