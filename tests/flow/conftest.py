"""The Ray cluster for tests of flows that run on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import ray_cluster as of_ray


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """One for all tests of the run: it takes half a minute to start on a busy machine."""
    with of_ray.ray_cluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _cluster_of_a_test_on_ray(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("ray") is not None:
        request.getfixturevalue("ray_cluster")
